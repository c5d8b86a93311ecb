"""What a server is told when it is started; nothing here needs FastAPI."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..cmlm.configuration_cmlm import languages_of


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
    tokenizer: PreTrainedTokenizerBase
    directions: Sequence[str] | None = None
    name: str = "model"
    generation: dict[str, Any] = field(default_factory=dict)

    def pairs(self) -> list[tuple[str, str]]:
        """Source and target of each direction; ValueError if not known, or not the model's."""
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
