"""What runs the teacher: Transformers, or CTranslate2."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch

from ..data.collator import padded
from ..output import whole_folder
from ..pipeline import DECODED
from ..rescoring import autoregressive_scores, target_ids
from .distillation_settings import DistillationSettings
from .processes import Processes
from .teacher import Teacher, in_int8


@dataclass(frozen=True)
class Said:
    """A translation."""

    text: str
    score: float  # mean log-probability by the teacher, nats per token, the end included
    is_finished: bool  # it ended by itself, not at `max_new_tokens`
    num_source_tokens: int  # without what every text has around it
    num_tokens: int


class Engine(Protocol):
    """Translates batches of sources that were encoded by `teacher`."""

    teacher: Teacher
    settings: DistillationSettings

    def sampling(self, seed: int) -> Any:
        """A context in which random numbers begin at a seed."""

    def translate(self, sources: list[str], token_ids: list[list[int]]) -> list[Said]:
        """The translations, in the order of `sources`."""


def make_engine(
    teacher: Teacher, settings: DistillationSettings, cache: Path, processes: Processes
) -> Engine:
    """The engine that is asked for, ready to translate."""
    if settings.engine == "transformers":
        return TransformersEngine(teacher, settings)
    return CTranslate2Engine(teacher, settings, cache, processes)


@dataclass(frozen=True)
class _Length:
    """Counts tokens that say something."""

    special: frozenset[int]

    def __call__(self, token_ids: list[int]) -> int:
        return sum(i not in self.special for i in token_ids)


class TransformersEngine:
    """`model.generate`, and a pass over what it wrote for the scores."""

    def __init__(self, teacher: Teacher, settings: DistillationSettings):
        self.teacher, self.settings = teacher, settings
        # A copy that shares all but the settings: `generate` completes its own by the model's.
        self.model = in_int8(teacher.model) if settings.int8 else copy.copy(teacher.model)
        self.model.generation_config = teacher.generation
        self.count = _Length(frozenset(teacher.tokenizer.all_special_ids))
        ends = teacher.generation.eos_token_id
        self.ends = ends if isinstance(ends, list) else [ends]

    @contextmanager
    def sampling(self, seed: int) -> Iterator[None]:
        if not self.teacher.generation.do_sample:
            yield
            return
        device = self.model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def translate(self, sources: list[str], token_ids: list[list[int]]) -> list[Said]:
        pad = self.teacher.generation.pad_token_id
        pad = self.teacher.tokenizer.pad_token_id if pad is None else pad
        input_ids, mask = padded(token_ids, pad or 0)  # (batch, source)
        inputs = {"input_ids": input_ids, "attention_mask": mask.long()}
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        sequences = self.model.generate(**inputs).tolist()  # (batch, target)
        first = self.teacher.generation.forced_bos_token_id
        most = _most_tokens(self.teacher.generation)
        is_ended = [any(i in self.ends for i in row[1 : 1 + most]) for row in sequences]
        # Without what the decoder was given: the start token, the code of the language.
        sequences = [row[1 + (row[1:2] == [first]) :] for row in sequences]
        tokenizer, prefix = self.teacher.tokenizer, self.teacher.source_prefix
        texts = [text.strip() for text in tokenizer.batch_decode(sequences, **DECODED)]
        scores = autoregressive_scores(
            self.model, tokenizer, [prefix + x for x in sources], [[text] for text in texts]
        )
        rows = zip(texts, scores[:, 0].tolist(), is_ended, sequences, token_ids, strict=True)
        return [
            Said(
                text=text,
                score=round(score, 4),
                is_finished=is_finished,
                num_source_tokens=self.count(source),
                num_tokens=self.count(sequence),
            )
            for text, score, is_finished, sequence, source in rows
        ]


class CTranslate2Engine:
    """CTranslate2, which runs a copy of the teacher of its own, converted once."""

    def __init__(
        self, teacher: Teacher, settings: DistillationSettings, cache: Path, processes: Processes
    ):
        try:
            import ctranslate2
        except ImportError as error:
            how = 'python -m pip install "axe-hf[ctranslate2]"'
            raise ImportError(f"`engine` ctranslate2 needs a package of its own: {how}") from error
        self.teacher, self.settings = teacher, settings
        self.options = _options_of_search(teacher.generation)
        processes.from_main(lambda: None if cache.exists() else _convert(teacher, cache))
        device = teacher.model.device
        kind = "int8" if settings.int8 else str(teacher.model.dtype).removeprefix("torch.")
        with _explained(f"CTranslate2 has no {kind} on this {device.type}"):
            self.translator = ctranslate2.Translator(
                str(cache),
                device=device.type,
                device_index=device.index or 0,
                compute_type=kind,
                intra_threads=torch.get_num_threads(),
            )
        self.count = _Length(frozenset(teacher.tokenizer.all_special_ids))

    @contextmanager
    def sampling(self, seed: int) -> Iterator[None]:
        yield  # `_options_of_search` refuses it

    def translate(self, sources: list[str], token_ids: list[list[int]]) -> list[Said]:
        rows = [_names(ids) for ids in token_ids]
        first = self.teacher.generation.forced_bos_token_id
        prefix = None if first is None else [_names([first])] * len(rows)
        tokenizer = self.teacher.tokenizer
        found = self.translator.translate_batch(
            rows, prefix, max_input_length=0, return_end_token=True, **self.options
        )
        num_given = 0 if first is None else 1  # the hypotheses hold what they had to begin with
        ids = [[int(name[1:]) for name in each.hypotheses[0][num_given:]] for each in found]
        texts = [text.strip() for text in tokenizer.batch_decode(ids, **DECODED)]
        scores = self._scores(rows, texts)
        end = _end_of(self.teacher)
        return [
            Said(text, round(score, 4), end in said, self.count(source), self.count(said))
            for text, score, said, source in zip(texts, scores, ids, token_ids, strict=True)
        ]

    def _scores(self, rows: list[list[str]], texts: list[str]) -> list[float]:
        """As `autoregressive_scores`: of the texts, read once more."""
        teacher, first = self.teacher, self.teacher.generation.forced_bos_token_id
        ids, num_before, num_after = target_ids(teacher.model, teacher.tokenizer, texts)
        # CTranslate2 puts the start in front, and the end, which is scored, behind.
        ids = [row[num_before : len(row) - num_after - 1] for row in ids]
        start = [] if first is None else [first]
        found = self.translator.score_batch(
            rows, [_names(start + row) for row in ids], max_input_length=0, offset=len(start)
        )
        return [sum(each.log_probs) / len(each.log_probs) for each in found]


def _names(token_ids: list[int]) -> list[str]:
    """CTranslate2 knows tokens by name; ours are their numbers, whatever the tokenizer says."""
    return [f"t{i}" for i in token_ids]


def _end_of(teacher: Teacher) -> int:
    end = teacher.generation.eos_token_id
    return end[0] if isinstance(end, list) else end


def _most_tokens(generation: Any) -> int:
    """How many tokens the teacher says itself, its end included.

    Not the end that OPUS-MT, BART and mBART are made to say in the last place
    (`forced_eos_token_id`).
    """
    start = 1  # `max_length` counts it
    most = generation.max_new_tokens or generation.max_length - start
    return most if generation.forced_eos_token_id is None else most - 1


# Settings of Transformers that CTranslate2 has, by its own names; and what makes no difference.
_SAME = {"num_beams": "beam_size", "length_penalty": "length_penalty"}
_SAME |= {"repetition_penalty": "repetition_penalty", "min_new_tokens": "min_decoding_length"}
_SAME |= {"no_repeat_ngram_size": "no_repeat_ngram_size"}
_READ = {"max_length", "max_new_tokens", "min_length", "suppress_tokens", "bad_words_ids"}
_READ |= {"forced_bos_token_id", "forced_eos_token_id"}
_READ |= {"decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id"}
# Beams end by other rules; how far others are from them.
_INDIFFERENT = {"early_stopping", "renormalize_logits", "use_cache"}
_INDIFFERENT |= {"transformers_version", "_from_model_config", "output_attentions", "top_k"}
_INDIFFERENT |= {"output_hidden_states", "num_return_sequences", "top_p", "temperature"}


def _options_of_search(generation: Any) -> dict[str, Any]:
    """The search in CTranslate2's words."""
    given = {n: v for n, v in generation.to_diff_dict().items() if v is not None and v is not False}
    if unknown := sorted(given.keys() - {*_SAME, *_READ, *_INDIFFERENT}):
        shown = ", ".join(f"{name}={given[name]!r}" for name in unknown)
        advice = 'Leave it out, or take `engine="transformers"`.'
        raise ValueError(f"CTranslate2 has nothing that repeats exactly {shown}. {advice}")
    options = {own: given[name] for name, own in _SAME.items() if name in given}
    options |= {"beam_size": 1, "min_decoding_length": 0} | options
    options["max_decoding_length"] = max(1, _most_tokens(generation))
    if given.get("min_length") and "min_new_tokens" not in given:
        options["min_decoding_length"] = max(given["min_length"] - 1, 0)  # it counts the start
    never = [[i] for i in given.get("suppress_tokens", [])] + given.get("bad_words_ids", [])
    if never:
        options["suppress_sequences"] = [_names(ids) for ids in never]
    return options


# Where layers are normalized, which configurations of today do not say.
_NORMS = {
    "bart": {"normalize_before": False, "normalize_embedding": True},
    "marian": {"normalize_before": False, "normalize_embedding": False},
    "mbart": {"normalize_before": True, "normalize_embedding": True},
}


def _convert(teacher: Teacher, folder: Path) -> None:
    """Write the teacher as CTranslate2 reads it, whole or not at all."""
    from ctranslate2.converters import TransformersConverter
    from ctranslate2.converters.transformers import BartLoader

    model = teacher.model
    vocab_size = model.get_input_embeddings().weight.shape[0]
    start = teacher.generation.decoder_start_token_id

    class Converter(TransformersConverter):
        """Of the model at hand, with numbers for names."""

        def load_model(self, *args, **kwargs):
            return copied

        def load_tokenizer(self, *args, **kwargs):
            return names

        def _load(self):
            # Its own loader of Marian takes `<pad>` for the last symbol, and its embedding for
            # zeros, which is so in the models of OPUS alone.
            is_marian = model.config.model_type == "marian"
            spec = BartLoader()(copied, names) if is_marian else super()._load()
            spec.config.decoder_start_token = _names([start])[0]
            return spec

    end, unknown = _end_of(teacher), teacher.tokenizer.unk_token_id
    ids = {"eos_token": end, "pad_token": start, "bos_token": start}
    ids["unk_token"] = end if unknown is None else unknown
    names = SimpleNamespace(
        get_vocab=lambda: {f"t{i}": i for i in range(vocab_size)},
        convert_ids_to_tokens=lambda i: f"t{i}",
        special_tokens_map={},
        **{name: f"t{i}" for name, i in ids.items()},
    )
    copied = copy.copy(model)  # the loaders write into its settings
    copied.config = copy.deepcopy(model.config)
    for name, value in _NORMS.get(model.config.model_type, {}).items():
        setattr(copied.config, name, value)
    with whole_folder(folder) as scratch, _explained(f"{type(model).__name__} does not convert"):
        model.config.save_pretrained(scratch / "config")
        Converter(str(scratch / "config")).convert(str(scratch), force=True)


@contextmanager
def _explained(problem: str) -> Iterator[None]:
    """Turn a failure of CTranslate2 into one that says what to do."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        advice = 'Take `engine="transformers"`.'
        raise ValueError(f"`engine`: {problem} ({lines[0]:.200}). {advice}") from error
