"""Translation over HTTP: LibreTranslate's interface, and one with all that the models can do."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .options import Batching as Batching
from .options import Limits as Limits
from .options import ServedModel as ServedModel
from .running import open_socket as open_socket
from .running import run_server as run_server

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Batching", "Limits", "ServedModel", "check_packages", "create_app", "open_socket"]
__all__ += ["run_server"]


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
