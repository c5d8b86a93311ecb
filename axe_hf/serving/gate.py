"""What every request passes: the limit of its body, metrics, the log; no fault goes unanswered."""

import asyncio
import json
import logging
import time
from collections.abc import Collection
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .batching import Batch, log_failure
from .reading import Refusal

logger = logging.getLogger("axe_hf.serving")

# A body that is too long is read on, and forgotten, up to so many times the limit: closed before it
# has sent all, a client sees a broken connection in place of the answer.
FORGOTTEN = 16
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SENTENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)


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
