"""What clients send, read and checked: LibreTranslate's fields, and ours.

LibreTranslate (https://github.com/LibreTranslate/LibreTranslate) takes JSON and forms, ignores what
it does not know, and answers `{"error": ...}`; so does `/translate` here. `/v1/translate` takes
JSON only and refuses what it does not know.
"""

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any
from urllib.parse import parse_qsl

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    create_model,
)
from starlette.requests import Request

from ..cmlm.configuration_mask_predict import SETTINGS
from ..documents import Document, split_document
from ..pipeline import valid_unicode
from . import Limits

MAX_FIELDS = 1000
# How PyTorch computes is for whoever starts the server to say: each new shape is compiled.
_OF_THE_SERVER = ("compile", "use_onednn")
ASKED_FOR = {
    name: setting
    for name, setting in SETTINGS.items()
    if (setting.is_option or name == "num_return_sequences") and name not in _OF_THE_SERVER
}


class Refusal(Exception):
    """What is answered in place of a translation: a status and `{"error": message}`."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


async def fields_of(request: Request, *, only_json: bool = False) -> dict[str, Any]:
    """The fields of JSON or of a form, those in the address too.

    Raises:
        Refusal: 400 for what cannot be read, 415 for another type of content.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await request.body()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return _json_fields(body)
    is_form = kind == "application/x-www-form-urlencoded" or not (body or kind)
    if only_json or not is_form:
        wanted = "application/json" + ("" if only_json else " or application/x-www-form-urlencoded")
        got = f"{kind[:60]!r}" if kind else "none"
        raise Refusal(415, f"Invalid request: Content-Type must be {wanted}, got {got}")
    return _form_fields(body, request.scope.get("query_string", b""))


def _json_fields(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body.decode("utf-8-sig"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise Refusal(400, "Invalid request: the body is not UTF-8") from error
    except RecursionError as error:
        raise Refusal(400, "Invalid request: the JSON is nested too deeply") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Refusal(400, f"Invalid request: not JSON, {error.msg} at {place}") from error
    except ValueError as error:  # NaN, or a number of 5,000 digits
        raise Refusal(400, "Invalid request: a number in the JSON is none, or too long") from error
    if not isinstance(found, dict):
        raise Refusal(400, "Invalid request: the JSON must be an object")
    return {valid_unicode(name): value for name, value in found.items()}


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _form_fields(body: bytes, query: bytes) -> dict[str, Any]:
    """As of a form: a field that stands there several times is a list, line ends are \\n."""
    found: dict[str, Any] = {}
    try:
        for part in (query, body):
            text, options = part.decode("utf-8"), {"errors": "strict", "max_num_fields": MAX_FIELDS}
            for name, value in parse_qsl(text, keep_blank_values=True, **options):  # type: ignore
                found.setdefault(name, []).append(value.replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise Refusal(400, "Invalid request: the form is not UTF-8") from error
    except ValueError as error:
        raise Refusal(400, f"Invalid request: more than {MAX_FIELDS} fields") from error
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


@dataclass(frozen=True)
class Call:
    """What `/translate` is asked."""

    texts: list[str]
    is_list: bool
    source: str
    target: str
    is_html: bool
    num_alternatives: int


def read_call(fields: dict[str, Any], limits: Limits) -> Call:
    """LibreTranslate's fields; Refusal where one is missing or wrong, in its words."""
    q = fields.get("q")
    texts = checked_texts(q, limits)
    if q in ("", []):
        raise _missing("q")
    given = {}
    for name, default in (("source", ""), ("target", ""), ("format", "text")):
        value = fields.get(name)
        if value is not None and not isinstance(value, str):
            raise Refusal(400, f"Invalid request: {name} must be a string")
        if not (value or default):
            raise _missing(name)
        given[name] = value or default
    if (kind := given["format"]) not in ("text", "html"):
        raise Refusal(400, f"{kind[:20]!r} format is not supported")
    number = _number(fields.get("alternatives"))
    if number >= limits.max_passes:
        problem = f"alternatives ({number}) exceed the limit ({limits.max_passes - 1})"
        raise Refusal(400, f"Invalid request: {problem}")
    names = {"source": given["source"], "target": given["target"]}
    return Call(
        texts, isinstance(q, list), is_html=kind == "html", num_alternatives=number, **names
    )


def _missing(name: str) -> Refusal:
    return Refusal(400, f"Invalid request: missing {name} parameter")


def _number(value: Any) -> int:
    if value in (None, ""):
        return 0
    is_text = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10
    if not is_text and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise Refusal(400, "Invalid request: alternatives must be a whole number from 0")
    return min(int(value), 10**9)


def checked_texts(q: Any, limits: Limits) -> list[str]:
    """`q`, one text or a list of them, as a list within the limits; Refusal for anything else."""
    if q is None:
        raise _missing("q")
    texts = q if isinstance(q, list) else [q]
    if not all(isinstance(text, str) for text in texts):
        raise Refusal(400, "Invalid request: q must be a string or a list of strings")
    if len(texts) > limits.max_items:
        size = f"request ({len(texts)}) exceeds text limit ({limits.max_items})"
        raise Refusal(413, f"Invalid request: {size}")
    if (number := sum(map(len, texts))) > limits.max_characters:
        size = f"request ({number}) exceeds character limit ({limits.max_characters})"
        raise Refusal(413, f"Invalid request: {size}")
    return [valid_unicode(text) for text in texts]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", title="Request")

    q: StrictStr | list[StrictStr] = Field(description="one text or several, of any length")
    source_lang: StrictStr | None = Field(None, description="may be left out where one is served")
    target_lang: StrictStr | None = Field(None, description="may be left out where one is served")
    is_html: StrictBool = Field(False, description="whether `q` is HTML, whose tags stay")
    split_sentences: StrictBool = Field(True, description="false: each line is one sentence")
    scores: StrictBool = Field(False, description="give the score of each candidate")
    history: StrictBool = Field(False, description="give the canvas behind each pass")
    api_key: StrictStr | None = Field(None, description="or as `Authorization: Bearer KEY`")


_KINDS: dict[type, Any] = {int: StrictInt, bool: StrictBool, str: StrictStr}
# Beyond, scores overflow, and JSON has no infinity.
_KINDS[float] = Annotated[StrictInt | StrictFloat, Field(ge=-1e4, le=1e4)]
_SETTING_FIELDS: dict[str, Any] = {
    name: (_KINDS[setting.kind] | None, Field(None, description=setting.help))
    for name, setting in ASKED_FOR.items()
}
TranslationRequest = create_model("TranslationRequest", __base__=_Asked, **_SETTING_FIELDS)


def read_request(fields: dict[str, Any], limits: Limits) -> Any:
    """A `TranslationRequest` within the limits; Refusal, 422, names the field that is wrong."""
    try:
        asked: Any = TranslationRequest.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise Refusal(422, _told(str(found["loc"][0]), found["type"], found["msg"])) from error
    try:
        for name, setting in ASKED_FOR.items():
            if (value := getattr(asked, name)) is not None:
                setting.check(value)
    except ValueError as error:
        raise Refusal(422, str(error)[:500]) from error
    return asked


def _told(name: str, kind: str, message: str) -> str:
    shown = name[:60]
    if kind != "extra_forbidden":
        return f"`{shown}`: {message}"
    if name in _OF_THE_SERVER:
        return f"`{name}` is set where the server is started, not by a request."
    near = get_close_matches(shown, TranslationRequest.model_fields, 1)
    return f"There is no field `{shown}`." + (f" Is it `{near[0]}`?" if near else "")


def settings_of(asked: Any) -> dict[str, Any]:
    """The settings of the decoding that a `TranslationRequest` has."""
    values = {name: getattr(asked, name) for name in ASKED_FOR}
    return {name: value for name, value in values.items() if value is not None}


class UnknownLanguageError(ValueError):
    """A language that no model has; the message may be shown to whoever asked."""


class Directions:
    """Who translates from which language into which.

    Args:
        models: whoever they are, with the pairs of languages of each.

    Raises:
        ValueError: two models claim one direction.

    Example:
        >>> from axe_hf.serving.reading import Directions
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
        >>> from axe_hf.serving.reading import language_name
        >>> language_name("de"), language_name("pt_BR"), language_name("xx")
        ('German', 'Portuguese (pt_BR)', 'xx')
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    base = code.replace("_", "-").split("-")[0].lower()
    name = LANGUAGES.get(base, "").title()
    if not name:
        return code
    return name if base == code.lower() else f"{name} ({code})"


# What is not translated of a page: comments, programs, what must stay as it is, and every tag.
# What is not closed goes on to the end, as in a browser; looked for in vain from each place on, the
# time would be quadratic.
_MARKUP = re.compile(
    r"""<!--.*?(?:-->|\Z)
    | <(script|style|code|pre|textarea)\b.*?(?:</\1\s*>|\Z)
    | <[!?/a-z](?:[^<>=]|=(?!\s*["'])|=\s*(?:"[^"]*"|'[^']*'))*>  # where > may stand in quotes
    | <[!?/a-z][^<>]*>""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# Over the last character of all; Python would not read a number of thousands of digits.
_NO_CHARACTER = re.compile(r"&#\d{8,};?")


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
        >>> from axe_hf.serving.reading import split_passage
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
    text = html.unescape(_NO_CHARACTER.sub("\ufffd", text))
    return split_document(text, language, split_sentences=split_sentences)


# What answers look like; for the documentation.
class ErrorAnswer(BaseModel):
    error: str


class TranslateCall(BaseModel):
    """Fields of LibreTranslate's `/translate`."""

    q: str | list[str]
    source: str = Field(description='a code of `/languages`, or "auto" where only one leads there')
    target: str
    format: str = Field("text", description='"text" or "html"')
    alternatives: int = Field(0, description="how many others to give, at most")
    api_key: str = ""


class TranslateAnswer(BaseModel):
    translatedText: str | list[str]
    alternatives: list[str] | list[list[str]] | None = None
    detectedLanguage: dict[str, Any] | list[dict[str, Any]] | None = None
    warning: str | None = Field(None, description="what was cut because it is too long")


class CandidateAnswer(BaseModel):
    text: str
    score: float | None = Field(None, description="nats per token, where `scores` are asked for")


class PassAnswer(BaseModel):
    tokens: list[str] = Field(description='"_": predicted in the next pass; "ε": blank')
    log_probs: list[float] = Field(description="nats; 0 before the first pass")


class SentenceAnswer(BaseModel):
    source: str
    candidates: list[CandidateAnswer] = Field(description="best first")
    is_cut: bool = Field(description="too long for the model: its end was not translated")
    passes: list[PassAnswer] | None = Field(None, description="where `history` is asked for")


class TextAnswer(BaseModel):
    text: str
    sentences: list[SentenceAnswer]


class TranslationAnswer(BaseModel):
    model: str
    source_lang: str
    target_lang: str
    translations: list[TextAnswer] = Field(description="one for each text of `q`")
