"""Ranking by an autoregressive model: noisy parallel decoding (Gu et al., ICLR 2018, section 4)."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .cmlm import CmlmForConditionalGeneration, MaskPredictOutput
from .cmlm.generation_cmlm import distinct_first, settings_of_call
from .cmlm.loss_axe import IGNORE_INDEX
from .cmlm.mask_predict import MAX_LOGITS_ELEMENTS, possible_lengths
from .data.collator import padded
from .pipeline import DECODED, in_evaluation_mode, language_tags, own_tokenizer, valid_unicode

logger = logging.get_logger(__name__)

Rescorer = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def generate_rescored(
    model: CmlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    rescore_with: Rescorer,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    target_lengths: Any = None,
    generation_config: Any = None,
    generator: torch.Generator | None = None,
    **generation: Any,
) -> MaskPredictOutput:
    """Decode every length candidate and keep the one that an autoregressive model likes best.

    `input_ids` and `attention_mask` are (batch, source) long, the settings those of
    `model.generate`; both models run as in evaluation mode, and the other one reads the texts that
    `tokenizer` decodes. There is a row for each sentence, or as many as the call's
    `num_return_sequences`, whose `ranking_scores` are the mean log-probabilities by the other
    model, in nats per token. Of equally good candidates the one of the more probable length wins.

    Example:
        >>> output = generate_rescored(  # doctest: +SKIP
        ...     model, tokenizer, (marian, marian_tokenizer), input_ids, num_length_candidates=5
        ... )
    """
    check_rescorer(rescore_with)
    model = in_evaluation_mode(model)
    saved = model.generation_config if generation_config is None else generation_config
    settings = settings_of_call(model.config, saved, generation)
    lengths = possible_lengths(model.config.max_target_length, settings)
    num_candidates = min(settings.num_length_candidates, len(set(lengths)))
    if target_lengths is not None:  # (batch,) or (batch, candidates)
        num_candidates = torch.as_tensor(target_lengths).reshape(len(input_ids), -1).shape[1]
        generation["target_lengths"] = target_lengths
    num_returned = generation.get("num_return_sequences") or 1
    num_candidates = max(num_candidates, num_returned)  # `generate` refuses too many
    generation |= {"num_return_sequences": num_candidates, "return_dict_in_generate": True}
    generation |= {"generation_config": generation_config, "generator": generator}
    output: Any = model.generate(input_ids=input_ids, attention_mask=attention_mask, **generation)
    texts = tokenizer.batch_decode(output.sequences, **DECODED)
    # The more probable length first, then the shorter one, so that it wins among equals.
    log_probs, lengths = output.length_log_probs.tolist(), output.lengths.tolist()
    flat = sorted(range(len(texts)), key=lambda i: (i // num_candidates, -log_probs[i], lengths[i]))
    rows = output.lengths.new_tensor(flat).view(-1, num_candidates)  # (batch, candidates)
    candidates = [[texts[i] for i in row] for row in rows.tolist()]
    # The tag of a target language is a sign for this model alone.
    tags = tokenizer.convert_tokens_to_ids(language_tags(model.config))
    is_tag = torch.isin(input_ids, input_ids.new_tensor(tags))  # (batch, source)
    untagged = input_ids.masked_fill(is_tag, tokenizer.pad_token_id)
    sources = tokenizer.batch_decode(untagged, **DECODED | {"use_source_tokenizer": True})
    if prefix := getattr(model.config, "source_prefix", None):  # it, too; as the tokenizer has it
        ids = tokenizer(prefix, verbose=False).input_ids
        prefix = tokenizer.decode(ids, **DECODED | {"use_source_tokenizer": True}).strip()
        sources = [source.strip().removeprefix(prefix).strip() for source in sources]
    scores = autoregressive_scores(*rescore_with, sources, candidates).to(rows.device)
    best = scores.argsort(dim=1, descending=True, stable=True)  # (batch, candidates)
    number = {text: i for i, text in enumerate(texts)}
    says = best.new_tensor([[number[text] for text in row] for row in candidates])
    best = distinct_first(best, says[:, :, None])[:, :num_returned]
    chosen = rows.gather(1, best).flatten()
    kept = {name: value[chosen] for name, value in output.items() if name != "history"}
    kept["ranking_scores"] = scores.gather(1, best).flatten()
    if output.history is not None:
        kept["history"] = {name: steps[:, chosen] for name, steps in output.history.items()}
    return MaskPredictOutput(**kept)


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

    with the tokens of `tokenizer`, as a length penalty of 1 gives them (Gu et al. 2018, section 4;
    https://arxiv.org/abs/1711.02281). What the tokenizer puts around every target alike (a BOS, the
    code of the language) is read and not scored: generation is given it too. Each source is encoded
    once, equal candidates are scored once, and texts too long for the model are cut with a warning.

    Args:
        model: an encoder-decoder with a head over the vocabulary (Marian, BART, T5 ...). It runs
            where it is, in its own dtype and as in evaluation mode; its mode is not touched.
        tokenizer: of `model`, with `src_lang` and `tgt_lang` set if it has them (mBART, NLLB ...).
        sources: (batch) strings, with the prefix that the model may want ("translate English to
            German: ").
        candidates: (batch, candidates) strings; an empty one scores its end token alone.
        max_logits_elements: the largest (rows, target, vocab) tensor of logits held at once, in
            elements (2**24, 64 MiB in fp32); a single row may exceed it.

    Returns:
        (batch, candidates) fp32 on the CPU, in nats per token, at most 0; best is largest.

    Raises:
        TypeError: `model` or `tokenizer` is something else, or a text is no string.
        ValueError: sources and candidates, or model and tokenizer, do not match, or a score is NaN.

    Example:
        >>> from axe_hf import train_tokenizer
        >>> from axe_hf.rescoring import autoregressive_scores
        >>> from transformers import MarianConfig, MarianMTModel
        >>> tokenizer = train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)
        >>> ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
        >>> model = MarianMTModel(MarianConfig(vocab_size=len(tokenizer), d_model=16, **ids))
        >>> candidates = [["Ein Hund bellt.", "Ein Ein bellt."], ["Hund", ""]]
        >>> autoregressive_scores(model, tokenizer, ["A dog barks.", "dog"], candidates).shape
        torch.Size([2, 2])
    """
    check_rescorer((model, tokenizer))
    _check_texts(sources, candidates)
    limit = max_logits_elements
    if not isinstance(limit, int) or limit < 1:
        raise ValueError(f"`max_logits_elements` must be an integer >= 1, got {limit!r}.")
    rows = zip(sources, candidates, strict=True)
    pairs = [(valid_unicode(x), valid_unicode(y)) for x, row in rows for y in row]
    if not pairs:
        return torch.zeros(len(sources), 0)
    number = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    model, tokenizer = in_evaluation_mode(model), own_tokenizer(tokenizer)
    with torch.no_grad():
        scores = _scores_of_pairs(model, tokenizer, list(number), limit)
    if scores.isnan().any():
        problem = f"The rescoring model's log-probabilities are not numbers in {model.dtype}"
        raise ValueError(f"{problem}. Load it in torch.float32, or look at its weights.")
    return scores[[number[pair] for pair in pairs]].view(len(sources), -1)  # (batch, candidates)


def _scores_of_pairs(model, tokenizer, pairs, max_logits_elements) -> torch.Tensor:
    """Mean log-probability of each second text given the first, (pairs,) fp32 on the CPU."""
    sources = {source: i for i, source in enumerate(dict.fromkeys(x for x, _ in pairs))}
    encode = _source_encoder(model, tokenizer, list(sources))
    targets, first, num_after = target_ids(model, tokenizer, [y for _, y in pairs])
    head = model.get_output_embeddings()
    vocab_size = getattr(head, "out_features", None) or head.weight.shape[0]
    check_ids(targets, vocab_size, "rescoring tokenizer's target")
    order, scores = [], []
    for rows in batches_by_length(targets, max_logits_elements // vocab_size):
        order += rows
        inputs = encode(torch.tensor([sources[pairs[i][0]] for i in rows], device=model.device))
        labels, is_target = padded([targets[i] for i in rows], IGNORE_INDEX)  # (rows, target)
        inputs["decoder_input_ids"] = _decoder_inputs(model, labels).to(model.device)
        inputs["decoder_attention_mask"] = is_target.long().to(model.device)
        logits = model(**inputs, use_cache=False, return_dict=True).logits  # (rows, target, vocab)
        last = is_target.sum(dim=1, keepdim=True) - num_after  # (rows, 1)
        positions = torch.arange(labels.shape[1])
        is_scored = ((positions >= first) & (positions < last)).to(logits.device)
        labels = labels.clamp(min=0).to(logits.device)
        log_probs = logits.gather(2, labels[:, :, None])[:, :, 0].float()
        log_probs = log_probs - logits.float().logsumexp(dim=2)  # (rows, target)
        scores.append(log_probs.masked_fill(~is_scored, 0.0).sum(dim=1) / is_scored.sum(dim=1))
    return torch.cat(scores).cpu()[torch.tensor(order).argsort()]


def _source_encoder(model, tokenizer, sources: list[str]):
    """A function from source numbers (rows,) long to what the model needs of them to decode."""
    limit = token_limit(model, tokenizer, "encoder")
    pad = _first_id(getattr(model.config, "pad_token_id", None), tokenizer.pad_token_id, 0)
    token_ids = _token_ids(tokenizer, "text", sources, limit)
    token_ids = [ids or [_first_id(tokenizer.eos_token_id, pad)] for ids in token_ids]
    num_known = model.get_input_embeddings().weight.shape[0]
    check_ids(token_ids, num_known, "rescoring tokenizer's source")
    input_ids, mask = (tensor.to(model.device) for tensor in padded(token_ids, pad))
    mask = mask.long()  # (sources, source)
    outputs, encoder = None, model.get_encoder() if hasattr(model, "get_encoder") else model
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    # `get_encoder` answers with the model itself where it finds none.
    if encoder is not model and ("encoder_outputs" in parameters or takes_any):
        outputs = encoder(input_ids=input_ids, attention_mask=mask, return_dict=True)

    def encode(rows: torch.Tensor) -> dict[str, Any]:
        # With encoded states, too: without the tokens FSMT leaves out its causal mask.
        inputs = {"input_ids": input_ids[rows], "attention_mask": mask[rows]}  # (rows, source)
        if outputs is not None:
            # Of the encoder's own class: mixtures of experts read fields that others have not.
            states = outputs.last_hidden_state  # (sources, source, d_model)
            states = states[rows.to(states.device)]
            inputs["encoder_outputs"] = type(outputs)(last_hidden_state=states)
        return inputs

    return encode


def target_ids(model, tokenizer, texts: list[str]) -> tuple[list[list[int]], int, int]:
    """Token ids of each text, ended, and how many stand before and behind what is scored."""
    around = tokenizer(text_target="").input_ids  # what every target has
    end = _first_id(tokenizer.eos_token_id, tokenizer.sep_token_id)
    if end is None:
        raise ValueError("The rescoring tokenizer has no end token to score. Set its `eos_token`.")
    limit = token_limit(model, tokenizer, "decoder")
    missing = [] if end in around else [end]
    token_ids = _token_ids(tokenizer, "text_target", texts, limit - len(missing))
    num_after = [*around, *missing][::-1].index(end)
    num_before = len(around) + len(missing) - 1 - num_after
    return [[*ids, *missing] for ids in token_ids], num_before, num_after


def _token_ids(tokenizer, side: str, texts: list[str], limit: int) -> list[list[int]]:
    token_ids = tokenizer(**{side: texts}, verbose=False).input_ids
    too_long = [i for i, ids in enumerate(token_ids) if len(ids) > limit]
    if too_long:
        cut = tokenizer(**{side: [texts[i] for i in too_long]}, truncation=True, max_length=limit)
        for i, ids in zip(too_long, cut.input_ids, strict=True):
            token_ids[i] = ids
        what = "sources" if side == "text" else "candidates"
        problem = f"{len(too_long)} of {len(texts)} different {what} are longer than the {limit}"
        logger.warning(f"{problem} tokens that the rescoring model can read, and were cut there.")
    return token_ids


def token_limit(model, tokenizer, side: str) -> int:
    """How many tokens the "encoder" or the "decoder" of the model can read."""
    configs = (model.config, getattr(model.config, side, None))
    names = (f"max_{side}_position_embeddings", "max_position_embeddings")
    limits = [getattr(config, name, None) for config in configs for name in names]
    return min([tokenizer.model_max_length, *filter(None, limits)])


def _first_id(*ids: int | None) -> Any:
    return next((i for i in ids if i is not None), None)


def _decoder_inputs(model, labels: torch.Tensor) -> torch.Tensor:
    """`labels` (rows, target), -100 for padding, shifted to the right as in training."""
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None:
        with suppress(TypeError, ValueError):  # no start token in `config`: it may stand elsewhere
            return shift(labels)
    configs = (model.config, getattr(model, "generation_config", None))
    start = _first_id(*(getattr(config, "decoder_start_token_id", None) for config in configs))
    if start is None:
        kind = type(model).__name__
        raise ValueError(f"{kind} does not say its start: set `config.decoder_start_token_id`.")
    shifted = labels.roll(1, dims=1)
    shifted[:, 0] = start
    pad = _first_id(getattr(model.config, "pad_token_id", None), 0)
    return shifted.masked_fill(shifted == IGNORE_INDEX, pad)


def batches_by_length(
    token_ids: list[list[int]], max_tokens: int, batch_size: int | None = None
) -> Iterator[list[int]]:
    """Indices of the rows with tokens, longest first: too little memory shows at once.

    A batch has at most `max_tokens`, padding included, or a single row.
    """
    order = sorted((i for i, ids in enumerate(token_ids) if ids), key=lambda i: -len(token_ids[i]))
    start = 0
    while start < len(order):
        num_rows = max(1, max_tokens // len(token_ids[order[start]]))
        end = start + min(num_rows, batch_size or num_rows)
        yield order[start:end]
        start = end


def check_rescorer(rescore_with: Any) -> None:
    """Raise TypeError where `rescore_with` is no model and tokenizer that can rank translations."""
    is_pair = isinstance(rescore_with, tuple | list)
    if not is_pair or len(rescore_with) != 2:
        kind = type(rescore_with).__name__ + (f" of {len(rescore_with)}" if is_pair else "")
        raise TypeError(f"`rescore_with` must be a pair (model, tokenizer), got {kind}.")
    model, tokenizer = rescore_with
    check_autoregressive(model, tokenizer, "rescoring")


def check_autoregressive(model: Any, tokenizer: Any, role: str) -> None:
    """Raise TypeError where they are no model and tokenizer that translate word by word.

    `role` is what the error calls them: the "rescoring" model, the "teacher" model.
    """
    # Not isinstance: a PEFT model is none of Transformers' classes.
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        needed, advice = "be a model of Transformers", "Load it by AutoModelForSeq2SeqLM."
    elif getattr(model.config, "model_type", None) == "cmlm":
        needed, advice = "be autoregressive", "Use a translation model, such as Marian."
    elif not getattr(model.config, "is_encoder_decoder", False):
        needed, advice = "be an encoder-decoder", "Use a translation model, such as Marian."
    elif getattr(model, "get_output_embeddings", lambda: None)() is None:
        needed, advice = "have a head over words", "Use AutoModelForSeq2SeqLM, not AutoModel."
    elif isinstance(tokenizer, PreTrainedTokenizerBase):
        return
    else:
        kind = type(tokenizer).__name__
        raise TypeError(f"The {role} tokenizer must be a tokenizer of Transformers, got {kind}.")
    raise TypeError(f"The {role} model must {needed}, got {type(model).__name__}. {advice}")


def _check_texts(sources: Any, candidates: Any) -> None:
    """Lists of strings, as many candidates for each source, or an error."""
    lists = {"sources": sources, "candidates": candidates}
    if isinstance(candidates, list | tuple):
        lists |= {f"candidates[{i}]": row for i, row in enumerate(candidates)}
    for name, texts in lists.items():
        if not isinstance(texts, list | tuple):
            raise TypeError(f"`{name}` must be a list, got {type(texts).__name__}.")
    if len(sources) != len(candidates):
        expected = f"`candidates` must have a list for each of the {len(sources)} `sources`"
        raise ValueError(f"{expected}, got {len(candidates)} lists.")
    for i, row in enumerate(candidates):
        if len(row) != len(candidates[0]):
            got = f"{len(candidates[0])} for the first and {len(row)} for sources[{i}]"
            raise ValueError(f"Every source must have as many candidates, got {got}.")
        for text in (sources[i], *row):
            if not isinstance(text, str):
                kind = f"{type(text).__name__} at [{i}]"
                raise TypeError(f"`sources` and `candidates` must hold strings, got {kind}.")


def check_ids(token_ids: list[list[int]], vocab_size: int, which: str) -> None:
    """Raise ValueError for an id that the model has no embedding for."""
    largest = max(max(ids, default=0) for ids in token_ids)
    if largest >= vocab_size:
        problem = f"The {which} token {largest} is unknown to the model, which has {vocab_size}"
        raise ValueError(f"{problem} entries. Do model and tokenizer belong together?")
