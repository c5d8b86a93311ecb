"""Rescoring by an autoregressive model: noisy parallel decoding (Gu et al., ICLR 2018, section 4)."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .evaluation_mode import evaluation_mode
from .rescoring_checks_cmlm import check_ids, check_rescorer, checked_texts
from .token_prediction import MAX_LOGITS_ELEMENTS

logger = logging.get_logger(__name__)


def autoregressive_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    candidates: Sequence[Sequence[str]],
    *,
    max_logits_elements: int = MAX_LOGITS_ELEMENTS,
) -> torch.Tensor:
    """Score translations by an autoregressive model, in one pass each and without generating.

    The score of candidate y_1 .. y_n of source x, where y_n is the end token, is

        1/n * (log p(y_1 | x) + log p(y_2 | x, y_1) + ... + log p(y_n | x, y_1 .. y_(n-1)))

    with the tokens of `tokenizer`: nats per token, end token included, as a length penalty of 1 gives
    them. What the tokenizer puts around every target alike (a BOS, the code of the language) is read
    by the model and not scored: generation is given it too. (Gu et al. 2018, section 4, "noisy
    parallel decoding"; https://arxiv.org/abs/1711.02281.)

    Each source is encoded once for all its candidates, and equal candidates are scored once.
    Sources and candidates that are too long for the model are cut, with a warning for each side.

    Args:
        model: an encoder-decoder of Transformers with a head over the vocabulary (Marian, BART, T5,
            M2M-100 ...). It runs where it is, in its own dtype and in evaluation mode, and is put
            back as it was.
        tokenizer: the tokenizer of `model`. Where the languages are set on it (`src_lang` and
            `tgt_lang` of mBART, NLLB ...) they must be set.
        sources: plain text, (batch) strings. A model that wants a prefix such as "translate English
            to German: " must be given it here.
        candidates: plain text, (batch, candidates) strings; an empty one scores its end token alone.
        max_logits_elements (default 2**24, 64 MiB in fp32): the largest (rows, target, vocab) tensor
            of logits held at once, in elements; a single row may exceed it.

    Returns:
        (batch, candidates) fp32 on the CPU, in nats per token, at most 0; best is largest.

    Raises:
        TypeError: `model` or `tokenizer` is something else, or a text is no string.
        ValueError: sources and candidates do not match each other, or model and tokenizer do not,
            or the model's log-probabilities are not numbers.

    Example:

    ```python
    >>> from axe_hf import train_tokenizer
    >>> from axe_hf.cmlm.rescoring_cmlm import autoregressive_scores
    >>> from transformers import MarianConfig, MarianMTModel
    >>> tokenizer = train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)
    >>> model = MarianMTModel(
    ...     MarianConfig(vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1,
    ...                  encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
    ...                  decoder_ffn_dim=32, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    ... )
    >>> candidates = [["Ein Hund bellt.", "Ein Ein bellt."], ["Hund", ""]]
    >>> scores = autoregressive_scores(model, tokenizer, ["A dog barks.", "dog"], candidates)
    >>> scores.shape, scores.argmax(dim=1).shape  # the candidate to choose for each source
    (torch.Size([2, 2]), torch.Size([2]))

    ```
    """
    check_rescorer((model, tokenizer))
    sources, candidates = checked_texts(sources, candidates)
    if not isinstance(max_logits_elements, int) or max_logits_elements < 1:
        raise ValueError(
            f"`max_logits_elements` must be an integer >= 1, got {max_logits_elements!r}."
        )
    shape = (len(sources), len(candidates[0]) if candidates else 0)
    pairs = [(x, y) for x, row in zip(sources, candidates, strict=True) for y in row]
    if not pairs:
        return torch.zeros(shape)
    distinct = list(dict.fromkeys(pairs))
    with torch.no_grad(), evaluation_mode(model):
        scores = _scores_of_pairs(model, tokenizer, distinct, max_logits_elements)
    if scores.isnan().any():
        raise ValueError(
            f"The rescoring {type(model).__name__} gave log-probabilities that are not numbers in "
            f"{model.dtype}. Load it in torch.bfloat16 or torch.float32, or look at its weights."
        )
    number = {pair: i for i, pair in enumerate(distinct)}
    return scores[[number[pair] for pair in pairs]].view(shape)  # (batch, candidates)


def _scores_of_pairs(model, tokenizer, pairs, max_logits_elements) -> torch.Tensor:
    """Mean log-probability, (pairs,) fp32 on the CPU, of the second text of each pair given the first."""
    sources = {source: i for i, source in enumerate(dict.fromkeys(x for x, _ in pairs))}
    encode = _source_encoder(model, tokenizer, list(sources))
    targets, first, num_after = _target_ids(model, tokenizer, [y for _, y in pairs])
    head = model.get_output_embeddings()
    vocab_size = getattr(head, "out_features", None) or head.weight.shape[0]
    check_ids(targets, vocab_size, "target")
    order = sorted(range(len(pairs)), key=lambda i: -len(targets[i]))  # longest first
    scores = []
    for rows in _chunks(order, targets, max_logits_elements // vocab_size):
        inputs = encode(torch.tensor([sources[pairs[i][0]] for i in rows], device=model.device))
        labels, is_target = _padded([targets[i] for i in rows], -100)  # (rows, target)
        inputs["decoder_input_ids"] = _decoder_inputs(model, labels).to(model.device)
        inputs["decoder_attention_mask"] = is_target.long().to(model.device)
        logits = model(**inputs, use_cache=False, return_dict=True).logits  # (rows, target, vocab)
        last = is_target.sum(dim=1, keepdim=True) - num_after  # (rows, 1)
        positions = torch.arange(labels.shape[1])
        is_scored = ((positions >= first) & (positions < last)).to(logits.device)
        labels = labels.clamp(min=0).to(logits.device)
        log_probs = logits.gather(2, labels.unsqueeze(2)).squeeze(2).float()
        log_probs = log_probs - logits.float().logsumexp(dim=2)  # (rows, target)
        scores.append(log_probs.masked_fill(~is_scored, 0.0).sum(dim=1) / is_scored.sum(dim=1))
    in_order = torch.empty(len(pairs))
    in_order[order] = torch.cat(scores).cpu()
    return in_order


def _source_encoder(model, tokenizer, sources: list[str]):
    """A function from source numbers (rows,) long to what the model needs of them to decode."""
    limit = _longest(model, tokenizer, "encoder")
    pad = _first_id(getattr(model.config, "pad_token_id", None), tokenizer.pad_token_id, 0)
    token_ids = _token_ids(tokenizer, "text", sources, limit)
    token_ids = [ids or [_first_id(tokenizer.eos_token_id, pad)] for ids in token_ids]
    check_ids(token_ids, model.get_input_embeddings().weight.shape[0], "source")
    input_ids, mask = (tensor.to(model.device) for tensor in _padded(token_ids, pad))
    mask = mask.long()  # (sources, source)
    encoder = model.get_encoder() if hasattr(model, "get_encoder") else model
    parameters = inspect.signature(model.forward).parameters.values()
    names = {parameter.name for parameter in parameters}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)

    def unencoded(rows: torch.Tensor) -> dict[str, Any]:
        rows = rows.to(mask.device)
        return {"input_ids": input_ids[rows], "attention_mask": mask[rows]}  # (rows, source)

    # `get_encoder` answers with the model itself where it finds none.
    if encoder is model or not ("encoder_outputs" in names or takes_any):
        return unencoded
    outputs = encoder(input_ids=input_ids, attention_mask=mask, return_dict=True)
    states = outputs.last_hidden_state  # (sources, source, d_model)

    def encoded(rows: torch.Tensor) -> dict[str, Any]:
        # Of the encoder's own class: mixtures of experts read fields that others have not. And with
        # the tokens, though nothing encodes them again: without them FSMT leaves out its causal mask.
        repeated = type(outputs)(last_hidden_state=states[rows.to(states.device)])
        return {"encoder_outputs": repeated, **unencoded(rows)}

    return encoded


def _target_ids(model, tokenizer, texts: list[str]) -> tuple[list[list[int]], int, int]:
    """Token ids of each text with an end token, and how many stand in front of and behind what is scored."""
    around = tokenizer(text_target="").input_ids  # what every target has
    end = _first_id(tokenizer.eos_token_id, tokenizer.sep_token_id)
    if end is None:
        raise ValueError(
            "The rescoring tokenizer has no end token, without which no sentence can be scored. Set "
            "its `eos_token`."
        )
    limit = _longest(model, tokenizer, "decoder")
    if end not in around:
        token_ids = _token_ids(tokenizer, "text_target", texts, limit - 1)
        return [[*ids, end] for ids in token_ids], len(around), 0
    num_after = around[::-1].index(end)
    return (
        _token_ids(tokenizer, "text_target", texts, limit),
        len(around) - 1 - num_after,
        num_after,
    )


def _token_ids(tokenizer, side: str, texts: list[str], limit: int) -> list[list[int]]:
    token_ids = tokenizer(**{side: texts}, verbose=False).input_ids
    too_long = [i for i, ids in enumerate(token_ids) if len(ids) > limit]
    if too_long:
        long_texts = [texts[i] for i in too_long]
        cut = tokenizer(**{side: long_texts}, truncation=True, max_length=limit).input_ids
        for i, ids in zip(too_long, cut, strict=True):
            token_ids[i] = ids
        what = "sources" if side == "text" else "candidates"
        logger.warning(
            f"{len(too_long)} of {len(texts)} different {what} are longer than the {limit} tokens that "
            "the rescoring model can read; they were cut there, and scored as they are then."
        )
    return token_ids


def _longest(model, tokenizer, side: str) -> int:
    """How many tokens the "encoder" or the "decoder" of the model can read."""
    limits = [tokenizer.model_max_length]
    for config in (model.config, getattr(model.config, side, None)):
        for name in (f"max_{side}_position_embeddings", "max_position_embeddings"):
            limits.append(getattr(config, name, None) or limits[0])
    return min(limits)


def _first_id(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)


def _padded(rows: list[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded at the right, (rows, longest) long, and where they are no padding, bool."""
    lengths = torch.tensor([len(row) for row in rows])
    is_token = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = torch.full(is_token.shape, padding)
    padded[is_token] = torch.tensor([i for row in rows for i in row])
    return padded, is_token


def _decoder_inputs(model, labels: torch.Tensor) -> torch.Tensor:
    """`labels` (rows, target), -100 for padding, shifted to the right as the model does in training."""
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None:
        try:
            return shift(labels)
        except (TypeError, ValueError):  # no start token in `config`: it may stand elsewhere
            pass
    generation_config = getattr(model, "generation_config", None)
    start = _first_id(
        getattr(model.config, "decoder_start_token_id", None),
        getattr(generation_config, "decoder_start_token_id", None),
    )
    if start is None:
        raise ValueError(
            f"{type(model).__name__} does not say how its decoder starts. Set "
            "model.config.decoder_start_token_id (and pad_token_id)."
        )
    shifted = labels.roll(1, dims=1)
    shifted[:, 0] = start
    return shifted.masked_fill(
        shifted == -100, _first_id(getattr(model.config, "pad_token_id", None), 0)
    )


def _chunks(order: list[int], targets: list[list[int]], max_positions: int) -> Iterator[list[int]]:
    """Parts of `order`, longest target first, of at most `max_positions` with padding, or of one row."""
    start = 0
    while start < len(order):
        num_rows = max(1, max_positions // len(targets[order[start]]))
        yield order[start : start + num_rows]
        start += num_rows


__all__ = ["autoregressive_scores", "check_rescorer"]
