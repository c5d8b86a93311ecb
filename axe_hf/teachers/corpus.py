"""What is to be translated: the sources of all data, in order, and the translations they had."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.reading import load_sources
from ..pipeline import is_visible


@dataclass(frozen=True)
class Corpus:
    """The sentences of all data, joined; `originals[i]` holds the right translations of a source.

    They are none for plain text.
    """

    names: list[str]  # of the data, without the folders they are in
    sources: list[str]
    originals: list[list[str]]
    num_read: int  # with those that show nothing, which are not in `sources`

    def fingerprint(self) -> str:
        """SHA-256 of the sources."""
        digest = hashlib.sha256()
        for source in self.sources:
            digest.update(json.dumps(source).encode() + b"\n")
        return digest.hexdigest()


def read_corpus(data: Any, languages: tuple[str, str], *, needs_originals: bool) -> Corpus:
    """Read one of what `load_translations` reads, plain text, or a list of such."""
    parts = data if isinstance(data, list) else [data]
    if not parts:
        raise ValueError("`data` must name at least one file or data set, got an empty list.")
    sources, originals = list[str](), list[list[str]]()
    for part in parts:
        try:
            found = load_sources(part, source_lang=languages[0], target_lang=languages[1])
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(str(error).replace("`source`", "`data`")) from error
        sources += found.texts
        originals += found.translations
    if needs_originals and not any(originals):
        problem = "`keep_original` needs data with translations, got plain text alone"
        raise ValueError(f"{problem}. Leave it out.")
    shown = [i for i, source in enumerate(sources) if is_visible(source)]
    if not shown:
        raise ValueError(f"{parts[0]}: must hold at least one sentence, got none.")
    kept = [sources[i] for i in shown], [originals[i] for i in shown]
    return Corpus([_name(part) for part in parts], *kept, len(sources))


def _name(part: Any) -> str:
    """As it may stand in a card: nobody else has our folders."""
    if isinstance(part, tuple):
        return ",".join(map(_name, part))
    pieces = [piece.strip() for piece in str(part).split(",")]
    is_local = Path(str(part)).exists() or len(pieces) > 1
    return ",".join(Path(piece).name for piece in pieces) if is_local else str(part)
