"""Which model translates from which language into which."""

from typing import Any


class UnknownLanguageError(ValueError):
    """A language that no model has; the message may be shown to whoever asked."""


class Directions:
    """Who translates from which language into which.

    Args:
        models: whoever they are, with the pairs of languages of each.

    Raises:
        ValueError: two models claim one direction.

    Example:
        >>> from axe_hf.serving.languages import Directions
        >>> directions = Directions({"a": [("en", "de")], "b": [("fr", "de"), ("fr", "en")]})
        >>> directions.find("EN-us", "de")
        ('en', 'de', 'a')
        >>> directions.targets
        {'en': ['de'], 'fr': ['de', 'en']}
    """

    def __init__(self, models: dict[Any, list[tuple[str, str]]]):
        self._owner: dict[tuple[str, str], Any] = {}
        self.targets: dict[str, list[str]] = {}
        for model, pairs in models.items():
            for pair in pairs:
                if pair in self._owner:
                    advice = "Serve one of them, or say which directions each is for: MODEL=en-de."
                    raise ValueError(f"Two models translate {'-'.join(pair)}. {advice}")
                self._owner[pair] = model
                self.targets.setdefault(pair[0], []).append(pair[1])

    @property
    def languages(self) -> list[str]:
        """All, sources first."""
        return list(dict.fromkeys([*self.targets, *(pair[1] for pair in self._owner)]))

    def find(self, source: str, target: str) -> tuple[str, str, Any]:
        """Source, target and who translates; "auto" is the one language that leads to `target`.

        "EN", "en_US" and "en-us" are English where a model says "en", "zh" is its "zh-CN".
        """
        target = self._known(target, [pair[1] for pair in self._owner])
        if source == "auto":
            sources = [pair[0] for pair in self._owner if pair[1] == target]
            if len(sources) > 1:
                problem = "auto is not supported here, as no language is detected"
                raise UnknownLanguageError(f"{problem}: source must be one of {_listed(sources)}")
            source = sources[0]
        source = self._known(source, list(self.targets))
        if (source, target) not in self._owner:
            text = f"{target} is not available as a target language from {source}"
            raise UnknownLanguageError(f"{text}: there is {_listed(self.targets[source])}")
        return source, target, self._owner[source, target]

    def _known(self, code: str, codes: list[str]) -> str:
        wanted = code.replace("_", "-").lower()
        for is_it in (
            lambda known: known == wanted,
            lambda known: known == wanted.split("-")[0],
            lambda known: known.split("-")[0] == wanted,
        ):
            for known in codes:
                if is_it(known.replace("_", "-").lower()):
                    return known
        raise UnknownLanguageError(f"{code[:20]!r} is not supported: there is {_listed(codes)}")


def _listed(codes: list[str]) -> str:
    return ", ".join(dict.fromkeys(codes))


def language_name(code: str) -> str:
    """Its name in English, or the code.

    Example:
        >>> from axe_hf.serving.languages import language_name
        >>> language_name("de"), language_name("pt_BR"), language_name("xx")
        ('German', 'Portuguese (pt_BR)', 'xx')
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    base = code.replace("_", "-").split("-")[0].lower()
    name = LANGUAGES.get(base, "").title()
    if not name:
        return code
    return name if base == code.lower() else f"{name} ({code})"
