"""Arguments and tensors of Mask-Predict's model as a `CmlmConfig` and the weights of a CMLM.

The names and shapes were measured against the original program. Nothing is transposed, and
embeddings are not scaled.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..cmlm import CmlmConfig
from .checkpoint import FairseqCheckpoint
from .dictionary import BLANK, EOS, MASK, PAD, SPECIAL_SYMBOLS

ARCHITECTURES = ("bert_transformer_seq2seq", "bert_transformer_seq2seq_big")
# Rows of a table of positions in front of the first: fairseq counts from the padding's id + 1.
POSITION_OFFSET = 2
_BIG = {"decoder_embed_dim": 1024, "decoder_ffn_embed_dim": 4096, "decoder_attention_heads": 16}
_FLAGS = [
    "encoder_normalize_before",
    "decoder_normalize_before",
    "share_all_embeddings",
    "share_decoder_input_output_embed",
    "no_enc_token_positional_embeddings",
    "no_dec_token_positional_embeddings",
]
SIDES = ("encoder", "decoder")
# Arguments that must not be set, and what they would change.
_WITHOUT_PLACE = {
    "adaptive_softmax_cutoff": "an output in clusters",
    "dynamic_length": "lengths that change during decoding",
    "remove_head": "a model without an output",
}
_LATER_PLACE = (
    "the length is one of 256 differences to the source's, of the mean of the encoder's states",
    "the encoder reads no vector for the length",
    "a canvas shows <s> and </s> at its ends, and <unk> is the mask",
    "length candidates are neighbours of the best one",
    "iter_decode_max_iter + 1 passes are made",
)
_INSTEAD = "Let fairseq-generate translate your sources, and train a student on that: axe-hf train"


def complete_arguments(checkpoint: FairseqCheckpoint) -> dict[str, Any]:
    """The arguments, with the defaults of the architecture where an older program had none.

    Raises:
        ValueError: another architecture, or settings that no `CmlmConfig` expresses, by name.
    """
    _check_architecture(checkpoint)
    given = {name: value for name, value in checkpoint.arguments.items() if value is not None}
    if checkpoint.architecture.endswith("_big"):
        given = _BIG | given
    dim = given.setdefault("encoder_embed_dim", 512)
    defaults = {
        "encoder_ffn_embed_dim": 4 * dim,
        "encoder_layers": 6,
        "encoder_attention_heads": dim // 64,
        "decoder_embed_dim": dim,
        "decoder_layers": 6,
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "relu_dropout": 0.0,
        "label_smoothing": 0.0,
        "max_source_positions": 1024,
        "max_target_positions": 1024,
    }
    given = defaults | dict.fromkeys(_FLAGS, False) | given
    given.setdefault("decoder_ffn_embed_dim", given["encoder_ffn_embed_dim"])
    given.setdefault("decoder_attention_heads", given["encoder_attention_heads"])
    for side in ("input", "output"):
        given.setdefault(f"decoder_{side}_dim", given["decoder_embed_dim"])
    if problems := [*_inexpressible(given)]:
        raise ValueError(f"{checkpoint.path} has no place here: {'; '.join(problems)}.")
    return given


def _check_architecture(checkpoint: FairseqCheckpoint) -> None:
    name = checkpoint.architecture
    if name in ARCHITECTURES:
        return
    if name.startswith("cmlm_transformer"):
        tensors = checkpoint.tensors
        parts = ("embed_tokens", "embed_positions", "layers", "layer_norm", "output_projection")
        has_place = tuple(f"{side}.{part}" for side in SIDES for part in parts)
        alone = [f"{n} {tuple(t.shape)}" for n, t in tensors.items() if not n.startswith(has_place)]
        if not any(n.startswith("encoder.embed_positions.weight") for n in tensors):
            alone.append("sinusoidal positions, which stand in no tensor")
        settings = "; ".join((*_LATER_PLACE, *alone))
        problem = f"{checkpoint.path} is a cmlm_transformer of fairseq's later versions"
        raise ValueError(f"{problem}. These have no place in a CMLM here: {settings}. {_INSTEAD}")
    known = " or ".join(ARCHITECTURES)
    problem = f"`checkpoint` must be of Mask-Predict, {known}; {checkpoint.path} is {name!r}"
    raise ValueError(f"{problem}. {_INSTEAD}")


def _inexpressible(given: dict[str, Any]) -> Iterator[str]:
    for name, what in _WITHOUT_PLACE.items():
        if given.get(name):
            yield f"{name} is {given[name]!r}, {what}"
    for side in SIDES:
        path = given.get(f"{side}_embed_path") or ""
        if str(path).startswith(("elmo:", "bilm:")):
            yield f"{side}_embed_path is {path!r}, a language model in place of embeddings"
    width = given["encoder_embed_dim"]
    for name in ("decoder_embed_dim", "decoder_input_dim", "decoder_output_dim"):
        if given[name] != width:
            yield f"{name} is {given[name]}, and encoder_embed_dim {width}: all widths must be one"
    before = [given[f"{side}_normalize_before"] for side in SIDES]
    if before[0] != before[1]:
        yield "one of encoder_normalize_before and decoder_normalize_before is set, not both"


def config_of(arguments: dict[str, Any], vocab_size: int, **fields: Any) -> CmlmConfig:
    """The configuration; `arguments` are complete."""
    return CmlmConfig(
        vocab_size=vocab_size,
        d_model=arguments["encoder_embed_dim"],
        **{f"{side}_layers": arguments[f"{side}_layers"] for side in SIDES},
        **{f"{side}_attention_heads": arguments[f"{side}_attention_heads"] for side in SIDES},
        **{f"{side}_ffn_dim": arguments[f"{side}_ffn_embed_dim"] for side in SIDES},
        activation_function="gelu",
        dropout=arguments["dropout"],
        attention_dropout=arguments["attention_dropout"],
        activation_dropout=arguments["relu_dropout"],
        normalize_before=arguments["encoder_normalize_before"],
        max_source_length=arguments["max_source_positions"],
        # Class 0 of the lengths is the vector in front of the source.
        max_target_length=arguments["max_target_positions"] - 1,
        tie_word_embeddings=arguments["share_all_embeddings"],
        pad_token_id=SPECIAL_SYMBOLS.index(PAD),
        eos_token_id=SPECIAL_SYMBOLS.index(EOS),
        mask_token_id=SPECIAL_SYMBOLS.index(MASK),
        blank_token_id=SPECIAL_SYMBOLS.index(BLANK),
        decoder_start_token_id=SPECIAL_SYMBOLS.index(EOS),
        training_loss="cross_entropy",
        label_smoothing=arguments["label_smoothing"],
        length_loss_weight=1.0,
        **fields,
    )


class _Tensors:
    """Those of a checkpoint: each is taken once, and what is wrong is written down."""

    def __init__(self, checkpoint: FairseqCheckpoint):
        self.left = dict(checkpoint.tensors)
        self.problems: list[str] = []

    def take(self, *names: str, shape: tuple[int, ...]) -> Tensor | None:
        """The tensor of one of the names it may have; None if there is none of this shape."""
        name = next((name for name in names if name in self.left), None)
        if name is None:
            self.problems.append(f"{names[0]} {shape} is missing")
            return None
        tensor = self.left.pop(name)
        if tuple(tensor.shape) != shape:
            self.problems.append(f"{name} has shape {tuple(tensor.shape)}, not {shape}")
            return None
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            self.problems.append(f"{name} holds what is no number ({tensor.dtype})")
        return tensor


def weights_of(
    checkpoint: FairseqCheckpoint, arguments: dict[str, Any], config: CmlmConfig
) -> dict[str, Tensor | None]:
    """The checkpoint's tensors by their names here, views of the originals; None is zeros.

    Raises:
        ValueError: tensors that are missing, left over or of another shape, all by name.
    """
    tensors = _Tensors(checkpoint)
    _check_version(tensors, config, checkpoint)
    weights = _embeddings(tensors, arguments, config)
    for side in SIDES:
        for layer in range(getattr(config, f"{side}_layers")):
            weights |= _layer(tensors, f"{side}.layers.{layer}", side, config)
        if config.normalize_before:
            weights |= _norm(tensors, f"model.{side}.layer_norm", f"{side}.layer_norm", config)
    problems = tensors.problems
    problems += [f"{n} {tuple(t.shape)} has no place" for n, t in sorted(tensors.left.items())]
    if problems:
        shown = "; ".join(problems[:20]) + (f"; {n} more" if (n := len(problems) - 20) > 0 else "")
        told = f"{checkpoint.path} does not hold the tensors that its arguments and the dictionary"
        if "embed_tokens.weight has shape" in shown:
            shown += ". The dictionary must be the very dict.*.txt of the training data, with its "
            shown += "lines madeupword0000 ... that fill the number up"
        raise ValueError(f"{told} ({config.vocab_size} symbols) say: {shown}.")
    return weights


def _check_version(tensors: _Tensors, config: CmlmConfig, checkpoint: FairseqCheckpoint) -> None:
    versions = {side: tensors.left.pop(f"{side}.version", None) for side in SIDES}
    version = versions["encoder"]
    if config.normalize_before and (version is None or version.item() < 2):
        problem = f"{checkpoint.path} has no encoder.version from 2, so that the encoder"
        raise ValueError(f"{problem} is not normalised at its end, which has no place here.")


def _embeddings(
    tensors: _Tensors, arguments: dict[str, Any], config: CmlmConfig
) -> dict[str, Tensor | None]:
    table = (config.vocab_size, config.d_model)
    source = tensors.take("encoder.embed_tokens.weight", shape=table)
    target = tensors.take("decoder.embed_tokens.weight", shape=table)
    if arguments["share_all_embeddings"]:
        if source is not None and target is not None and not source.equal(target):
            tensors.problems.append("the embeddings are shared, but encoder's and decoder's differ")
        weights = {"model.shared.weight": source}
    else:
        output = target
        if not arguments["share_decoder_input_output_embed"]:
            output = tensors.take("decoder.embed_out", shape=table)
        weights = {"model.encoder.embed_tokens.weight": source, "lm_head.weight": output}
        weights |= {"model.decoder.embed_tokens.weight": target}
    limits = {"encoder": config.max_source_length, "decoder": config.max_target_length + 1}
    for (side, limit), flag in zip(limits.items(), ("enc", "dec"), strict=True):
        positions = None
        if not arguments[f"no_{flag}_token_positional_embeddings"]:
            shape = (limit + POSITION_OFFSET, config.d_model)
            positions = tensors.take(f"{side}.embed_positions.weight", shape=shape)
        if positions is not None:
            num_used = limit if side == "encoder" else config.max_target_length
            positions = positions[POSITION_OFFSET : POSITION_OFFSET + num_used]
        weights[f"model.{side}.embed_positions.weight"] = positions
    shape = (config.max_target_length + 1, config.d_model)
    lengths = tensors.take("encoder.embed_lengths.weight", shape=shape)
    return weights | {"model.encoder.embed_lengths.weight": lengths}


def _layer(
    tensors: _Tensors, prefix: str, side: str, config: CmlmConfig
) -> dict[str, Tensor | None]:
    width, inner = config.d_model, getattr(config, f"{side}_ffn_dim")
    weights: dict[str, Tensor | None] = {}
    for name in ("self_attn", "encoder_attn")[: 1 if side == "encoder" else 2]:
        weights |= _attention(tensors, f"{prefix}.{name}", width)
        norm = f"{name}_layer_norm"
        old = f"{prefix}.layer_norms.0" if side == "encoder" else f"{prefix}.{norm}"
        weights |= _norm(tensors, f"model.{prefix}.{norm}", old, config)
    old = f"{prefix}.layer_norms.1" if side == "encoder" else f"{prefix}.final_layer_norm"
    weights |= _norm(tensors, f"model.{prefix}.final_layer_norm", old, config)
    for name, shape in {"fc1": (inner, width), "fc2": (width, inner)}.items():
        weights |= _linear(tensors, f"{prefix}.{name}", shape)
    return weights


def _linear(tensors: _Tensors, name: str, shape: tuple[int, int]) -> dict[str, Tensor | None]:
    return {
        f"model.{name}.weight": tensors.take(f"{name}.weight", shape=shape),
        f"model.{name}.bias": tensors.take(f"{name}.bias", shape=shape[:1]),
    }


def _attention(tensors: _Tensors, name: str, width: int) -> dict[str, Tensor | None]:
    """Queries, keys and values stand in one matrix, one after the other, or each by itself."""
    weights = _linear(tensors, f"{name}.out_proj", (width, width))
    if f"{name}.q_proj.weight" in tensors.left:
        for part in "qkv":
            weights |= _linear(tensors, f"{name}.{part}_proj", (width, width))
        return weights
    for kind, shape in {"weight": (3 * width, width), "bias": (3 * width,)}.items():
        whole = tensors.take(f"{name}.in_proj_{kind}", shape=shape)
        thirds = (None,) * 3 if whole is None else whole.split(width)
        weights |= {f"model.{name}.{p}_proj.{kind}": t for p, t in zip("qkv", thirds, strict=True)}
    return weights


def _norm(tensors: _Tensors, new: str, old: str, config: CmlmConfig) -> dict[str, Tensor | None]:
    """A normalisation, whose weight and bias were called gamma and beta; `new` is its name here."""
    names = (old, new.removeprefix("model."))
    pairs = {"weight": "gamma", "bias": "beta"}.items()
    shape = (config.d_model,)
    return {
        f"{new}.{kind}": tensors.take(
            *(f"{name}.{k}" for name in names for k in (letter, kind)), shape=shape
        )
        for kind, letter in pairs
    }
