"""A CMLM that starts from the weights of an autoregressive encoder-decoder.

A decoder whose causal mask is taken away reads a canvas; its weights, the encoder and the
vocabulary stay. New are the vectors that predict the length, and the mask and the blank where the
vocabulary lacks them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from os import PathLike
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ..cmlm.configuration_cmlm import CmlmConfig
from ..data.tokenizer import check_tokenizer, load_tokenizer
from .tokenizers import add_cmlm_symbols

logger = logging.get_logger(__name__)

_Student = TypeVar("_Student", bound=PreTrainedModel)
_STACKS = ("encoder", "decoder")
KEPT_LAYERS = ("spread", "first", "last")


@dataclass(frozen=True)
class _Architecture:
    """What the configuration of a kind of teacher does not say."""

    normalize_before: bool
    layernorm_embedding: bool
    position_embedding_type: str
    first_position: int | None = 0  # its row in the table; None: see `_m2m_100_positions`


_ARCHITECTURES = {
    "bart": _Architecture(False, True, "learned", 2),
    "blenderbot": _Architecture(True, False, "learned"),
    "m2m_100": _Architecture(True, False, "learned", None),  # and NLLB
    "marian": _Architecture(False, False, "sinusoidal"),
    "mbart": _Architecture(True, True, "learned", 2),
    "pegasus": _Architecture(True, False, "sinusoidal"),
    "plbart": _Architecture(False, True, "learned", 2),
}

_T5 = (
    "attention with position biases in place of position embeddings",
    "linear layers and layer normalisations without biases, the latter by the root mean square",
    "attention that is not divided by the root of its width",
)
_SPARSE = ("attention of tokens near each other only",)
_DIFFERENCES = {
    **dict.fromkeys(("t5", "mt5", "umt5"), _T5),
    "longt5": (*_T5, *_SPARSE),
    "switch_transformers": (*_T5, "a choice of experts in place of one feed-forward block"),
    "nllb-moe": ("a choice of experts in place of one feed-forward block",),
    "fsmt": ("one vocabulary for the source and another for the target",),
    "blenderbot-small": ("a decoder that normalises token embeddings before positions are added",),
    "prophetnet": ("a decoder that predicts several tokens ahead by streams of their own",),
    **dict.fromkeys(("led", "bigbird_pegasus", "pegasus_x"), _SPARSE),
    "encoder-decoder": ("an encoder and a decoder of two other models",),
}
_ADVICE = (
    "Distil it instead: `axe-hf distill` translates training data by any encoder-decoder, on which "
    "a new CMLM learns from a cold start."
)

# What weights fix, but that a CMLM can also have in the other way, with the same outputs.
_ALSO_EXPRESSIBLE = {
    "tie_word_embeddings": False,
    "output_bias": True,
    "position_embedding_type": "learned",
}


@dataclass(frozen=True)
class _Vocabulary:
    """The student's symbols; rows are those of embeddings and output projection."""

    size: int
    special_token_ids: dict[str, int]  # by the names that the configuration has for them
    new_rows: list[int]  # that start as the mean
    used_rows: list[int]  # of the teacher's, that the mean is taken of


def warm_start(
    cls: type[_Student],
    model_or_name: PreTrainedModel | str | PathLike,
    tokenizer: PreTrainedTokenizerBase | None,
    kept_layers: str,
    given: Mapping[str, Any],
) -> _Student:
    """What `CmlmForConditionalGeneration.from_autoregressive` returns; its docstring says how."""
    _check_settings(kept_layers, given)
    teacher, tokenizer = _load(model_or_name, tokenizer)
    architecture = _check_teacher(teacher)
    settings = _settings(teacher, architecture, given)
    vocabulary = _vocabulary(teacher, tokenizer, given)
    settings |= {"vocab_size": vocabulary.size, **vocabulary.special_token_ids}
    config = cls.config_class(**settings)
    with torch.device("meta"):
        student = cls(config)
    kept = {
        stack: kept_layer_indices(
            len(_stack(teacher, stack).layers), getattr(config, f"{stack}_layers"), kept_layers
        )
        for stack in _STACKS
    }
    weights = _Weights(teacher, architecture, config, vocabulary, kept)
    student.load_state_dict(weights.of_student(student), assign=True)
    student.tie_weights()
    for name, reason in weights.dropped().items():
        logger.info(f"{name} of the teacher is left out: {reason}.")
    return student.train(teacher.training)


def kept_layer_indices(num_layers: int, num_kept: int, kept_layers: str) -> list[int]:
    """Which of a stack's layers stay.

    Evenly spread, first and last among them, is the choice of Shleifer and Rush, "Pre-trained
    Summarization Distillation" (2020), table 11; of one layer it is the first.

    >>> kept_layer_indices(12, 3, "spread"), kept_layer_indices(6, 2, "last")
    ([0, 6, 11], [4, 5])
    """
    if kept_layers == "first" or num_kept == 1 and kept_layers == "spread":
        return list(range(num_kept))
    if kept_layers == "last":
        return list(range(num_layers - num_kept, num_layers))
    steps, gaps = num_kept - 1, num_layers - 1
    return [(2 * i * gaps + steps) // (2 * steps) for i in range(num_kept)]  # rounded half up


# What came in


def _check_settings(kept_layers: str, given: Mapping[str, Any]) -> None:
    if kept_layers not in KEPT_LAYERS:
        known = ", ".join(map(repr, KEPT_LAYERS))
        raise ValueError(f"`kept_layers` must be one of {known}, got {kept_layers!r}.")
    known_fields = [field.name for field in fields(CmlmConfig)]
    for name in given:
        if name not in known_fields and name != "attn_implementation":
            near = get_close_matches(name, known_fields, 1)
            advice = f" Is it `{near[0]}`?" if near else ""
            raise TypeError(f"There is no field `{name}` of CmlmConfig.{advice}")


def _load(model_or_name: Any, tokenizer: Any) -> tuple[PreTrainedModel, Any]:
    """The teacher; and the tokenizer that was given, or else that of its name."""
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        kind = type(tokenizer).__name__
        raise TypeError(f"`tokenizer` must be a tokenizer of Transformers, got {kind}.")
    if not isinstance(model_or_name, str | PathLike):
        return model_or_name, tokenizer
    name = str(model_or_name)
    check_name(name)
    with _found(name):
        model, info = AutoModelForSeq2SeqLM.from_pretrained(name, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        lacking = f"{', '.join(missing):.300}"
        raise ValueError(f"`model_or_name`: {name} is no whole model, it lacks {lacking}.")
    if tokenizer is None:
        tokenizer = load_tokenizer(name, "Pass its tokenizer as `tokenizer`.")
    return model, tokenizer


def check_name(name: str) -> None:
    """Refuse a folder, or a name on the Hub, whose configuration says that it cannot be one."""
    with _found(name):
        config = AutoConfig.from_pretrained(name)
    _check_kind(config, name)


@contextmanager
def _found(name: str) -> Iterator[None]:
    """Turn a failure to find a model into one that says what was wanted."""
    try:
        yield
    except OSError as error:
        first_line = str(error).partition("\n")[0]
        wanted = f"an encoder-decoder, a folder or a name on the Hub, got {name!r}"
        raise OSError(f"`model_or_name` must be {wanted}: {first_line}") from error


def _check_kind(config: Any, name: str) -> None:
    """Refuse a model whose kind alone says that its weights do not fit."""
    kind = str(getattr(config, "model_type", None))
    if kind == CmlmConfig.model_type:
        advice = "Load it by from_pretrained; to fine-tune it: `axe-hf train --model-name-or-path`."
        raise ValueError(f"`model_or_name`: {name} is a CMLM already. {advice}")
    is_pair = getattr(config, "is_encoder_decoder", False)
    if not is_pair:
        problem = f"must be an encoder-decoder, which translates; {name} is a {kind!r} without both"
        raise ValueError(f"`model_or_name` {problem}. Take one that AutoModelForSeq2SeqLM loads.")
    if kind not in _ARCHITECTURES:
        differences = _DIFFERENCES.get(kind, ("an architecture that is not known to start from",))
        raise _refusal(name, kind, differences)


def _refusal(name: str, kind: Any, differences: Iterable[str]) -> ValueError:
    listed = "; ".join(differences)
    known = ", ".join(_ARCHITECTURES)
    problem = f"`model_or_name`: a CMLM cannot start from {name}, a {kind!r}, which has {listed}"
    return ValueError(f"{problem}. Those it can start from: {known}. {_ADVICE}")


def _check_teacher(teacher: Any) -> _Architecture:
    """The architecture of a loaded model, if a CMLM has a place for all of it."""
    if not isinstance(teacher, PreTrainedModel):
        advice = "Pass a model of Transformers, a folder or a name."
        if hasattr(teacher, "merge_and_unload"):  # PEFT's
            advice = "Merge its adapter first: model.merge_and_unload()."
        kind = f"{type(teacher).__name__} of {type(teacher).__module__}"
        raise TypeError(f"`model_or_name` must be an encoder-decoder, got {kind}. {advice}")
    config, name = teacher.config, type(teacher).__name__
    _check_kind(config, name)
    if not all(hasattr(getattr(teacher, "model", None), stack) for stack in _STACKS) or not hasattr(
        teacher, "lm_head"
    ):
        advice = "Load the whole of it by AutoModelForSeq2SeqLM."
        raise ValueError(f"`model_or_name`: {name} has no decoder with an output layer. {advice}")
    differences = []
    tensors = teacher.state_dict().values()
    devices = {str(tensor.device) for tensor in tensors}
    if not all(tensor.is_floating_point() for tensor in tensors):
        differences.append("weights that are quantized (load it without a quantization_config)")
    if len(devices) > 1 or "meta" in devices:
        differences.append(f"weights on {sorted(devices)} (load it without a device_map)")
    sizes = {stack: len(_stack(teacher, stack).embed_tokens.weight) for stack in _STACKS}
    if len({*sizes.values(), len(teacher.lm_head.weight)}) > 1:
        differences.append(f"one vocabulary for the source and another for the target, {sizes}")
    epsilons = {norm.eps for norm in teacher.modules() if isinstance(norm, nn.LayerNorm)}
    if len(epsilons) > 1:
        differences.append(f"layer normalisations of several epsilons, {sorted(epsilons)}")
    if differences:
        raise _refusal(name, config.model_type, differences)
    return _ARCHITECTURES[config.model_type]


def _stack(teacher: Any, stack: str) -> Any:
    return getattr(teacher.model, stack)


# The vocabulary


def _vocabulary(teacher: Any, tokenizer: Any, given: Mapping[str, Any]) -> _Vocabulary:
    """The student's vocabulary; a tokenizer gets the symbols that it lacks."""
    num_rows = len(teacher.lm_head.weight)
    ids = {n: _one_id(teacher.config, tokenizer, n) for n in ("pad_token_id", "eos_token_id")}
    used, had_mask = set(range(num_rows)), True
    if tokenizer is None:
        ids["mask_token_id"] = given.get("mask_token_id", num_rows)
        ids["blank_token_id"] = given.get("blank_token_id", max(num_rows, ids["mask_token_id"] + 1))
        least = 0
    else:
        _check_fit(tokenizer, ids, num_rows)
        had_mask = tokenizer.mask_token_id is not None
        add_cmlm_symbols(tokenizer)
        check_tokenizer(tokenizer)
        for name in ("mask_token_id", "blank_token_id"):
            ids[name] = getattr(tokenizer, name)
        used &= {*tokenizer.get_vocab().values()}
        least = len(tokenizer)
    is_new = {ids["blank_token_id"]} | ({ids["mask_token_id"]} if not had_mask else set())
    least = max(least, num_rows, *(1 + number for number in ids.values()))
    size = max(least, given.get("vocab_size", least))
    _check_given(ids | {"vocab_size": size}, given, "the vocabulary")
    used -= {*is_new, ids["pad_token_id"]}
    return _Vocabulary(size, ids, sorted({*is_new, *range(num_rows, size)}), sorted(used))


def _one_id(config: Any, tokenizer: Any, name: str) -> int:
    """Of a special token, of which a configuration may name several."""
    value, own = getattr(config, name, None), getattr(tokenizer, name, None)
    known: list[int] = value if isinstance(value, list) else [] if value is None else [value]
    if own in known or len(known) == 1:
        return known[known.index(own) if own in known else 0]
    problem = f"must have one `{name}` in its configuration, got {value}"
    raise ValueError(f"`model_or_name` {problem}. Set it: model.config.{name} = ...")


def _check_fit(tokenizer: Any, ids: dict[str, int], num_rows: int) -> None:
    """Refuse, before it is changed, a tokenizer of another model."""
    advice = "Is it the tokenizer of this model?"
    ids_of_all = {*tokenizer.get_vocab().values()}
    if ids_of_all <= {*tokenizer.all_special_ids}:  # which Transformers makes where files lack
        raise ValueError("`tokenizer` knows no words. Pass that of the model, as it was trained.")
    for name, expected in ids.items():
        if (got := getattr(tokenizer, name, None)) != expected:
            raise ValueError(
                f"`tokenizer`: its `{name}` is {got}, the model's {expected}. {advice}"
            )
    ours = {tokenizer.mask_token_id, getattr(tokenizer, "blank_token_id", None)}
    if (largest := max({-1, *ids_of_all} - ours)) >= num_rows:
        raise ValueError(f"`tokenizer` has id {largest}, the model {num_rows} symbols. {advice}")


def _check_given(fixed: Mapping[str, Any], given: Mapping[str, Any], what: str) -> None:
    """Refuse settings that differ from what is fixed, all of them at once."""
    wrong = [f"`{n}` is {given[n]!r}, not {v!r}" for n, v in fixed.items() if given.get(n, v) != v]
    if wrong:
        raise ValueError(f"{'; '.join(wrong)} as {what} of the teacher has it. Leave it out.")


# The configuration


def _settings(
    teacher: Any, architecture: _Architecture, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of the student's configuration, but for those of the vocabulary."""
    of, head = teacher.config, teacher.lm_head
    matrices = {id(_stack(teacher, stack).embed_tokens.weight) for stack in _STACKS}
    names = ["d_model", "activation_function", "scale_embedding"]
    names += [f"{stack}_{size}" for stack in _STACKS for size in ("attention_heads", "ffn_dim")]
    fixed = {name: getattr(of, name) for name in names} | {
        "normalize_before": architecture.normalize_before,
        "layernorm_embedding": architecture.layernorm_embedding,
        "position_embedding_type": architecture.position_embedding_type,
        "layer_norm_eps": next(m.eps for m in teacher.modules() if isinstance(m, nn.LayerNorm)),
        "tie_word_embeddings": {id(head.weight)} == matrices,
        "output_bias": bool(_output_bias(teacher).any()),
    }
    for name, value in _ALSO_EXPRESSIBLE.items():
        if given.get(name) == value:
            fixed[name] = value
    _check_given(fixed, given, "the architecture")
    most = {f"{stack}_layers": len(_stack(teacher, stack).layers) for stack in _STACKS}
    num_positions = _num_positions(teacher, architecture)
    most |= dict.fromkeys(("max_source_length", "max_target_length"), num_positions)
    for name, limit in most.items():
        if isinstance(given.get(name), int) and given[name] > limit:  # else the class will tell
            raise ValueError(
                f"`{name}` must be at most {limit}, as the teacher has it, got {given[name]}."
            )
    free = {name: getattr(of, name) or 0.0 for name in _DROPOUTS}
    free |= {"init_std": of.init_std, "hide_length_token": True, "dtype": teacher.dtype}
    free["decoder_start_token_id"] = getattr(of, "decoder_start_token_id", None)
    return most | free | dict(given) | fixed


_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout")


def _output_bias(teacher: Any) -> Tensor:
    """What the teacher adds to its logits, (vocab,)."""
    weight, own = teacher.lm_head.weight, teacher.lm_head.bias
    bias = weight.new_zeros(len(weight)) if own is None else own.detach()
    added = getattr(teacher, "final_logits_bias", None)  # (1, vocab)
    return bias if added is None else bias + added[0].to(bias)


def _num_positions(teacher: Any, architecture: _Architecture) -> int:
    if architecture.first_position is None:
        return teacher.config.max_position_embeddings
    tables = [_stack(teacher, stack).embed_positions.weight for stack in _STACKS]
    return min(map(len, tables)) - architecture.first_position


# The weights


@dataclass(frozen=True)
class _Weights:
    """Copies of the teacher's weights under the student's names."""

    teacher: Any
    architecture: _Architecture
    config: CmlmConfig
    vocabulary: _Vocabulary
    kept: dict[str, list[int]]  # by stack: the teacher's layers

    def of_student(self, student: PreTrainedModel) -> dict[str, Tensor]:
        """All that the student has, from all that the teacher has; ValueError if it has more."""
        state = self.teacher.state_dict()
        expected = student.state_dict()
        new: dict[str, Tensor] = {}
        wrong = []
        for name, like in expected.items():
            if (tied := student.all_tied_weights_keys.get(name)) in new:
                new[name] = new[tied]
            elif (made := self._made(name)) is not None:
                new[name] = made
            elif (source := self._source_of(name)) not in state:
                wrong.append(f"no {source}")
            elif (got := state[source]).shape != like.shape:
                wrong.append(f"{source} as {tuple(got.shape)} in place of {tuple(like.shape)}")
            else:
                new[name] = got.detach().clone(memory_format=torch.contiguous_format)
        used = {self._source_of(name) for name in expected}
        extra = sorted(state.keys() - used - self.dropped().keys() - {"final_logits_bias"})
        if wrong or extra:
            listed = [*wrong, *(f"a weight {name} that a CMLM has no place for" for name in extra)]
            raise _refusal(type(self.teacher).__name__, self.teacher.config.model_type, listed)
        return new

    def dropped(self) -> dict[str, str]:
        """The teacher's weights that the student has no use for, and why."""
        left: dict[str, str] = {}
        for stack, indices in self.kept.items():
            for index, layer in enumerate(_stack(self.teacher, stack).layers):
                if index not in indices:
                    names = (f"model.{stack}.layers.{index}.{n}" for n in layer.state_dict())
                    left |= dict.fromkeys(names, f"{stack}_layers is {len(indices)}")
        for stack, limit in self._limits().items():
            if limit < (most := _num_positions(self.teacher, self.architecture)):
                rows = f"rows {limit} to {most - 1} of model.{stack}.embed_positions"
                left[rows] = f"the longest text has {limit} tokens"
        if not self.config.tie_word_embeddings:
            left["model.shared.weight"] = "both stacks and the output layer have their own"
        return left

    def _limits(self) -> dict[str, int]:
        """The positions that each stack keeps."""
        return {"encoder": self.config.max_source_length, "decoder": self.config.max_target_length}

    def _source_of(self, name: str) -> str:
        """The teacher's name of one of the student's weights."""
        match = re.fullmatch(r"model\.(encoder|decoder)\.layers\.(\d+)\.(.+)", name)
        if match is None:
            return name
        stack, index, rest = match.groups()
        return f"model.{stack}.layers.{self.kept[stack][int(index)]}.{rest}"

    def _made(self, name: str) -> Tensor | None:
        """A weight that is not the teacher's as it is, None for the others."""
        teacher = self.teacher
        if name == "lm_head.bias":
            return self._with_new_rows(_output_bias(teacher))
        if name == "lm_head.weight" or name == "model.shared.weight":
            return self._with_new_rows(teacher.lm_head.weight)
        match = re.fullmatch(r"model\.(encoder|decoder)\.embed_(\w+)\.weight", name)
        if match is None:
            return None
        stack, kind = match.groups()
        embeddings = _stack(teacher, stack).embed_tokens.weight
        if kind == "tokens":
            return self._with_new_rows(embeddings)
        limits = self._limits()
        if kind == "positions":
            return self._positions(stack, limits[stack])
        # Row 0 is read as it is where token embeddings are scaled.
        scale = self.config.d_model**0.5 if self.config.scale_embedding else 1.0
        lengths = self._mean(embeddings).expand(limits["decoder"] + 1, -1).clone()
        lengths[0] *= scale
        return lengths.to(embeddings.dtype)

    def _with_new_rows(self, table: Tensor) -> Tensor:
        """`table` (the teacher's vocabulary, ...) for the student's vocabulary."""
        table = table.detach()
        rows = table.new_empty(self.vocabulary.size, *table.shape[1:])
        rows[: len(table)] = table
        rows[self.vocabulary.new_rows] = self._mean(table).to(table.dtype)
        return rows

    def _mean(self, table: Tensor) -> Tensor:
        """Of the rows that tokens use, in float32."""
        return table.detach()[self.vocabulary.used_rows].float().mean(dim=0)

    def _positions(self, stack: str, num_positions: int) -> Tensor:
        """The first `num_positions` (num_positions, d_model)."""
        module = _stack(self.teacher, stack).embed_positions
        first = self.architecture.first_position
        if first is None:
            return _m2m_100_positions(module, num_positions)
        return module.weight.detach()[first : first + num_positions].clone()


def _m2m_100_positions(module: Any, num_positions: int) -> Tensor:
    """Sinusoids, of other frequencies than a CMLM's, which it counts from behind `<pad>`'s id."""
    first = module.padding_idx + 1
    size = (first + num_positions, module.embedding_dim, module.padding_idx)
    return module.get_embedding(*size)[first:].to(module.weights)
