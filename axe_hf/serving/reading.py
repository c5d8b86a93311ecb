"""What clients send, read and checked: LibreTranslate's fields, and ours.

LibreTranslate (https://github.com/LibreTranslate/LibreTranslate) takes JSON and forms, ignores what
it does not know, and answers `{"error": ...}`; so does `/translate` here. `/v1/translate` takes
JSON only and refuses what it does not know.
"""

import json
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
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
from ..pipeline import valid_unicode
from .options import Limits

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
    return found


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
_KINDS[float] = StrictInt | StrictFloat
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
    shown = valid_unicode(name[:60])
    if kind != "extra_forbidden":
        return f"`{shown}`: {message}"
    if name in _OF_THE_SERVER:
        return f"`{name}` is set where the server is started, not by a request."
    near = get_close_matches(name[:60], TranslationRequest.model_fields, 1)
    return f"There is no field `{shown}`." + (f" Is it `{near[0]}`?" if near else "")


def settings_of(asked: Any) -> dict[str, Any]:
    """The settings of the decoding that a `TranslationRequest` has."""
    values = {name: getattr(asked, name) for name in ASKED_FOR}
    return {name: value for name, value in values.items() if value is not None}


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
