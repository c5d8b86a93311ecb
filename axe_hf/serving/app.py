"""The routes: LibreTranslate's, ours under `/v1`, and those for whoever runs the server.

At the end, what every request passes: the limit of its body, metrics, the log; no fault goes
unanswered.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..cmlm.generation_cmlm import settings_of_call
from ..cmlm.mask_predict import possible_lengths
from ..pipeline import is_visible
from . import Batching, Limits, ServedModel, reading
from .batching import Answer, Batch, BatchedModel, Decoding, QueueFullError, log_failure
from .reading import (
    Directions,
    Passage,
    Refusal,
    UnknownLanguageError,
    language_name,
    split_passage,
)

Answers = list[Answer]
logger = logging.getLogger("axe_hf.serving")

_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"
# A body that is too long is read on, and forgotten, up to so many times the limit: closed before it
# has sent all, a client sees a broken connection in place of the answer.
FORGOTTEN = 16
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SENTENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)


class _Model(BatchedModel):
    """A served model: how a request's settings become a `Decoding`, within the limits."""

    def __init__(self, served: ServedModel, limits: Limits, batching: Batching, metrics: "Metrics"):
        kwargs: dict[str, Any] = {"defaults": served.generation, "batching": batching}
        kwargs |= {"max_queue": limits.max_queue}
        kwargs |= {"on_batch": partial(metrics.on_batch, served.name)}
        super().__init__(served.model, served.tokenizer, **kwargs)
        self.name, self.limits = served.name, limits
        metrics.queue.labels(served.name).set_function(self.num_waiting)
        self.characters = metrics.characters.labels(served.name)
        self.own = self._complete({})
        self.decoding = lru_cache(maxsize=256)(self._decoding)

    def _complete(self, asked: dict[str, Any]) -> Any:
        """All settings of a call; ValueError for what does not fit together."""
        settings = self.defaults | asked
        return settings_of_call(self.model.config, self.model.generation_config, settings)

    def num_lengths(self, settings: Any) -> int:
        """How many canvases of different length there are."""
        return len({*possible_lengths(self.model.config.max_target_length, settings)})

    def _decoding(self, asked: tuple[tuple[str, Any], ...], has_passes: bool) -> Decoding:
        """What a request asks for; Refusal, 422, where it cannot be had."""
        # As `generate` would, which keeps its warning for each number.
        limit = self.model.config.max_target_length
        asked = tuple((n, min(value, limit) if n == "max_length" else value) for n, value in asked)
        try:
            settings = self._complete(dict(asked))
        except (TypeError, ValueError) as error:
            raise Refusal(422, str(error)[:500]) from error
        own = self.own.num_iterations * self.own.num_length_candidates
        passes = settings.num_iterations * settings.num_length_candidates
        if passes > max(own, self.limits.max_passes):
            problem = f"`num_iterations` times `num_length_candidates` is {passes}"
            raise Refusal(422, f"{problem}, over the limit of {self.limits.max_passes}.")
        found = min(settings.num_length_candidates, self.num_lengths(settings))
        if (wanted := settings.num_return_sequences or 1) > found:
            problem = f"`num_return_sequences` is {wanted}, but there are {found} candidates"
            raise Refusal(422, f"{problem}. Raise `num_length_candidates`.")
        # What is as it would be anyway keeps no sentences apart.
        own_values = {name: getattr(self.own, name) for name, _ in asked}
        changed = tuple(pair for pair in asked if own_values[pair[0]] != pair[1])
        return Decoding(changed, has_passes)

    def alternatives(self, number: int) -> dict[str, Any]:
        """Settings for so many translations besides the best one, or as many as there can be."""
        if not number:
            return {}
        least = max(number + 1, self.own.num_length_candidates)
        found = min(number + 1, self.num_lengths(self.own))
        return {"num_length_candidates": least, "num_return_sequences": found}


class Service:
    """What the routes have in common."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        limits: Limits,
        batching: Batching,
        api_keys: Iterable[str],
    ):
        if not models:
            raise ValueError("`models` must hold at least one ServedModel, got none.")
        if len({served.name for served in models}) < len(models):
            raise ValueError("`models` must have different names.")
        self.limits, self.metrics = limits, Metrics()
        self.models = {
            _Model(each, limits, batching, self.metrics): each.pairs() for each in models
        }
        self.directions = Directions(self.models)
        self.keys = [_digest(key) for key in api_keys]

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """The models decode until the end of what was accepted."""
        yield
        await asyncio.gather(*(asyncio.to_thread(model.stop) for model in self.models))

    def check_key(self, request: Request, fields: dict[str, Any] | None = None) -> None:
        """Refuse who has no key, in LibreTranslate's words, if keys are asked for."""
        if not self.keys:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        given = given.strip() if kind.lower() == "bearer" else ""
        given = (fields or {}).get("api_key") or given
        if not given:
            raise Refusal(400, "Please contact the server operator to get an API key")
        digest = _digest(str(given))
        if not sum(hmac.compare_digest(digest, key) for key in self.keys):
            raise Refusal(403, "Invalid API key")

    def find(self, source: str, target: str, status: int) -> tuple[str, str, _Model]:
        """Languages as the models write them, and the model; Refusal with `status`."""
        try:
            return self.directions.find(source, target)
        except UnknownLanguageError as error:
            raise Refusal(status, str(error)) from error

    async def answers(
        self, request: Request, model: _Model, target: str, passages: list[Passage], how: Decoding
    ) -> list[Answer]:
        """An answer for each sentence, unless the client leaves or time is up."""
        sentences = [sentence for passage in passages for sentence in passage.sentences]
        num_characters = sum(map(len, sentences))
        request.scope["axe_hf"] = {
            "model": model.name,
            "texts": len(passages),
            "sentences": len(sentences),
            "characters": num_characters,
        }
        if not sentences:
            return []
        tagged = model.model.config.tagged
        sources = [tagged(s, target) if is_visible(s) else "" for s in sentences]
        try:
            future = model.submit(sources, how)
        except QueueFullError as error:
            seconds = math.ceil(model.seconds_to_wait())
            headers = {"Retry-After": str(max(1, min(seconds, 3600)))}
            raise Refusal(429, f"Slowdown: {error}", headers) from error
        answers = await _awaited(request, future, self.limits.timeout)
        model.characters.inc(num_characters)
        return answers


async def _awaited(request: Request, future: "Future[Answers]", timeout: float) -> "Answers":
    answers = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_disconnected(request))
    either: set[asyncio.Future[Any]] = {answers, gone}
    try:
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait(either, timeout=timeout, return_when=first)
        if answers.done():
            if (error := answers.exception()) is not None:
                raise Refusal(500, "Cannot translate text: internal error") from error
            return answers.result()
        if gone.done():
            raise ClientGoneError
        raise Refusal(504, f"Cannot translate text: not done within {timeout:g} seconds")
    finally:
        gone.cancel()
        answers.cancel()  # what waits leaves the queue


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def build_app(
    models: Sequence[ServedModel],
    limits: Limits,
    batching: Batching,
    api_keys: Iterable[str],
    cors_origins: Sequence[str],
) -> FastAPI:
    """See `axe_hf.serving.create_app`."""
    service = Service(models, limits, batching, api_keys)
    app = FastAPI(
        title="axe_hf",
        summary="Translation by CMLMs, over LibreTranslate's interface and one of its own",
        version="1",
        docs_url=None,  # FastAPI's own pages load scripts from other machines
        redoc_url=None,
        lifespan=service.lifespan,
        exception_handlers={Refusal: _refused, HTTPException: _failed},
    )
    app.state.asks_for_keys = bool(service.keys)
    _add_libretranslate(app, service)
    _add_own(app, service)
    routes = {route.path for route in app.routes if hasattr(route, "path")}
    settings: dict[str, Any] = {"max_body_bytes": limits.max_body_bytes, "timeout": limits.timeout}
    app.add_middleware(Gate, routes=routes, metrics=service.metrics, **settings)
    if cors_origins:
        headers = ["Authorization", "Content-Type"]
        kwargs: dict[str, Any] = {"allow_methods": ["GET", "POST"], "allow_headers": headers}
        app.add_middleware(CORSMiddleware, allow_origins=[*cors_origins], **kwargs)
    return app


async def _refused(request: Request, refusal: Any) -> JSONResponse:
    error = {"error": refusal.message}
    return JSONResponse(error, status_code=refusal.status, headers=refusal.headers)


async def _failed(request: Request, error: Any) -> JSONResponse:
    """What Starlette refuses: routes and methods that there are not."""
    headers = getattr(error, "headers", None)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=headers)


def _add_libretranslate(app: FastAPI, service: Service) -> None:
    @app.post("/translate", **_described(reading.TranslateCall, reading.TranslateAnswer, _FORM))
    async def translate(request: Request):
        """LibreTranslate's: texts of any number of sentences; line breaks stay."""
        fields = await reading.fields_of(request)
        service.check_key(request, fields)
        call = reading.read_call(fields, service.limits)
        source, target, model = service.find(call.source, call.target, 400)
        settings = model.alternatives(call.num_alternatives)
        how = model.decoding(tuple(sorted(settings.items())), False)
        passages = [split_passage(text, source, is_html=call.is_html) for text in call.texts]
        answers = await service.answers(request, model, target, passages, how)
        return JSONResponse(_translated(call, source, passages, answers))

    @app.get("/languages")
    async def languages():
        """LibreTranslate's: each language, and those it is translated into."""
        directions = service.directions
        return [
            _language(c) | {"targets": directions.targets.get(c, [])} for c in directions.languages
        ]

    @app.post("/detect", responses={400: {"model": reading.ErrorAnswer}})
    async def detect(request: Request):
        """LibreTranslate's, which this server does not do."""
        raise Refusal(400, "Language detection is not available on this server: set source")

    @app.get("/frontend/settings")
    async def frontend_settings():
        """LibreTranslate's, for its clients."""
        source = service.directions.languages[0]
        target = service.directions.targets[source][0]
        return {
            "charLimit": service.limits.max_characters,
            "frontendTimeout": 500,
            "apiKeys": bool(service.keys),
            "keyRequired": bool(service.keys),
            "suggestions": False,
            "filesTranslation": False,
            "supportedFilesFormat": [],
            "language": {"source": _language(source), "target": _language(target)},
        }

    @app.get("/spec", include_in_schema=False)
    async def spec():
        return app.openapi()

    for path, what in (("/suggest", "Suggestions"), ("/translate_file", "Files translation")):
        app.post(path, include_in_schema=False)(partial(_disabled, what))


async def _disabled(what: str) -> JSONResponse:
    raise Refusal(403, f"{what} are disabled on this server.")


def _language(code: str) -> dict[str, Any]:
    return {"code": code, "name": language_name(code)}


def _translated(
    call: reading.Call, source: str, passages: list[Passage], answers: list[Answer]
) -> dict[str, Any]:
    """LibreTranslate's answer, and a warning where it would leave something unsaid."""
    texts, alternatives, rest = [], [], iter(answers)
    for passage in passages:
        own = [next(rest) for _ in passage.sentences]
        versions = [
            # A sentence with fewer translations has its last one again.
            passage.joined(a.candidates[min(n, len(a.candidates) - 1)].text for a in own)
            for n in range(max((len(answer.candidates) for answer in own), default=1))
        ]
        best, *others = dict.fromkeys(versions)
        texts.append(best)
        alternatives.append(others[: call.num_alternatives])
    found: dict[str, Any] = {"translatedText": texts if call.is_list else texts[0]}
    if call.num_alternatives:
        found["alternatives"] = alternatives if call.is_list else alternatives[0]
    if call.source == "auto":  # known without looking, so without confidence
        detected = {"confidence": 0.0, "language": source}
        found["detectedLanguage"] = [detected for _ in texts] if call.is_list else detected
    if num_cut := sum(answer.is_cut for answer in answers):
        found["warning"] = f"{num_cut} sentences are too long for the model and were cut"
    return found


def _add_own(app: FastAPI, service: Service) -> None:
    @app.post("/v1/translate", **_described(reading.TranslationRequest, reading.TranslationAnswer))
    async def translate_v1(request: Request):
        """All that this package does: settings of the decoding, n-best, scores, passes."""
        fields = await reading.fields_of(request, only_json=True)
        service.check_key(request, fields)
        asked = reading.read_request(fields, service.limits)
        texts = reading.checked_texts(asked.q, service.limits)
        target = asked.target_lang or _only("target_lang", service.directions.targets.values())
        source, target, model = service.find(asked.source_lang or "auto", target, 422)
        settings = reading.settings_of(asked)
        how = model.decoding(tuple(sorted(settings.items())), asked.history)
        kwargs = {"is_html": asked.is_html, "split_sentences": asked.split_sentences}
        passages = [split_passage(text, source, **kwargs) for text in texts]
        answers = await service.answers(request, model, target, passages, how)
        found = {"model": model.name, "source_lang": source, "target_lang": target}
        return JSONResponse(found | {"translations": _told(passages, answers, asked.scores)})

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health():
        """Whether the server lives."""
        return {"status": "ok"}

    @app.get("/docs", include_in_schema=False)
    async def docs():
        return HTMLResponse(_page_of(app.openapi()))

    @app.get("/metrics", response_class=Response)
    async def metrics(request: Request):
        """For Prometheus; where keys are asked for, with `Authorization: Bearer KEY`."""
        service.check_key(request)
        content = generate_latest(service.metrics.registry)
        return Response(content, media_type=CONTENT_TYPE_LATEST)


def _only(name: str, codes: Iterable[list[str]]) -> str:
    found = sorted({code for some in codes for code in some})
    if len(found) > 1:
        raise Refusal(422, f"`{name}` must be one of {', '.join(found)}.")
    return found[0]


def _told(passages: list[Passage], answers: list[Answer], scores: bool) -> list[dict[str, Any]]:
    """The answer of `/v1`: a `TextAnswer` for each text."""
    found, rest = [], iter(answers)
    for passage in passages:
        sentences = []
        for source in passage.sentences:
            answer = next(rest)
            names = ("text", "score") if scores else ("text",)
            candidates = [{n: getattr(c, n) for n in names} for c in answer.candidates]
            told: dict[str, Any] = {"source": source, "candidates": candidates}
            told["is_cut"] = answer.is_cut
            if answer.passes:
                told["passes"] = [vars(each) for each in answer.passes]
            sentences.append(told)
        best = (sentence["candidates"][0]["text"] for sentence in sentences)
        found.append({"text": passage.joined(best), "sentences": sentences})
    return found


def _described(request: Any, answer: Any, *kinds: str) -> dict[str, Any]:
    """How the page of the interface shows a route that reads its body itself."""
    schema = request.model_json_schema()
    content = {kind: {"schema": schema} for kind in (_JSON, *kinds)}
    told = {400: "missing or wrong", 403: "a wrong key", 413: "too long", 422: "a wrong field"}
    told |= {429: "too much is waiting: see Retry-After", 504: "out of time"}
    error = {"model": reading.ErrorAnswer}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": {
            200: {"model": answer},
            **{status: error | {"description": text} for status, text in told.items()},
        },
    }


def _page_of(schema: dict[str, Any]) -> str:
    """The interface for people: what OpenAPI says, in HTML that needs no script."""
    told = schema["info"]
    parts = [f"<h1>{told['title']}</h1><p>{escape(told['summary'])}. For programs: "]
    parts.append('<a href="openapi.json">openapi.json</a>.</p>')
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts.append(f"<h2><code>{method.upper()} {path}</code></h2>")
            parts.append(f"<p>{escape(route.get('description', ''))}</p>")
            content = route.get("requestBody", {}).get("content", {})
            if content:
                parts.append(f"<p>Takes {' or '.join(content)}:</p>")
                parts.append(_table_of(content[_JSON]["schema"]))
            for status, answer in route["responses"].items():
                shape = answer.get("content", {}).get(_JSON, {}).get("schema", {})
                kind = f", {_kind_of(shape)}" if shape else ""
                parts.append(f"<div>{status}: {escape(answer['description'])}{kind}</div>")
    parts.append("<h2>Answers</h2>")
    for name, model in schema["components"]["schemas"].items():
        parts.append(f"<h3>{name}</h3>{_table_of(model)}")
    style = "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    style += "td{vertical-align:top;padding:2px 12px 2px 0}"
    head = f'<!doctype html><meta charset="utf-8"><title>{told["title"]}</title>'
    return f"{head}<style>{style}</style>{''.join(parts)}"


def _table_of(model: dict[str, Any]) -> str:
    rows = []
    for name, told in model.get("properties", {}).items():
        kind = _kind_of(told) + (", required" if name in model.get("required", ()) else "")
        text = escape(told.get("description", ""))
        rows.append(f"<tr><td><code>{name}</code><td>{kind}<td>{text}")
    return f"<table>{''.join(rows)}</table>"


def _kind_of(told: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "$ref" in told:
        return told["$ref"].rpartition("/")[2]
    if "anyOf" in told:
        kinds = (_kind_of(each) for each in told["anyOf"] if each.get("type") != "null")
        return " or ".join(dict.fromkeys(kinds))
    of = f" of {_kind_of(told['items'])}" if "items" in told else ""
    return told.get("type", "anything") + of


class Metrics:
    """The numbers of `/metrics`, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def make(kind: Any, name: str, text: str, labels: tuple[str, ...], **kwargs: Any) -> Any:
            return kind(f"axe_hf_{name}", text, labels, registry=self.registry, **kwargs)

        by_route, by_model = ("route", "status"), ("model",)
        self.requests = make(Counter, "requests", "Requests answered", by_route)
        text = "From the first byte to the last of the answer"
        self.seconds = make(Histogram, "request_seconds", text, ("route",), buckets=_SECONDS)
        self.queue = make(Gauge, "queue_sentences", "Sentences that wait", by_model)
        text = "Sentences in a batch"
        self.batch_sentences = make(
            Histogram, "batch_sentences", text, by_model, buckets=_SENTENCES
        )
        text = "Source tokens in a batch, padding included"
        self.batch_tokens = make(Histogram, "batch_tokens", text, by_model, buckets=_TOKENS)
        self.decoding = make(Counter, "decoding_seconds", "Seconds spent decoding", by_model)
        self.sentences = make(Counter, "sentences", "Sentences translated", by_model)
        self.characters = make(Counter, "characters", "Characters of texts translated", by_model)

    def on_batch(self, model: str, batch: Batch) -> None:
        """Count a batch."""
        self.batch_sentences.labels(model).observe(batch.num_sentences)
        self.batch_tokens.labels(model).observe(batch.num_tokens)
        self.decoding.labels(model).inc(batch.seconds)
        self.sentences.labels(model).inc(batch.num_sentences)


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Gate:
    """An ASGI application around another one.

    Args:
        app: what answers.
        routes: paths that are counted and logged by name; others may hold anything.
        max_body_bytes: of a request, chunked or not; 413 for more.
        timeout: seconds until the body must be there; 408.
        metrics: what is counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Collection[str],
        max_body_bytes: int,
        timeout: float,
        metrics: Metrics,
    ):
        self.app, self.routes, self.metrics = app, routes, metrics
        self.max_body_bytes, self.timeout = max_body_bytes, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            body = await asyncio.wait_for(self._body(scope, receive), self.timeout)
            await self.app(scope, _replayed(body, receive), send_noted)
        except ClientGoneError:
            status = status or 499  # as nginx calls it
        except Refusal as refusal:
            await _send_error(send_noted, refusal.status, refusal.message)
        except asyncio.TimeoutError:
            await _send_error(send_noted, 408, "The request did not arrive in time")
        except Exception as error:  # noqa: BLE001 (whatever it is, it is answered)
            log_failure("answering", error)
            if not status:
                await _send_error(send_noted, 500, "Internal error")
        finally:
            self._note(scope, status, time.perf_counter() - start)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size, limit = 0, self.max_body_bytes
        more = True
        while more and size <= FORGOTTEN * limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            more, part = message.get("more_body", False), message.get("body", b"")
            size += len(part)
            if size > limit:
                parts.clear()
            else:
                parts.append(part)
        if size > limit:
            raise Refusal(413, f"Invalid request: the body exceeds the limit ({limit} bytes)")
        return b"".join(parts)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["path"] if scope["path"] in self.routes else "other"
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        fields = {"method": scope["method"][:10], "route": route, "status": status}
        fields |= {"milliseconds": round(1000 * seconds, 1)} | scope.get("axe_hf", {})
        logger.info("request", extra={"fields": fields})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What gives the whole body once, then whatever comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_body() -> Message:
        return messages.pop() if messages else await receive()

    return receive_body


async def _send_error(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
