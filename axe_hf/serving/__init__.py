"""Translation over HTTP: LibreTranslate's interface, and one with all that the models can do.

What a server is told when it is started stands here, and needs neither FastAPI nor PyTorch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .running import open_socket, run_server

if TYPE_CHECKING:
    from fastapi import FastAPI
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Batching",
    "Limits",
    "ServedModel",
    "check_packages",
    "create_app",
    "open_socket",
    "run_server",
]


@dataclass(frozen=True)
class ServedModel:
    """A model to serve.

    Args:
        model, tokenizer: as `translate` takes them; graphs of `load_exported`, too.
        directions: such as `["en-de"]`; by default those of the model's configuration.
        name: what answers and metrics call it.
        generation: settings of the decoding in place of the model's own, for calls that do not say.

    Example:
        >>> ServedModel(model, tokenizer, ["en-de"], name="mine")  # doctest: +SKIP
    """

    model: Any
    tokenizer: "PreTrainedTokenizerBase"
    directions: Sequence[str] | None = None
    name: str = "model"
    generation: dict[str, Any] = field(default_factory=dict)

    def pairs(self) -> list[tuple[str, str]]:
        """Source and target of each direction; ValueError if not known, or not the model's."""
        from ..cmlm.configuration_cmlm import languages_of

        known = getattr(self.model.config, "directions", None)
        given = self.directions or known
        if not given:
            problem = f"It is not known which languages {self.name} translates"
            raise ValueError(f"{problem}: say it by its `directions`, such as en-de.")
        pairs = [languages_of(direction) for direction in given]
        learned = [languages_of(direction) for direction in known or given]
        if strange := [pair for pair in pairs if pair not in learned]:
            shown = " and ".join("-".join(pair) for pair in strange)
            problem = f"{self.name} was trained for {', '.join(known or ())}, not for {shown}"
            raise ValueError(f"`directions`: {problem}.")
        return list(dict.fromkeys(pairs))


@dataclass(frozen=True)
class Limits:
    """What requests may ask for.

    Args:
        max_characters (default 10000): of all texts of one together; more is answered 413.
        max_items (default 128): texts in a list; more is answered 413.
        max_body_bytes (default 1 MiB): more is answered 413, and never held.
        max_passes (default 100): iterations times length candidates of each sentence.
        max_queue (default 1000): sentences that may wait; a request that would add to more than
            these is answered 429. One that comes alone is not.
        timeout (default 60): seconds until 504; what still waits then is not translated.

    Raises:
        ValueError: a limit below 1.

    Example:
        >>> from axe_hf.serving import Limits
        >>> Limits(max_characters=2000).max_items
        128
    """

    max_characters: int = 10_000
    max_items: int = 128
    max_body_bytes: int = 2**20
    max_passes: int = 100
    max_queue: int = 1000
    timeout: float = 60.0

    def __post_init__(self):
        _check_positive(self, *vars(self))


@dataclass(frozen=True)
class Batching:
    """How sentences of different requests are put together.

    Args:
        max_sentences (default 64): decoded at once, at most.
        max_tokens (default 8192): source tokens decoded at once, padding included, each counted
            once for each length candidate, at most; a longer sentence is decoded alone.
        window_ms (default 3): milliseconds for which an idle model waits for more requests, once
            several came at a time; a lone client's are never kept waiting.

    Raises:
        ValueError: a limit below 1.

    Example:
        >>> from axe_hf.serving import Batching
        >>> Batching(max_sentences=16).max_tokens
        8192
    """

    max_sentences: int = 64
    max_tokens: int = 8192
    window_ms: float = 3.0

    def __post_init__(self):
        _check_positive(self, "max_sentences", "max_tokens")


def _check_positive(options: Any, *names: str) -> None:
    for name in names:
        if not getattr(options, name) > 0:
            raise ValueError(f"`{name}` must be positive, got {getattr(options, name)!r}.")


def create_app(
    models: Sequence[ServedModel],
    *,
    limits: Limits | None = None,
    batching: Batching | None = None,
    api_keys: Iterable[str] = (),
    cors_origins: Sequence[str] = (),
) -> "FastAPI":
    """An ASGI application that translates; `axe-hf serve` runs it in uvicorn.

    It answers `POST /translate`, `GET /languages`, `GET /frontend/settings` and `GET /health` as
    LibreTranslate does (https://docs.libretranslate.com), refuses `POST /detect`, and has besides
    `POST /v1/translate`, `GET /metrics` for Prometheus and, at `/docs`, a page of the interface.
    Each model has a thread of its own, which decodes sentences of different requests together. In
    float32 each gets the translation that it gets alone, up to rounding; in int8, where the states
    of a batch share their scale, it can differ by what else is in the batch.

    Args:
        models: whose directions are not the same.
        limits: what a request may ask for.
        batching: how sentences are put together.
        api_keys: one of which each translation must come with, as `api_key` or as
            `Authorization: Bearer KEY`; by default none is asked for.
        cors_origins: pages that may call it from a browser, `["*"]` for all; by default none.

    Raises:
        ImportError: a package of the extra `serve` is missing.
        TypeError: one string for keys or origins.
        ValueError: no model, a model of unknown directions, or two of the same.

    Example:
        >>> import torch
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer
        >>> from axe_hf.serving import ServedModel, create_app
        >>> tokenizer = train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)
        >>> config = CmlmConfig(vocab_size=len(tokenizer), encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config).eval()
        >>> app = create_app([ServedModel(model, tokenizer, ["en-de"])])
        >>> sorted(app.openapi()["paths"])[-1]
        '/v1/translate'
    """
    for name, words in (("api_keys", api_keys), ("cors_origins", cors_origins)):
        if isinstance(words, str):  # whose letters would be taken for keys
            raise TypeError(f"`{name}` must be a list of strings, got one string.")
    check_packages()
    from .app import build_app

    limits, batching = limits or Limits(), batching or Batching()
    return build_app(models, limits, batching, api_keys, cors_origins)


def check_packages() -> None:
    """Raise ImportError, which names the extra, where a package for serving is missing."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import sentencex  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        problem = f"Serving needs {error.name}, which is not installed"
        raise ImportError(f'{problem}: python -m pip install "axe-hf[serve]".') from error
