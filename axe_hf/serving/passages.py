"""What clients send, plain text or HTML, as sentences, and put together again."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..documents import Document, split_document

# What is not translated of a page: comments, programs, what must stay as it is, and every tag.
_MARKUP = re.compile(
    r"(<!--.*?-->|<(script|style|code|pre|textarea)\b.*?</\2\s*>|<[!?/a-z][^<>]*>)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Passage:
    """A text taken apart: what stays as it is, and what is translated, in their order."""

    parts: list[str | Document]
    is_html: bool = False

    @property
    def sentences(self) -> list[str]:
        documents = (part for part in self.parts if isinstance(part, Document))
        return [sentence for document in documents for sentence in document.sentences]

    def joined(self, translations: Iterator[str]) -> str:
        """The text with the next of `translations` in the place of each sentence."""
        return "".join(self._translated(part, translations) for part in self.parts)

    def _translated(self, part: str | Document, translations: Iterator[str]) -> str:
        if isinstance(part, str):
            return part
        text = part.joined([next(translations) for _ in part.sentences])
        return html.escape(text, quote=False) if self.is_html else text


def split_passage(
    text: str, language: str, *, is_html: bool = False, split_sentences: bool = True
) -> Passage:
    """Take a text apart.

    Of HTML each stretch between two tags is translated by itself, so that every tag stays; a
    sentence with a word in bold is three of them. Scripts, styles, `<code>` and `<pre>` stay.

    Example:
        >>> from axe_hf.serving.passages import split_passage
        >>> passage = split_passage("<p>Salt &amp; pepper.</p>", "en", is_html=True)
        >>> passage.sentences
        ['Salt & pepper.']
        >>> passage.joined(iter(["Salz & Pfeffer."]))
        '<p>Salz &amp; Pfeffer.</p>'
    """
    if not is_html:
        return Passage([split_document(text, language, split_sentences=split_sentences)])
    parts: list[str | Document] = []
    end = 0
    for match in _MARKUP.finditer(text):
        parts += [_stretch(text[end : match.start()], language, split_sentences), match[0]]
        end = match.end()
    parts.append(_stretch(text[end:], language, split_sentences))
    return Passage(parts, is_html=True)


def _stretch(text: str, language: str, split_sentences: bool) -> Document:
    return split_document(html.unescape(text), language, split_sentences=split_sentences)
