"""The models and the ways of decoding that `decoding.py` measures: random weights, and as many tokens for everyone."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel

from axe_hf import CmlmConfig, CmlmForConditionalGeneration, quantize_int8
from axe_hf.kernels import OneDnnLinear

GREEDY, BEAM, NAIVE = "Marian 6-6, greedy", "Marian 6-6, beam 5", "Mask-Predict as written"
NUM_ITERATIONS = (1, 4, 10)
SPECIAL_TOKENS = 5  # ids below it are special to the CMLM


@dataclass(frozen=True)
class Size:
    """Width and depth of the models, and the tokens of every source and every translation."""

    vocab: int = 32000
    hidden: int = 512
    ffn: int = 2048
    heads: int = 8
    layers: int = 6
    length: int = 32


FULL = Size()
QUICK = Size(vocab=90, hidden=16, ffn=32, heads=2, layers=2, length=8)


@dataclass(frozen=True)
class System:
    """A way to decode.

    Args:
        name: what the tables call it.
        precision: "float32", "bfloat16" or "int8".
        decode: takes sources (batch, source) and their mask, returns tokens.
        baseline: name of the system of the same precision that its speed-up is against.
        num_iterations, num_candidates: T and k; None for Marian.
    """

    name: str
    precision: str
    decode: Callable[[Tensor, Tensor], Tensor]
    baseline: str = GREEDY
    num_iterations: int | None = None
    num_candidates: int | None = None

    def __str__(self) -> str:
        sizes = (
            ""
            if self.num_iterations is None
            else f", T={self.num_iterations}, k={self.num_candidates}"
        )
        return f"{self.name}{sizes}, {self.precision}"


def make_cmlm(size: Size) -> CmlmForConditionalGeneration:
    config = CmlmConfig(
        vocab_size=size.vocab,
        d_model=size.hidden,
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        encoder_ffn_dim=size.ffn,
        decoder_ffn_dim=size.ffn,
    )
    return CmlmForConditionalGeneration(config).eval()


def make_marian(size: Size, encoder_layers: int, decoder_layers: int) -> MarianMTModel:
    config = MarianConfig(
        vocab_size=size.vocab,
        d_model=size.hidden,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        encoder_ffn_dim=size.ffn,
        decoder_ffn_dim=size.ffn,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
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
    sources[:, -1] = 1
    return sources.to(device)


def autoregressive(
    model: MarianMTModel, num_beams: int, length: int, sources: Tensor, mask: Tensor
) -> Tensor:
    """Exactly `length` new tokens, with a key-value cache.

    Without an end-of-sentence token no sentence ends early, and no logits processor is needed to forbid it:
    nothing but the model, and what greedy or beam search itself takes, is in the time.
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


def length_bounds(size: Size, num_candidates: int) -> dict[str, int]:
    """One candidate has `length` positions, several have as many lengths around it, each taken once."""
    shortest = size.length - num_candidates // 2
    return {"min_length": shortest, "max_length": shortest + num_candidates - 1}


def cmlm_system(
    model: CmlmForConditionalGeneration,
    size: Size,
    num_iterations: int,
    num_candidates: int,
    precision: str,
    **options,
) -> System:
    """Ours; `options` go to `generate`."""
    settings = length_bounds(size, num_candidates) | options
    settings |= {"num_iterations": num_iterations, "num_length_candidates": num_candidates}
    settings |= {"length_score_weight": 0.0}  # Mask-Predict's ranking, as in the loop as written

    def decode(sources: Tensor, mask: Tensor) -> Tensor:
        return model.generate(sources, attention_mask=mask, **settings)

    name = "CMLM"
    if options.get("compile"):
        name = "CMLM, compiled"
    elif options.get("use_onednn") is False:
        name = "CMLM, no oneDNN"
    return System(
        name,
        precision,
        decode,
        num_iterations=num_iterations,
        num_candidates=num_candidates,
    )


def make_systems(
    size: Size, dtype: str, device: str, with_int8: bool, with_compile: bool
) -> list[System]:
    """Everything that takes turns at the batch sizes; a baseline comes before what is compared with it."""
    torch.manual_seed(0)
    to = {"device": device, "dtype": getattr(torch, dtype)}
    marian = make_marian(size, size.layers, size.layers).to(**to)
    deep = make_marian(size, 2 * size.layers, 1).to(**to)
    cmlm = make_cmlm(size).to(**to)
    greedy, beam = (partial(autoregressive, marian, beams, size.length) for beams in (1, 5))
    systems = [
        System(GREEDY, dtype, greedy),
        System(BEAM, dtype, beam),
        System("Marian 12-1, greedy", dtype, partial(autoregressive, deep, 1, size.length)),
    ]
    if device == "cpu" and dtype == "float32" and torch.backends.mkldnn.is_available():
        # Ours does so by itself where it pays; this is what it would do for Marian.
        for name, decode in ((GREEDY, greedy), (BEAM, beam)):
            systems.append(System(f"{name}, oneDNN", dtype, partial(through_onednn, decode)))
        systems += [
            cmlm_system(cmlm, size, iterations, 1, dtype, use_onednn=False)
            for iterations in NUM_ITERATIONS
        ]
    sizes = [(iterations, k) for k in (1, 5) for iterations in NUM_ITERATIONS]
    systems += [cmlm_system(cmlm, size, *pair, dtype) for pair in sizes]
    if with_compile:
        systems += [cmlm_system(cmlm, size, *pair, dtype, compile=True) for pair in sizes]
    if with_int8:
        marian, cmlm = marian_in_int8(marian), quantize_int8(cmlm)
        systems += [System(GREEDY, "int8", partial(autoregressive, marian, 1, size.length))]
        systems += [cmlm_system(cmlm, size, *pair, "int8") for pair in sizes if pair[1] == 1]
    return systems


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
    model = make_cmlm(size).to(device=device, dtype=getattr(torch, dtype))
    iterations, k = NUM_ITERATIONS[-1], 5
    as_written = partial(
        mask_predict_as_written,
        model,
        num_iterations=iterations,
        num_candidates=k,
        **length_bounds(size, k),
    )
    systems = [System(NAIVE, dtype, as_written, NAIVE, iterations, k)]
    if device == "cpu" and dtype == "float32" and torch.backends.mkldnn.is_available():
        through = partial(through_onednn, as_written)
        systems.append(System(f"{NAIVE}, oneDNN", dtype, through, NAIVE, iterations, k))
    systems.append(replace(cmlm_system(model, size, iterations, k, dtype), baseline=NAIVE))
    return systems
