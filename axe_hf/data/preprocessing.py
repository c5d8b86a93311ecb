"""Turn sentence pairs into token ids."""

from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)


def tokenize_translations(
    dataset: "Dataset",
    tokenizer: PreTrainedTokenizerBase,
    *,
    source_lang: str,
    target_lang: str,
    max_source_length: int,
    max_target_length: int,
) -> "Dataset":
    """Tokenize sentence pairs and drop those that are empty or too long.

    Nothing is truncated: half a sentence is not the translation of a whole one. How many pairs are
    dropped is logged. To score translations use the texts, of which none is dropped.

    Args:
        dataset: a `datasets.Dataset` with the column `translation`, see `load_translations`.
        tokenizer: tokenizer that appends `</s>`, see `train_tokenizer`.
        source_lang, target_lang: keys of the two sides, such as "en" and "de".
        max_source_length, max_target_length: longest sides kept, in tokens with `</s>`.

    Returns:
        A `datasets.Dataset` with `input_ids` and `labels`, lists of ids that end in `</s>`.

    Raises:
        ValueError: a column or language is missing, or no pair is left.

    Example:
        >>> from datasets import Dataset
        >>> from axe_hf.data import train_tokenizer
        >>> pairs = Dataset.from_dict({"translation": [{"en": "good day", "de": "guten Tag"}]})
        >>> tokenizer = train_tokenizer(["good day", "guten Tag"] * 9, vocab_size=300)
        >>> tokenized = tokenize_translations(
        ...     pairs, tokenizer, source_lang="en", target_lang="de",
        ...     max_source_length=8, max_target_length=8,
        ... )
        >>> tokenizer.convert_ids_to_tokens(tokenized[0]["labels"])
        ['▁guten', '▁Tag', '</s>']
    """
    if "translation" not in dataset.column_names:
        raise ValueError(f"`dataset` lacks the column 'translation', got {dataset.column_names}.")
    found = sorted(dataset[0]["translation"]) if len(dataset) else []
    languages = {"source_lang": source_lang, "target_lang": target_lang}
    for name, language in languages.items():
        if found and language not in found:
            raise ValueError(f"`{name}` must be one of `dataset`, {found}, got {language!r}.")

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        sides = [[pair[lang] or "" for pair in batch["translation"]] for lang in languages.values()]
        pairs = zip(*(tokenizer(side, verbose=False).input_ids for side in sides), strict=True)
        kept = [
            (source, target)
            for source, target in pairs
            # One token is the bare </s> of an empty text.
            if 1 < len(source) <= max_source_length and 1 < len(target) <= max_target_length
        ]
        return {"input_ids": [pair[0] for pair in kept], "labels": [pair[1] for pair in kept]}

    columns = dataset.column_names
    tokenized = dataset.map(tokenize, batched=True, remove_columns=columns, desc="Tokenizing")
    num_dropped = len(dataset) - len(tokenized)
    limits = f"max_source_length={max_source_length}, max_target_length={max_target_length}"
    if not len(tokenized):
        raise ValueError(
            f"`dataset` must have a pair within {limits}, got {num_dropped} pairs, all empty or "
            "longer. Raise the limits."
        )
    if num_dropped:
        logger.warning(
            f"Dropped {num_dropped} of {len(dataset)} sentence pairs: empty, or over {limits}."
        )
    return tokenized
