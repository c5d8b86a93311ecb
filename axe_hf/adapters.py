"""Adapters of a CMLM (LoRA ...), trained by PEFT: saved with how they decode, loaded as a whole."""

import copy
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from .cmlm import CmlmForConditionalGeneration
from .cmlm.configuration_cmlm import SETTINGS_OF_ADAPTER, SETTINGS_WITH_ADAPTER
from .output import write_text

_ADAPTER, _CONFIG = "adapter_config.json", "config.json"
_OF_FILES = ("cache_dir", "force_download", "local_files_only", "revision", "token")


def is_adapter(name: str | Path, **where: Any) -> bool:
    """Whether a folder, or a name on the Hub, holds an adapter and no whole model.

    `where` is what `from_pretrained` takes to find a file: `revision`, `token`, `cache_dir` ...
    """
    if Path(name).exists():
        return Path(name, _ADAPTER).is_file() and not Path(name, _CONFIG).is_file()
    quiet = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "gated_repo")}
    quiet["_raise_exceptions_for_connection_errors"] = False
    try:
        found = [cached_file(str(name), file, **where, **quiet) for file in (_CONFIG, _ADAPTER)]
    except (OSError, ValueError):  # there is nothing of that name, or it is none
        return False
    return found[0] is None and found[1] is not None


def load_merged(
    name: str | Path, **where: Any
) -> tuple[CmlmForConditionalGeneration, PreTrainedTokenizerBase]:
    """Load an adapter and the CMLM it was trained on, as one whole model, and its tokenizer.

    The model is like any other: it decodes as fast as its base, and can be saved, exported,
    quantized, fine-tuned. To write it down: `save_pretrained_with_code(model, tokenizer, folder)`.

    Args:
        name: folder of the adapter, or its name on the Hub. Its base is the folder or the name that
            `base_model_name_or_path` in its adapter_config.json says.
        **where: `revision` (of the adapter), `token`, `cache_dir` ... as `from_pretrained` has it.

    Raises:
        ImportError: PEFT is not installed.
        FileNotFoundError: the base is a folder that is not there.
        ValueError: `name` is no adapter, one of another kind of model, or one without weights to
            be merged, such as a prompt.

    Example:
        >>> from axe_hf import load_merged, save_pretrained_with_code
        >>> model, tokenizer = load_merged("my_lora")  # doctest: +SKIP
        >>> save_pretrained_with_code(model, tokenizer, "my_model")  # doctest: +SKIP
    """
    if find_spec("peft") is None:
        install = 'python -m pip install "axe-hf[peft]"'
        raise ImportError(f"{name} is an adapter, for which PEFT is needed: {install}.")
    if not is_adapter(name, **where):
        raise ValueError(f"{name} must hold an adapter: {_ADAPTER}, and no {_CONFIG}.")
    from peft import PeftConfig, PeftModel

    of_files = {key: where[key] for key in _OF_FILES if key in where}
    base = PeftConfig.from_pretrained(str(name), **of_files).base_model_name_or_path
    elsewhere = {key: value for key, value in where.items() if key != "revision"}
    _check_base(name, base, elsewhere)
    model = AutoModelForSeq2SeqLM.from_pretrained(base, **elsewhere)
    was_tied = _untie(model)
    adapted = PeftModel.from_pretrained(model, str(name), **of_files)
    if not hasattr(adapted, "merge_and_unload"):
        kind = adapted.active_peft_config.peft_type.value
        raise ValueError(f"{name} is an adapter of the kind {kind}, which cannot be merged.")
    merged: Any = adapted.merge_and_unload()
    merged = _tied_again(merged) if was_tied else merged
    merged.take_settings_of_adapter(name, **where)
    has_own = cached_file(
        str(name), "tokenizer_config.json", _raise_exceptions_for_missing_entries=False, **where
    )
    its_place = (name, where) if has_own else (base, elsewhere)
    tokenizer = AutoTokenizer.from_pretrained(its_place[0], **its_place[1])
    return merged.eval(), tokenizer


def save_settings_of_adapter(model: Any, folder: str | Path) -> None:
    """Write beside an adapter how its model decodes, and what else of it training has set."""
    settings = {name: getattr(model.config, name) for name in SETTINGS_WITH_ADAPTER}
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    write_text(Path(folder, SETTINGS_OF_ADAPTER), text + "\n")
    copy.deepcopy(model.generation_config).save_pretrained(folder)


def _check_base(name: str | Path, base: str | None, where: dict[str, Any]) -> None:
    """Say what is wrong with the base of an adapter, for which Transformers would ask the Hub."""
    told = f"`base_model_name_or_path` in its {_ADAPTER}"
    if not base:
        raise ValueError(f"{name} does not say what it was trained on: {told} is {base!r}.")
    is_path = base.startswith((".", "~", "/")) or base.count("/") > 1 or "\\" in base
    if is_path and not Path(base).exists():
        advice = "Put it back there, or write there where it is now"
        raise FileNotFoundError(f"{name} was trained on {base} ({told}), not found. {advice}.")
    try:
        kind = PreTrainedConfig.get_config_dict(base, **where)[0].get("model_type")
    except OSError as error:
        raise ValueError(f"{name} was trained on {base} ({told}): {error}") from error
    if kind != "cmlm":
        raise ValueError(f"{name} must be an adapter of a CMLM, its base {base} is a {kind!r}.")


def _untie(model: Any) -> bool:
    """Give each module its own copy of a tied matrix: an adapter may be of one of them alone."""
    was_tied, model.config.tie_word_embeddings = model.config.tie_word_embeddings, False
    seen = set[int]()
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter):
            if id(weight) in seen:
                module.weight = torch.nn.Parameter(weight.detach().clone())
            seen.add(id(weight))
    return was_tied


def _tied_again(model: Any) -> Any:
    """Tied what is equal still, or, where an adapter made it different, a model that is not."""
    stacks = (model.model.encoder, model.model.decoder)
    weights = [model.lm_head.weight, *(stack.embed_tokens.weight for stack in stacks)]
    if all(weight.equal(weights[0]) for weight in weights):
        model.config.tie_word_embeddings = True
        model.tie_weights()
        return model
    untied = type(model)(model.config).to(model.dtype)
    weights_by_name = model.state_dict()
    untied.load_state_dict({name: weights_by_name[name] for name in untied.state_dict()})
    untied.generation_config = model.generation_config
    return untied
