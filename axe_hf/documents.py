"""Texts of many sentences: taken apart, and put together again with every line where it was."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .languages import base_language


@dataclass(frozen=True)
class Document:
    """What `split_document` makes of a text: `between[0] + sentences[0] + between[1] + ...`"""

    sentences: list[str]  # with something in each, and no white space around it
    between: list[str]  # one more: the white space and line breaks before, between and behind

    def joined(self, translations: Sequence[str]) -> str:
        """The text with a translation in the place of each sentence; with `sentences`, itself.

        Where one script puts a space between sentences and the other none, as Chinese and
        Japanese do, it is added or left out.

        Raises:
            ValueError: there are not as many translations as sentences.

        Example:
            >>> from axe_hf.documents import split_document
            >>> split_document("  One. Two.\\n").joined(["Eins.", "Zwei."])
            '  Eins. Zwei.\\n'
        """
        if len(translations) != len(self.sentences):
            got = f"got {len(translations)} for {len(self.sentences)} sentences"
            raise ValueError(f"`translations` must be one for each sentence, {got}.")
        parts = [self.between[0]]
        last = len(self.sentences) - 1
        for i, (sentence, translation) in enumerate(zip(self.sentences, translations, strict=True)):
            gap, was_wide, is_wide = self.between[i + 1], _is_wide(sentence), _is_wide(translation)
            if i < last and translation and was_wide != is_wide and gap in ("", " "):
                gap = "" if is_wide else " "
            parts += [translation, gap]
        return "".join(parts)


def split_document(
    text: str, language: str | None = None, *, split_sentences: bool = True
) -> Document:
    """The sentences of a text, and what is between them.

    A line is a paragraph: no sentence goes on in the next one, so that blank lines, indentation and
    the ends of lines (\\n, \\r\\n and Unicode's others) stay where they are. Sentences are found
    by `sentencex`, of the Wikimedia foundation (https://github.com/wikimedia/sentencex).

    Args:
        text: any text; one that is wrapped in the middle of its sentences must be unwrapped before.
        language: the text's, such as "de" or "zh_CN": abbreviations and signs at the end of a
            sentence differ. For None, and for one that sentencex does not know, English.
        split_sentences: False takes each line as one sentence, and needs no package.

    Raises:
        ImportError: sentences are to be found, and sentencex is not installed.

    Example:
        >>> from axe_hf.documents import split_document
        >>> document = split_document("Dr. Smith is in.  Come in!\\n\\nWho?\\n", "en")
        >>> document.sentences
        ['Dr. Smith is in.', 'Come in!', 'Who?']
        >>> document.between
        ['', '  ', '\\n\\n', '\\n']
    """
    lines: Iterator[str] = iter(text.splitlines(keepends=True))
    pieces = _sentences_of(lines, language) if split_sentences else lines
    sentences, between = list[str](), [""]
    for piece in pieces:
        sentence = piece.strip()
        if not sentence:
            between[-1] += piece
            continue
        start = piece.index(sentence)
        between[-1] += piece[:start]
        sentences.append(sentence)
        between.append(piece[start + len(sentence) :])
    return Document(sentences, between)


def _sentences_of(lines: Iterator[str], language: str | None) -> Iterator[str]:
    try:
        from sentencex import segment
    except ImportError as error:
        message = 'Splitting sentences needs sentencex: python -m pip install "axe-hf[documents]".'
        raise ImportError(message) from error
    code = base_language(language or "en")
    for line in lines:
        start = 0
        # It takes no halves of characters; what is in their place is as long.
        for piece in segment(code, re.sub("[\ud800-\udfff]", "\ufffd", line)):
            yield line[start : start + len(piece)]
            start += len(piece)
        yield line[start:]  # nothing, but never to be lost


def _is_wide(text: str) -> bool:
    """Whether it ends as texts without spaces do: in 。, or a sign of Chinese, or Japanese."""
    last = text[-1:] or " "
    is_emoji = last < "\u2e80" or "\U0001f000" <= last < "\U00020000"
    return unicodedata.east_asian_width(last) in "WF" and not is_emoji
