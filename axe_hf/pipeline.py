"""A Transformers pipeline that translates with a CMLM.

This file imports nothing of the package: it is copied next to a checkpoint that carries its own
code. That is why what `translate` and the rescoring need too, cleaning and copies, lives here.
"""

import copy
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from functools import partial
from types import MethodType
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModelForSeq2SeqLM, Pipeline, pipelines
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import logging

logger = logging.get_logger(__name__)

TASK = "translation"
# How translations become text: a tokenizer of two files (Marian's) decodes them by the target's.
DECODED = {"skip_special_tokens": True, "use_source_tokenizer": False}


class CmlmTranslationPipeline(Pipeline):
    """Translation from text to text.

    Called with a text, a list or a column it returns a list of `{"translation_text": ...}`, one for
    each; with a generator or a data set, an iterator over them. Settings of
    `MaskPredictGenerationConfig` are taken by the constructor and, with precedence, by each call.
    `num_return_sequences` > 1 gives a list for each text, `output_scores` or
    `return_dict_in_generate` the `score` that each translation was ranked by, nats per token.
    Texts that are long or empty are treated as by `axe_hf.translation.translate`, which is faster
    for many sentences: it batches similar lengths.

    Args:
        model: a `CmlmForConditionalGeneration`.
        tokenizer: the tokenizer it was trained with.
        batch_size (default 1): texts translated at once, when called with several.
        device (default: the first GPU, if any): where to run.
        truncation: True cuts long texts without a warning, False refuses them.
        src_lang, tgt_lang: languages of the model's `config.directions`, or those that the
            tokenizer is set to. A model of several target languages needs `tgt_lang`, or a tag in
            front of each text, `>>de<<`.

    Raises:
        TypeError: `model` cannot translate, `tokenizer` is missing, or an input is not a string.
        ValueError: a language is missing, or not one of the model's.

    Example:
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer
        >>> from axe_hf.pipeline import CmlmTranslationPipeline
        >>> tokenizer = train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)
        >>> config = CmlmConfig(vocab_size=len(tokenizer), encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config).eval()
        >>> translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer, num_iterations=2)
        >>> [list(translation) for translation in translator("A dog barks.")]
        [['translation_text']]
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, model, tokenizer=None, **kwargs: Any):
        if not hasattr(getattr(model, "config", None), "check_tokenizer"):
            kind, advice = type(model).__name__, "Load it by AutoModelForSeq2SeqLM."
            raise TypeError(f"`model` must be a CmlmForConditionalGeneration, got {kind}. {advice}")
        model.config.check_tokenizer(tokenizer)
        super().__init__(model, tokenizer=tokenizer, **kwargs)

    def _sanitize_parameters(self, **generation: Any) -> tuple[dict, dict, dict]:
        target_lang = generation.get("tgt_lang")
        for side, name in enumerate(("src_lang", "tgt_lang")):
            if (asked := generation.pop(name, None)) is not None:
                self._check_language(name, asked, side)
        names = ("truncation", "clean_up_tokenization_spaces")
        before, after = ({n: generation.pop(n)} if n in generation else {} for n in names)
        if target_lang is not None and language_tags(self.model.config):
            before["target_lang"] = target_lang
        return before, generation, after

    def _check_language(self, name: str, asked: str, side: int) -> None:
        """Refuse a language that neither the model's directions nor the tokenizer have."""
        config = self.model.config
        sides = ("source_languages", "target_languages")  # code beside a checkpoint may be older
        of_model = getattr(config, sides[side], ())
        # Made of a teacher's, it may know it only as a setting, where axe_hf is not installed.
        setting = self.tokenizer.init_kwargs.get(name)
        set_to = getattr(self.tokenizer, name, setting)
        known = [*of_model, *([] if set_to is None else [set_to])]
        if not known:
            logger.warning_once(f"`{name}` has no part: the tokenizer knows no languages.")
        elif not of_model and asked != set_to:
            raise ValueError(f"`{name}` is {asked!r}, the tokenizer's is {set_to!r}. Set that.")
        elif asked not in known:
            raise ValueError(f"`{name}` must be one of {known}, got {asked!r}.")

    def __call__(self, inputs, **kwargs: Any) -> list | Iterator:
        """Translate; see the class."""
        if isinstance(inputs, str):
            found = super().__call__(inputs, **kwargs)
            return found if isinstance(found, list) else [found]
        if isinstance(inputs, Iterable) and not isinstance(inputs, Mapping | AbstractSet):
            # Columns, arrays, files: the base class knows lists and generators only.
            inputs = list(inputs) if isinstance(inputs, Sized) else (text for text in inputs)
        return [] if inputs == [] else super().__call__(inputs, **kwargs)

    def preprocess(
        self, input_: str, truncation: Any = None, target_lang: str | None = None
    ) -> dict[str, torch.Tensor]:
        if not isinstance(input_, str):
            kind = type(input_).__name__
            raise TypeError(f"`inputs` must be strings, got {kind}: {input_!r:.80}.")
        config, tokenizer = self.model.config, own_tokenizer(self.tokenizer)
        limit = config.max_source_length
        (token_ids,) = source_ids([input_], tokenizer, config, target_lang)
        token_ids = token_ids or [tokenizer.eos_token_id]
        if len(token_ids) > limit:
            problem = f"A text of {len(token_ids)} tokens is over the max_source_length of {limit}"
            advice = f"{input_[:60]!r}... Split it into sentences."
            if truncation in (False, "do_not_truncate"):
                raise ValueError(f"{problem}, and `truncation` is off: {advice}")
            if truncation is None:
                logger.warning(f"{problem} and was cut there: {advice}")
            token_ids = cut_source(token_ids, limit, tokenizer)
        input_ids = torch.tensor([token_ids])
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}

    def _forward(self, input_tensors: dict[str, torch.Tensor], **generation: Any) -> dict[str, Any]:
        input_ids = input_tensors["input_ids"]  # (batch, source)
        is_scored = generation.get("return_dict_in_generate") or generation.get("output_scores")
        generation |= {"return_dict_in_generate": True, "output_history": False}
        # One translation for each text unless the call says more, whatever the model's settings do.
        num_returned = generation.setdefault("num_return_sequences", 1) or 1
        output = in_evaluation_mode(self.model).generate(**input_tensors, **generation)
        pad, eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        is_empty = ((input_ids == pad) | (input_ids == eos)).all(dim=1, keepdim=True)  # (batch, 1)
        sequences = output.sequences.view(len(input_ids), num_returned, -1)
        found = {"sequences": sequences.masked_fill(is_empty[:, :, None], pad)}
        scores = output.ranking_scores.view(-1, num_returned).masked_fill(is_empty, 0.0)
        return found | ({"scores": scores} if is_scored else {})

    def postprocess(self, model_outputs: dict[str, torch.Tensor], **decoding: Any) -> Any:
        (token_ids,) = model_outputs["sequences"]  # (num_return_sequences, longest output)
        texts = self.tokenizer.batch_decode(token_ids, **DECODED, **decoding)
        found: list[dict[str, Any]] = [{"translation_text": text} for text in texts]
        for scores in model_outputs.get("scores", ()):
            found = [record | {"score": float(x)} for record, x in zip(found, scores, strict=True)]
        return found if len(found) > 1 else found[0]


def in_evaluation_mode(model: Any) -> Any:
    """`model`, or if a part is training, a copy that shares its weights, in evaluation mode."""
    if not any(module.training for module in model.modules()):
        return model
    shared: dict[int, Any] = {}
    for module in model.modules():
        for name, value in dict(vars(module)).items():
            if name.endswith("_hooks"):
                shared |= {id(hook): hook for hook in value.values()}
            # Methods that hooks put in place of `forward` become those of the copy.
            elif name != "_modules" and not isinstance(value, nn.Module | MethodType | partial):
                shared[id(value)] = value
    return copy.deepcopy(model, shared).eval()


def own_tokenizer(tokenizer: Any) -> Any:
    """A copy that shares the vocabulary: each call sets truncation and padding in a tokenizer."""
    own = object.__new__(type(tokenizer))
    vars(own).update(vars(tokenizer))
    if (shared := vars(own).get("_tokenizer")) is not None:
        mine, added = Tokenizer(shared.model), shared.get_added_tokens_decoder()
        for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
            setattr(mine, part, getattr(shared, part))
        mine.add_tokens([added[token_id] for token_id in sorted(added)])
        is_same = mine.get_added_tokens_decoder() == added  # where an id is skipped, it is not
        own._tokenizer = mine if is_same else copy.deepcopy(shared)
    return own


def cut_source(token_ids: list[int], limit: int, tokenizer: Any) -> list[int]:
    """At most `limit` ids, which end as every source does: in `</s>`, and mBART's language."""
    around, eos = tokenizer("").input_ids, tokenizer.eos_token_id
    end = around[around.index(eos) :][:limit] if eos in around else [eos]
    return [*token_ids[: limit - len(end)], *end]


def source_ids(
    texts: Sequence[str], tokenizer: Any, config: Any, target_lang: str | None = None
) -> list[list[int]]:
    """Token ids of each text with its `</s>`, not cut; none where nothing is said."""
    tags, is_said = language_tags(config), [*map(is_visible, texts)]
    given = [valid_unicode(text) if said else "" for text, said in zip(texts, is_said, strict=True)]
    bare = list[str]()  # what stands in front of a text, with none behind it
    if getattr(config, "source_prefix", None):  # code beside a checkpoint may be older
        bare = [config.tagged(tag) for tag in tags or [""]]
    if tags or bare:
        given = [config.tagged(text, target_lang) if text else "" for text in given]
    around, *rows = tokenizer([" ".join(tags), *bare, *given], verbose=False).input_ids
    nothing, rows = rows[: len(bare)], rows[len(bare) :]
    return [
        ids if said and {*ids} - {*around} and ids not in nothing else []
        for said, ids in zip(is_said, rows, strict=True)
    ]


def language_tags(config: Any) -> list[str]:
    """What stands in front of a source for each target language, where a model has several."""
    known = getattr(config, "target_languages", ())  # code beside a checkpoint may be older
    sources = [config.tagged("", language) for language in known] if len(known) > 1 else []
    return [f"{source.partition('<<')[0]}<<" for source in sources]  # without the prefix


def valid_unicode(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which reading broken UTF-8 leaves behind."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_visible(text: str) -> bool:
    """Whether there is more in it than white space, controls and zero-width characters (Cc, Cf)."""
    return any(not (c.isspace() or unicodedata.category(c) in ("Cc", "Cf")) for c in text)


def register_pipeline() -> None:
    """Make `transformers.pipeline("translation", ...)` known; calling it again is harmless.

    So is "cmlm-translation", by which this package reads a checkpoint with its code, too.

    Example:
        >>> from transformers.pipelines import get_supported_tasks
        >>> from axe_hf.pipeline import register_pipeline
        >>> register_pipeline()
        >>> "translation" in get_supported_tasks()
        True
    """
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        # Transformers 5 has none of its own, and refuses these before it asks the registry.
        getattr(pipelines, "REMOVED_TASKS", {}).pop(TASK, None)
        PIPELINE_REGISTRY.register_pipeline(TASK, CmlmTranslationPipeline, AutoModelForSeq2SeqLM)
        PIPELINE_REGISTRY.task_aliases["cmlm-translation"] = TASK
        # By this a pipeline would save its own file beside the model, without the model's code.
        del CmlmTranslationPipeline._registered_impl
