"""The teacher: a model and a tokenizer that belong together, and how they are to translate."""

import copy
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ..data.tokenizer import load_tokenizer
from ..pipeline import in_evaluation_mode, own_tokenizer, valid_unicode
from ..rescoring import check_autoregressive, check_ids, token_limit
from .distillation_settings import DistillationSettings

_MAX_NEW_TOKENS = 256  # of a teacher that does not say; Transformers' own default cuts at 20
_NUM_SAMPLES = 1000
# Settings that ask for other things than one text for each source, or depend on the clock.
_NOT_ASKED = ["num_return_sequences", "return_dict_in_generate", "max_time", "output_scores"]
_NOT_ASKED += ["output_logits", "output_attentions", "output_hidden_states"]
_CODE = re.compile(r"[a-z]{2,3}_[A-Za-z]{2,4}")  # as mBART and NLLB write languages: eng_Latn


@dataclass(frozen=True)
class Teacher:
    """A model, its tokenizer with the languages set, and all that its translations depend on."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    generation: GenerationConfig
    source_prefix: str
    max_source_length: int

    def encode(self, sources: list[str]) -> list[list[int]]:
        """Token ids of each source, none of one that is too long."""
        texts = [self.source_prefix + valid_unicode(text) for text in sources]
        token_ids = self.tokenizer(texts, verbose=False).input_ids
        token_ids = [ids if len(ids) <= self.max_source_length else [] for ids in token_ids]
        num_known = self.model.get_input_embeddings().weight.shape[0]
        check_ids([*token_ids, []], num_known, "teacher's tokenizer's")
        return token_ids

    def describe(self, settings: DistillationSettings) -> dict[str, Any]:
        """What tells this teacher from another; its digests tell changed weights and symbols."""
        config = self.model.config
        return {
            "teacher": self.name,
            "revision": settings.revision,
            "commit": getattr(config, "_commit_hash", None),
            "architecture": type(self.model).__name__,
            "num_parameters": self.model.num_parameters(),
            "weights": _digest_of_weights(self.model),
            "tokenizer": _digest(sorted(self.tokenizer.get_vocab().items())),
            "languages": [getattr(self.tokenizer, f"{side}_lang", None) for side in ("src", "tgt")],
            "source_prefix": self.source_prefix,
            "max_source_length": self.max_source_length,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "generation": {
                name: value
                for name, value in sorted(self.generation.to_diff_dict().items())
                if name not in ("transformers_version", "_from_model_config")
            },
        }


def load_teacher(
    teacher: Any,
    tokenizer: Any,
    languages: tuple[str, str],
    settings: DistillationSettings,
    device: torch.device,
) -> Teacher:
    """Load what is given by name, check all, and set languages and search."""
    is_name, own = isinstance(teacher, str | Path), tokenizer
    if is_name:
        model = _load_model(str(teacher), settings)
    else:
        model = teacher
        for option in ("dtype", "device", "revision"):
            if (value := getattr(settings, option)) is not None:
                is_for = f"is for a teacher given by name, got {value!r} and a model"
                raise ValueError(f"`{option}` {is_for}. Load it or move it as you want it.")
    if own is None:
        if not is_name:
            kind = type(teacher).__name__
            raise ValueError(f"`tokenizer` is missing: a loaded teacher ({kind}) needs its own.")
        own = _load_tokenizer(str(teacher), settings.revision)
    elif isinstance(own, str | Path):
        own = _load_tokenizer(str(own), None)
    check_autoregressive(model, own, "teacher")
    own = own_tokenizer(own)
    model = in_evaluation_mode(model.to(device) if is_name else model)
    prefix, of_languages = _set_languages(model, own, languages, settings)
    limits = [token_limit(model, own, side) for side in ("encoder", "decoder")]
    search = _search(model, settings, limits[1]) | of_languages
    generation = copy.deepcopy(model.generation_config)
    generation.update(**search)
    longest = settings.max_source_length or limits[0]
    if longest > limits[0]:
        most = f"the teacher's limit of {limits[0]}"
        raise ValueError(f"`max_source_length` is {longest}, over {most}.")
    return Teacher(_shown_name(teacher), model, own, generation, prefix, longest)


def _shown_name(teacher: Any) -> str:
    if isinstance(teacher, str | Path):
        is_local = Path(teacher).exists()
        return Path(teacher).resolve().name if is_local else str(teacher)
    path = getattr(getattr(teacher, "config", None), "_name_or_path", "")
    return _shown_name(path) if path else type(teacher).__name__


def _load_model(name: str, settings: DistillationSettings) -> PreTrainedModel:
    path = Path(name)
    if path.exists() and not path.is_dir():
        raise ValueError(f"`teacher` must be the folder of a model, {name} is a file.")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ValueError(f"`teacher`: {name} holds no model: there is no config.json in it.")
    revision = {} if settings.revision is None else {"revision": settings.revision}
    where = f"`teacher`: {name} is neither a folder with a model nor one on the Hub"
    config = _told(where, lambda: AutoConfig.from_pretrained(name, **revision))
    if config.model_type == "cmlm":
        need = "be autoregressive, such as Marian: its translations are what a student learns"
        raise ValueError(f"`teacher` must {need}; {name} is a CMLM itself.")
    if not getattr(config, "is_encoder_decoder", False):
        need = "be an encoder-decoder (AutoModelForSeq2SeqLM), such as Marian, NLLB, mBART or T5"
        raise ValueError(f"`teacher` must {need}; {name} is a {config.model_type!r}.")
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        kwargs = {"dtype": getattr(torch, settings.dtype or "float32"), **revision}
        model, info = _told(
            f"`teacher`: {name} is no whole model",
            lambda: AutoModelForSeq2SeqLM.from_pretrained(name, output_loading_info=True, **kwargs),
        )
    finally:
        if was_on:
            logging.enable_progress_bar()
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"`teacher`: {name} lacks the weights {', '.join(missing):.300}.")
    return model


def _load_tokenizer(name: str, revision: str | None) -> PreTrainedTokenizerBase:
    kwargs = {} if revision is None else {"revision": revision}
    return load_tokenizer(name, "Give the teacher's by `tokenizer`.", **kwargs)


def _told(message: str, load: Callable[[], Any]) -> Any:
    """What `load` returns; its error in one line, behind what it means."""
    try:
        return load()
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{message} ({lines[0]}).") from error


def check_vocabulary(teacher: Teacher, sources: list[str]) -> None:
    """Refuse a tokenizer that is not the teacher's, as far as the first sources show it.

    Transformers makes an empty tokenizer where a folder has none.
    """
    samples = sources[:_NUM_SAMPLES]
    token_ids, special = teacher.encode(samples), {*teacher.tokenizer.all_special_ids}
    numbers = sorted({i for ids in token_ids for i in ids} - special)
    tokens = dict(zip(numbers, teacher.tokenizer.convert_ids_to_tokens(numbers), strict=True))
    is_known = [any((tokens.get(i) or "").strip("▁Ġ ") for i in ids) for ids in token_ids if ids]
    if is_known and 2 * sum(is_known) < len(is_known):
        found = f"it knows no word of {is_known.count(False)} of the first {len(is_known)} sources"
        advice = "Are its files there, and of the data's language? Give another by `tokenizer`."
        raise ValueError(
            f"The teacher's tokenizer has {len(teacher.tokenizer)} symbols: {found}. {advice}"
        )


def _search(model: Any, settings: DistillationSettings, limit: int) -> dict[str, Any]:
    """The settings of the search that were asked for, and a longest translation in any case."""
    asked, known = settings.asked_generation(), {*vars(GenerationConfig())}
    for name in asked:
        if name in _NOT_ASKED or name.startswith("_"):
            problem = "is no part of how a translation is found, one for each source"
            raise ValueError(f"`generation`: {name!r} {problem}. Leave it out.")
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"`generation`: Transformers has no setting {name!r}{hint}")
    saved = model.generation_config
    if (asked.get("num_return_sequences") or saved.num_return_sequences or 1) != 1:
        asked["num_return_sequences"] = 1
    is_said = asked.get("max_length") or asked.get("max_new_tokens")
    if is_said is None and saved.max_length is None and saved.max_new_tokens is None:
        asked["max_new_tokens"] = min(_MAX_NEW_TOKENS, limit - 1)
    if asked.get("max_new_tokens") is not None:
        asked["max_length"] = None  # both together only make Transformers warn
    elif asked.get("max_length") is not None:
        asked["max_new_tokens"] = None
    if (longest := asked.get("max_new_tokens") or 0) >= limit:
        raise ValueError(
            f"`max_new_tokens` must be below {limit}, what it can write, got {longest}."
        )
    try:
        GenerationConfig(**asked).validate(strict=True)
    except ValueError as error:
        raise ValueError(f"`generation`: {error}") from error
    return asked


def language_codes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The codes of the languages that a tokenizer puts around its texts, none for most."""
    if not hasattr(tokenizer, "src_lang"):
        return []
    ids = getattr(tokenizer, "lang_code_to_id", None)
    if ids is None:
        vocab = tokenizer.get_vocab()
        ids = {t: vocab[t] for t in tokenizer.all_special_tokens if _CODE.fullmatch(t)}
    return sorted(code for code, number in ids.items() if number != tokenizer.unk_token_id)


def _set_languages(
    model: Any, tokenizer: Any, languages: tuple[str, str], settings: DistillationSettings
) -> tuple[str, dict[str, Any]]:
    """Set the languages of `tokenizer`; returns what stands before a source, and of the search."""
    asked = (settings.teacher_source_lang, settings.teacher_target_lang)
    names, prefix = ("teacher_source_lang", "teacher_target_lang"), settings.source_prefix
    if codes := language_codes(tokenizer):
        for side, name, given, own in zip(("src", "tgt"), names, asked, languages, strict=True):
            setattr(tokenizer, f"{side}_lang", _code(name, given or own, codes))
        return prefix, _start(model, tokenizer)
    codes = [code[2:-2] for code in getattr(tokenizer, "supported_language_codes", [])]
    if asked[0] is not None or not codes and asked[1] is not None:
        name, given = (names[0], asked[0]) if asked[0] is not None else (names[1], asked[1])
        raise ValueError(f"`{name}` is {given!r}, but the teacher's tokenizer has no such codes.")
    if not codes or prefix.startswith(">>") or len(codes) == 1 and asked[1] is None:
        return prefix, {}
    return f">>{_code(names[1], asked[1] or languages[1], codes)}<< {prefix}", {}


def _code(name: str, code: str, codes: list[str]) -> str:
    if code in codes:
        return code
    near = [known for known in codes if known.startswith(code[:2].lower())]
    near = list(dict.fromkeys(get_close_matches(code, codes, 3) + near))[:5]
    shown = f"such as {', '.join(near or codes[:5])}"
    problem = f"must be one of the teacher's own {len(codes)} codes, {shown}"
    raise ValueError(f"`{name}` {problem}; got {code!r}.")


def _start(model: Any, tokenizer: Any) -> dict[str, Any]:
    """How the search begins in the tokenizer's target language.

    The code of the language is the first that the decoder reads where it ends the texts, as in the
    first mBART; else the first that it must say.
    """
    around = tokenizer(text_target="").input_ids
    (code,) = {*around} - {tokenizer.eos_token_id, tokenizer.bos_token_id}
    if model.config.model_type in ("mbart", "plbart") and around[-1] == code:
        return {"decoder_start_token_id": code, "forced_bos_token_id": None}
    return {"forced_bos_token_id": code}


def in_int8(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose linear layers multiply in int8, by PyTorch's dynamic quantization."""
    import warnings

    if model.device.type != "cpu" or model.dtype != torch.float32:
        where = f"in float32 on a CPU, got {model.dtype} on {model.device}"
        raise ValueError(f"`int8` is for a teacher {where}. Leave it out, or take `device` cpu.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        kinds = {torch.nn.Linear}
        return torch.ao.quantization.quantize_dynamic(model, kinds, dtype=torch.qint8)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()


def _digest_of_weights(model: PreTrainedModel) -> str:
    """Of the names, the shapes and some numbers of each: cheap, and different after training."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // 64)][:64].double().cpu()
        digest.update(f"{name} {tuple(weight.shape)} {some.tolist()}".encode())
    return digest.hexdigest()
