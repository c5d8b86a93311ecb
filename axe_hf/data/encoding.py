"""Token ids of many texts at once, in one array and not in a list for each; word by word where it
makes no difference, for then a word has to be tokenized once only."""

from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

# Words that are kept, twice: those met lately, and those before. About 30 MB.
_MOST_WORDS = 2**16
_LONGEST_WORD = 40  # characters; what is longer, as whole sentences without spaces, hardly returns


class TokenColumn(NamedTuple):
    """Lists of token ids, one behind the other: a third of the memory of Python's numbers."""

    tokens: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "TokenColumn":
        lengths = np.array([*map(len, rows)], np.int64)
        tokens = np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
        return cls(tokens, lengths.cumsum())

    @classmethod
    def joined(cls, columns: "Sequence[TokenColumn]") -> "TokenColumn":
        lengths = np.concatenate([column.lengths() for column in columns])
        return cls(np.concatenate([column.tokens for column in columns]), lengths.cumsum())

    def lengths(self) -> np.ndarray:
        return np.diff(self.ends, prepend=0)

    def taken(self, indices: np.ndarray) -> "TokenColumn":
        """These rows, in this order."""
        lengths = self.lengths()[indices]
        ends = lengths.cumsum()
        shifts: np.ndarray = np.repeat(self.ends[indices] - ends, lengths)
        return TokenColumn(self.tokens[np.arange(len(shifts)) + shifts], ends)

    def rows(self) -> list[list[int]]:
        tokens, ends = self.tokens.tolist(), self.ends.tolist()
        return [tokens[i:j] for i, j in zip([0, *ends], ends, strict=False)]


class WordIds:
    """Ids of texts as a tokenizer of `train_tokenizer` makes them, looked up word by word.

    Its normalizer looks at a character, or at white space, and its pieces begin at spaces: so the
    ids of a text are those of its words, one after the other (see `are_those_of_words`).

    Args:
        encode: makes the ids of each of several texts, without `</s>`.
        end: the id of `</s>`, which each text gets.
    """

    def __init__(self, encode: Callable[[list[str]], list[list[int]]], end: int):
        self.encode, self.end = encode, array("i", [end]).tobytes()
        self.known: dict[str, bytes] = {}
        self.older: dict[str, bytes] = {}

    def __call__(self, texts: Sequence[str]) -> TokenColumn:
        words = [text.split(" ") for text in texts]
        ids, end = self._ids_of({*chain.from_iterable(words)}).__getitem__, self.end
        rows = [b"".join([*map(ids, one), end]) for one in words]
        lengths = np.array([*map(len, rows)], np.int64) // len(end)
        return TokenColumn(np.frombuffer(b"".join(rows), np.int32), lengths.cumsum())

    def _ids_of(self, words: set[str]) -> dict[str, bytes]:
        """The ids of all `words`, and of others. Threads may call this at the same time: what one
        of them got may grow, but loses nothing."""
        if len(self.known) > _MOST_WORDS:
            self.known, self.older = {}, self.known
        known, older = self.known, self.older
        new = [word for word in words if word not in known]
        found = {word: older[word] for word in new if word in older}
        if unseen := [word for word in new if word not in found]:
            ids = (array("i", one).tobytes() for one in self.encode(unseen))
            found.update(zip(unseen, ids, strict=True))
        kept = {word: ids for word, ids in found.items() if len(word) <= _LONGEST_WORD}
        known.update(kept)
        return known if len(kept) == len(found) else known | found


def are_those_of_words(tokenizer: Any, like: Any) -> bool:
    """Whether a text's ids are those of its words between spaces, one after the other, and `</s>`.

    Args:
        tokenizer: any of Transformers.
        like: a backend of which that is known: as it, all is that treats texts in the same way.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or getattr(backend.model, "dropout", None):
        return False
    for name in ("normalizer", "pre_tokenizer", "post_processor"):
        step, same = getattr(backend, name), getattr(like, name)
        if step is None or step.__getstate__() != same.__getstate__():
            return False
    # Others are found in texts, such as tags: before spaces are looked at, and inside words.
    found = [
        token
        for token in backend.get_added_tokens_decoder().values()
        if not (token.special and tokenizer.split_special_tokens)
    ]
    is_plain = (not (t.normalized or t.single_word or " " in t.content) for t in found)
    return all(is_plain) and tokenizer("").input_ids == [tokenizer.eos_token_id]
