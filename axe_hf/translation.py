"""Translate texts with a trained model."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from .cmlm import CmlmForConditionalGeneration
from .cmlm.configuration_mask_predict import SETTINGS, require
from .pipeline import DECODED, cut_source, in_evaluation_mode, own_tokenizer, source_ids
from .rescoring import Rescorer, batches_by_length, check_ids, check_rescorer, generate_rescored

logger = logging.getLogger(__name__)
_first_number = ContextVar("number of the first text in warnings", default=1)

# Arguments of `generate` that hold something for each sentence of one batch, or ask for it.
_OF_ONE_BATCH = ["input_ids", "attention_mask", "encoder_outputs", "decoder_input_ids"]
_OF_ONE_BATCH += ["target_lengths", "streamer", "return_dict_in_generate", "output_history"]


def translate(
    model: CmlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    batch_size: int = 64,
    max_tokens_per_batch: int = 8192,
    show_progress: bool | None = None,
    rescore_with: Rescorer | None = None,
    target_lang: str | None = None,
    **generation: Any,
) -> list[str]:
    """Translate sentences, one by one in meaning, in batches of similar length in practice.

    A text without a visible character (empty, white space, zero-width characters, a byte order
    mark) gives an empty translation. A text longer than the model's `max_source_length` is cut
    there, and one warning names the numbers of all such texts.

    Args:
        model: it runs as in evaluation mode, whatever mode it is in, and is left as it is.
        tokenizer: the tokenizer the model was trained with.
        texts: sentences of the source language, in a list, a column of a data set, a file ...
        batch_size (default 64): sentences translated at once, at most.
        max_tokens_per_batch (default 8192): source tokens translated at once, padding included, at
            most; a sentence that is longer by itself makes a batch of its own.
        show_progress: whether to draw a progress bar; by default only on a terminal.
        rescore_with: an autoregressive encoder-decoder and its tokenizer, which choose among the
            length candidates (Gu et al., ICLR 2018, "noisy parallel decoding").
        target_lang: of a model that knows several target languages, the one to translate into, such
            as "de"; without it each text begins with a tag that says so, `>>de<<`.
        **generation: settings of `MaskPredictGenerationConfig`, such as `num_iterations`; none that
            belong to one batch: call `model.generate` for these.

    Returns:
        One translation for each text, in the order of `texts`.

    Raises:
        TypeError: `texts` is one string or holds something else, or `model` cannot translate.
        ValueError: a limit below 1, a setting of the decoding out of its range or made for one
            batch, a target language that is missing or that the model does not know, a tokenizer
            that is not the model's, or weights that are missing or not numbers.

    Example:
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer
        >>> from axe_hf.translation import translate
        >>> tokenizer = train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)
        >>> config = CmlmConfig(vocab_size=len(tokenizer), encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config)
        >>> translations = translate(model, tokenizer, ["A dog barks.", ""], num_iterations=2)
        >>> len(translations), translations[1]
        (2, '')
    """
    if generation.get("num_return_sequences") not in (None, 1):
        advice = "call translate_with_scores(...) or model.generate(...) for more"
        raise ValueError(f"translate() has no use for `num_return_sequences`: {advice}.")
    generation |= {"batch_size": batch_size, "max_tokens_per_batch": max_tokens_per_batch}
    generation |= {"show_progress": show_progress, "rescore_with": rescore_with}
    generation["target_lang"] = target_lang
    return [found[0].text for found in translate_with_scores(model, tokenizer, texts, **generation)]


@dataclass(frozen=True)
class Translation:
    """What `translate_with_scores` returns."""

    text: str
    score: float  # that it was ranked by, nats per token; 0 where nothing is said


def translate_with_scores(
    model: CmlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    batch_size: int = 64,
    max_tokens_per_batch: int = 8192,
    show_progress: bool | None = None,
    rescore_with: Rescorer | None = None,
    target_lang: str | None = None,
    **generation: Any,
) -> list[list[Translation]]:
    """As `translate`, the `num_return_sequences` best (default 1) of each text, best first.

    Example:
        >>> several = {"num_length_candidates": 5, "num_return_sequences": 2}
        >>> translate_with_scores(model, tokenizer, ["Er ging."], **several)  # doctest: +SKIP
        [[Translation(text='He went.', score=-0.21), Translation(text='He left.', score=-0.34)]]
    """
    sentences = _checked_texts(texts)
    _check_arguments(model, tokenizer, batch_size, max_tokens_per_batch, generation)
    model, tokenizer = in_evaluation_mode(model), own_tokenizer(tokenizer)
    generate: Callable[..., Any] = model.generate
    if rescore_with is not None:
        check_rescorer(rescore_with)
        generate = partial(generate_rescored, model, tokenizer, rescore_with)
    generation |= {"output_history": False, "return_dict_in_generate": True}
    num_returned = generation.setdefault("num_return_sequences", 1) or 1
    token_ids = _encode(sentences, tokenizer, model.config, target_lang)
    translations = [[Translation("", 0.0)] * num_returned for _ in sentences]
    disable = None if show_progress is None else not show_progress  # tqdm: None asks the terminal
    with tqdm(total=len(sentences), desc="Translating", unit=" sentences", disable=disable) as bar:
        bar.update(sum(not ids for ids in token_ids))
        for batch in batches_by_length(token_ids, max_tokens_per_batch, batch_size):
            inputs = padded([token_ids[i] for i in batch], tokenizer).to(model.device)
            output = generate(**inputs, **generation)  # a PEFT model's takes nothing by position
            found = iter(translations_of(output, tokenizer))
            for i in batch:
                translations[i] = list(islice(found, num_returned))
            bar.update(len(batch))
    return translations


def padded(token_ids: list[list[int]], tokenizer: Any) -> Any:
    """A batch of sources, `input_ids` and `attention_mask` (batch, source)."""
    # The model counts its positions from the left, whatever the tokenizer was set to.
    return tokenizer.pad({"input_ids": token_ids}, padding_side="right", return_tensors="pt")


def translations_of(output: Any, tokenizer: Any) -> list[Translation]:
    """What a `MaskPredictOutput` says, (batch * num_return_sequences,)."""
    texts = tokenizer.batch_decode(output.sequences, **DECODED)
    return [*map(Translation, texts, output.ranking_scores.tolist())]


@contextmanager
def numbered_from(first: int) -> Iterator[None]:
    """Let warnings call the first text of a call number `first`, where texts come bit by bit.

    Example:
        >>> with numbered_from(65):  # doctest: +SKIP
        ...     translations = translate(model, tokenizer, texts[64:128])
    """
    token = _first_number.set(first)
    try:
        yield
    finally:
        _first_number.reset(token)


def _checked_texts(texts: Iterable[str]) -> list[str]:
    # The keys of a mapping, such as a tokenizer gives, are no sentences, and a set has no order.
    is_sequence = isinstance(texts, Iterable) or hasattr(texts, "__getitem__")  # a torch data set
    if isinstance(texts, str | bytes | Mapping | AbstractSet) or not is_sequence:
        kind = type(texts).__name__
        raise TypeError(f"`texts` must be a list of sentences, got {kind}. For one pass [text].")
    sentences = list(texts)
    for number, text in enumerate(sentences, start=1):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"`texts` must hold strings, got {kind} as number {number}.")
    return sentences


def _check_arguments(model, tokenizer, batch_size, max_tokens_per_batch, generation) -> None:
    if not hasattr(model, "generate") or not hasattr(model.config, "check_tokenizer"):
        kind, advice = type(model).__name__, "`import axe_hf`, load it by AutoModelForSeq2SeqLM."
        raise TypeError(f"`model` must be a CmlmForConditionalGeneration, got {kind}. {advice}")
    model.config.check_tokenizer(tokenizer)
    limits = {"batch_size": batch_size, "max_tokens_per_batch": max_tokens_per_batch}
    require({"at least 1": " ".join(limits)}, limits, optional=False)
    SETTINGS["num_return_sequences"].check(generation.get("num_return_sequences"))
    for name in _OF_ONE_BATCH:
        if generation.get(name) is not None and generation[name] is not False:
            problem = f"`{name}` belongs to one batch, and translate() makes batches of its own"
            raise ValueError(f"{problem}. Call model.generate(...) for each batch.")


def _encode(sentences: list[str], tokenizer, config, target_lang: str | None) -> list[list[int]]:
    """Token ids of each sentence with its `</s>`, cut at the limit; none where nothing is said."""
    if target_lang is not None:
        config.tagged("", target_lang)  # an unknown one is wrong though there be no sentence
    if not sentences:
        return []
    max_length = config.max_source_length
    token_ids = source_ids(sentences, tokenizer, config, target_lang)
    check_ids(token_ids, config.vocab_size, "tokenizer's")
    numbered = enumerate(token_ids, start=_first_number.get())
    too_long = [number for number, ids in numbered if len(ids) > max_length]
    if too_long:
        shown = ", ".join(map(str, too_long[:20])) + (", ..." if len(too_long) > 20 else "")
        problem = f"{len(too_long)} of {len(sentences)} texts are longer than the max_source_length"
        problem += f" of {max_length} tokens and were cut there: line {shown}"
        logger.warning(f"{problem}. Split them into sentences.")
    return [
        cut_source(ids, max_length, tokenizer) if len(ids) > max_length else ids
        for ids in token_ids
    ]
