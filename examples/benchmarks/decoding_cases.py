"""The models and the ways of decoding that `decoding.py` measures: random weights, and as many
tokens for everyone."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel

from axe_hf import CmlmConfig, CmlmForConditionalGeneration
from axe_hf.kernels import OneDnnLinear

SPECIAL_TOKENS = 5  # ids below it are special to the CMLM
END = 1  # `</s>` of everyone
OURS, MARIAN, LOOP = "ours", "transformers", "as written"


@dataclass(frozen=True)
class Size:
    """Width and depth of the models, and the tokens of every source and every translation."""

    vocab: int = 32000
    hidden: int = 512
    ffn: int = 2048
    heads: int = 8
    layers: int = 6
    length: int = 32

    def depths(self) -> dict[str, tuple[int, int]]:
        """Encoder and decoder layers, by name: as many, and with ever shallower decoders."""
        n = self.layers
        pairs = [(n, n), (2 * n - n // 2, n // 2), (2 * n, 1)]
        return {f"{encoder}-{decoder}": (encoder, decoder) for encoder, decoder in pairs}


FULL = Size()
QUICK = Size(vocab=90, hidden=16, ffn=32, heads=2, layers=2, length=8)


@dataclass(frozen=True)
class System:
    """A way to decode.

    Args:
        engine: what computes it.
        layers: "6-6": encoder and decoder layers.
        precision: "float32", "bfloat16" or "int8".
        decode: takes sources (batch, source) and their mask.
        beams: of an autoregressive model; None for ours.
        num_iterations, num_candidates, canvas: T, k, and positions over the translation's tokens;
            None for autoregressive models.
    """

    engine: str
    layers: str
    precision: str
    decode: Callable[[Tensor, Tensor], object]
    beams: int | None = None
    num_iterations: int | None = None
    num_candidates: int | None = None
    canvas: float | None = None

    @property
    def search(self) -> str:
        if self.beams is not None:
            return "greedy" if self.beams == 1 else f"beam {self.beams}"
        several = "" if self.num_candidates == 1 else f", {self.num_candidates} lengths"
        return f"T={self.num_iterations}, canvas {self.canvas:g}{several}"

    @property
    def canvases(self) -> float:
        """Passes over a canvas as long as the translation, of a sentence; 0 of a Marian."""
        sizes = (self.num_iterations, self.num_candidates, self.canvas)
        return math.prod(size or 0 for size in sizes)

    def __str__(self) -> str:
        return f"{self.engine} {self.layers} {self.precision}, {self.search}"


def sizes_of(size: Size, encoder_layers: int, decoder_layers: int) -> dict[str, int]:
    sizes = {"d_model": size.hidden}
    for name, layers in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        sizes |= {f"{name}_layers": layers, f"{name}_attention_heads": size.heads}
        sizes |= {f"{name}_ffn_dim": size.ffn}
    return sizes


def make_cmlm(size: Size, *layers: int) -> CmlmForConditionalGeneration:
    config = CmlmConfig(vocab_size=size.vocab, **sizes_of(size, *layers))
    return CmlmForConditionalGeneration(config).eval()


def make_marian(size: Size, *layers: int) -> MarianMTModel:
    """With one id more than ours: Marian's padding, which starts its decoder, is the last."""
    pad = {"pad_token_id": size.vocab, "decoder_start_token_id": size.vocab}
    config = MarianConfig(
        vocab_size=size.vocab + 1,
        **sizes_of(size, *layers),
        **pad,
        eos_token_id=END,
        forced_eos_token_id=None,
    )
    return MarianMTModel(config).eval()


def marian_in_int8(model: MarianMTModel) -> MarianMTModel:
    """What `quantize_int8` does to ours."""
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        return quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def make_sources(size: Size, batch: int, device: str) -> Tensor:
    """Random sources (batch, length) without padding, `</s>` at the end."""
    generator = torch.Generator().manual_seed(batch)
    sources = torch.randint(SPECIAL_TOKENS, size.vocab, (batch, size.length), generator=generator)
    sources[:, -1] = END
    return sources.to(device)


def autoregressive(
    model: MarianMTModel, num_beams: int, length: int, sources: Tensor, mask: Tensor
) -> Tensor:
    """Exactly `length` new tokens, with a key-value cache.

    Without an end-of-sentence token no sentence ends early, and no logits processor is needed to
    forbid it: nothing but the model, and what greedy or beam search itself takes, is in the time.
    """
    tokens = model.generate(
        sources,
        attention_mask=mask,
        max_new_tokens=length,
        num_beams=num_beams,
        do_sample=False,
        use_cache=True,
        eos_token_id=None,
    )
    if tokens.shape[1] != length + 1:
        raise RuntimeError(f"Marian made {tokens.shape[1] - 1} tokens, not {length}.")
    return tokens


def through_onednn(
    decode: Callable[[Tensor, Tensor], Tensor], sources: Tensor, mask: Tensor
) -> Tensor:
    """The same with linear layers computed by oneDNN where the rows are enough for it."""
    with torch.no_grad(), OneDnnLinear():
        return decode(sources, mask)


def length_bounds(length: int, num_candidates: int) -> dict[str, int]:
    """One candidate has `length` positions, several have as many lengths around it, each taken
    once."""
    shortest = length - num_candidates // 2
    return {"min_length": shortest, "max_length": shortest + num_candidates - 1}


def cmlm_system(
    model: CmlmForConditionalGeneration,
    layers: str,
    precision: str,
    *,
    length: int,
    canvas: float = 1.0,
    num_iterations: int,
    num_candidates: int = 1,
    engine: str = OURS,
    **options,
) -> System:
    """Ours, for translations of `length` tokens; `options` go to `generate`."""
    settings = length_bounds(round(length * canvas), num_candidates) | options
    sizes = {"num_iterations": num_iterations}
    settings |= sizes | {"num_length_candidates": num_candidates}
    settings |= {"length_score_weight": 0.0}  # Mask-Predict's ranking, as in the loop as written

    def decode(sources: Tensor, mask: Tensor) -> Tensor:
        return model.generate(sources, attention_mask=mask, **settings)

    name = f"{engine}, compiled" if options.get("compile") else engine
    sizes |= {"num_candidates": num_candidates}
    return System(name, layers, precision, decode, canvas=canvas, **sizes)


@torch.no_grad()
def mask_predict_as_written(
    model: CmlmForConditionalGeneration,
    sources: Tensor,
    mask: Tensor,
    *,
    num_iterations: int,
    num_candidates: int,
    min_length: int,
    max_length: int,
) -> Tensor:
    """Mask-Predict straight from the paper: the whole model on every canvas in every iteration.

    Returns:
        (batch, longest translation) long, what `generate` returns.
    """
    config = model.config
    length_logits = model.model.encoder(input_ids=sources, attention_mask=mask).length_logits
    best = length_logits[:, min_length : max_length + 1].topk(num_candidates, dim=1)
    lengths = (best.indices + min_length).view(-1, 1)  # (canvases, 1)
    sources, mask = (x.repeat_interleave(num_candidates, 0) for x in (sources, mask))
    is_padding = torch.arange(int(lengths.max()), device=sources.device) >= lengths
    tokens = torch.full_like(is_padding, config.mask_token_id, dtype=torch.long)
    tokens = tokens.masked_fill(is_padding, config.pad_token_id)
    scores = torch.zeros(tokens.shape, device=sources.device)
    is_masked = ~is_padding
    for iteration in range(num_iterations):
        if iteration > 0:
            num_masked = lengths * (num_iterations - iteration) // num_iterations
            order = scores.masked_fill(is_padding, torch.inf).argsort(dim=1, stable=True)
            is_masked = order.argsort(dim=1) < num_masked.clamp(min=1)
            tokens = tokens.masked_fill(is_masked, config.mask_token_id)
        logits = model(input_ids=sources, attention_mask=mask, decoder_input_ids=tokens).logits
        logits[:, :, [config.pad_token_id, config.mask_token_id]] = -torch.inf
        new_scores, new_tokens = logits.float().log_softmax(-1).max(-1)
        tokens = torch.where(is_masked, new_tokens, tokens)
        scores = torch.where(is_masked, new_scores, scores)
    means = (scores.sum(1, keepdim=True) / lengths).view(-1, num_candidates)
    chosen = tokens.view(-1, num_candidates, tokens.shape[1])[
        torch.arange(len(means), device=sources.device), means.argmax(1)
    ]
    special = (config.pad_token_id, config.eos_token_id, config.blank_token_id)
    kept = [row[~torch.isin(row, torch.tensor(special, device=row.device))] for row in chosen]
    return nn.utils.rnn.pad_sequence(kept, batch_first=True, padding_value=config.pad_token_id)


def make_loop_systems(size: Size, dtype: str, device: str) -> list[System]:
    """The loop as written and ours, T = 10 with 5 length candidates."""
    torch.manual_seed(0)
    layers, numbers = next(iter(size.depths().items()))
    model = make_cmlm(size, *numbers).to(device=device, dtype=getattr(torch, dtype))
    sizes = {"num_iterations": 10, "num_candidates": 5}
    decode = partial(mask_predict_as_written, model, **sizes, **length_bounds(size.length, 5))
    systems = [System(LOOP, layers, dtype, decode, canvas=1.0, **sizes)]
    if device == "cpu" and dtype == "float32" and torch.backends.mkldnn.is_available():
        through = partial(through_onednn, decode)
        systems.append(System(f"{LOOP}, oneDNN", layers, dtype, through, canvas=1.0, **sizes))
    return [*systems, cmlm_system(model, layers, dtype, length=size.length, **sizes)]
