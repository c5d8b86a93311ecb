"""Codes of languages, as data, tokenizers and models write them."""

import re


def base_language(code: str | None) -> str:
    """A language without script or country, "" for None.

    >>> [base_language(code) for code in ("zh_CN", "en_XX", "deu_Latn", "pt-BR", "EN", None)]
    ['zh', 'en', 'deu', 'pt', 'en', '']
    """
    return re.split("[-_]", code or "")[0].lower()


def hub_language(code: str | None) -> str | None:
    """A language as the Hub writes it, by ISO 639; None for words that are no codes.

    >>> [hub_language(code) for code in ("zh_CN", "deu_Latn", "source")]
    ['zh', 'deu', None]
    """
    base = base_language(code)
    return base if re.fullmatch("[a-z]{2,3}", base) else None
