"""What a model translates, from and into which languages, and several of that in one model."""

import re
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from transformers import AddedToken
from transformers.utils import logging

from ..cmlm.configuration_cmlm import languages_of
from ..pipeline import language_tags

logger = logging.get_logger(__name__)

DIRECTION = "direction"  # column of data to score, of several directions


def direction_name(source_lang: str, target_lang: str) -> str | None:
    """As `config.directions` has it; None for keys of data that are no codes.

    >>> direction_name("en", "de"), direction_name("zh-CN", "en"), direction_name("my text", "en")
    ('en-de', 'zh-CN:en', None)
    """
    codes = (source_lang, target_lang)
    if not all(re.fullmatch(r"[\w-]+", code) for code in codes):
        return None
    return (":" if any("-" in code for code in codes) else "-").join(codes)


def source_prefix(config: Any, target_lang: str) -> str:
    """What stands in front of each source: a prefix, and the tag that a model needs before it."""
    is_several = len(config.target_languages) > 1  # else data may call its language otherwise
    return config.tagged("", target_lang if is_several else None)


def settle_prefix(config: Any, asked: str | None, *, is_trained: bool) -> None:
    """Let the configuration have the prefix of this run: what is asked, or else the model's own."""
    if asked is None or (asked or None) == (was := config.source_prefix):
        return
    config.source_prefix = asked or None
    if config.name_or_path:  # a new model has none
        since = f"from now on; the model had {was!r}."
        here = f"in this run; the model was trained with {was!r}."
        logger.warning(f"`source_prefix` is {asked!r} {since if is_trained else here}")


def teach_directions(model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> None:
    """Write into the configuration what a model is to be trained for, and make room for its tags.

    A model of one target language becomes one of several by tags, ordinary tokens that are added to
    `tokenizer`. If it is trained for another target alone, it is one of that.

    Raises:
        ValueError: it has several target languages already, and this is none of them.
    """
    config, names = model.config, [direction_name(*pair) for pair in pairs]
    had, known = [*map(languages_of, config.directions or ())], config.target_languages
    if None in names or {*pairs} <= {*had}:
        return
    targets = [*dict.fromkeys(target for _, target in pairs)]
    if len(known) > 1 and (new := [target for target in targets if target not in known]):
        problem = f"the model translates into {', '.join(known)}, and not into {', '.join(new)}"
        advice = "Train a new model, on all `directions` that it is to know"
        raise ValueError(f"`target_lang`, `directions`: {problem}. {advice}.")
    if len(known) == 1 and len(targets) == 1 and targets != known:
        logger.warning(f"The model translated {', '.join(config.directions)}, from now on {names}.")
        had = []
    learned = dict.fromkeys([*had, *pairs])
    config.directions = [str(direction_name(*pair)) for pair in learned]
    add_tags(tokenizer, language_tags(config))
    if len(tokenizer) > config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))


def check_directions(config: Any, pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse to score several directions of which a model cannot go all.

    Of a single one nothing is said: data may call its languages otherwise than the model does.
    """
    known, targets = config.target_languages, dict.fromkeys(target for _, target in pairs)
    new = [target for target in targets if target not in known]
    if len(pairs) > 1 and new and (known or len(targets) > 1):
        into = f"translates into {', '.join(known)}" if known else "says of no language"
        problem = f"the model {into}, and not into {', '.join(new)}"
        raise ValueError(f"`directions`: {problem}. Score those that it was trained for.")


def add_tags(tokenizer: Any, tags: Iterable[str]) -> None:
    """Add tags to a tokenizer that stay whole, and are no special tokens, which are spelt out."""
    for tag in tags:
        if tokenizer.tokenize(tag) != [tag]:
            tokenizer.add_tokens([AddedToken(tag, rstrip=True, normalized=False)])
        if (pieces := tokenizer.tokenize(tag)) != [tag]:
            problem = f"`tokenizer` makes {pieces} of the tag {tag!r}, which must stay whole"
            raise ValueError(f"{problem}. Take one that `train_tokenizer` makes.")


class MetricOfDirections:
    """`TranslationMetric` of each direction by itself, and their mean.

    Args:
        tokenize: BLEU's tokenizer of all; None takes that of each target language.
    """

    def __init__(self, tokenize: str | None = None):
        self._tokenize, self._metrics = tokenize, dict[str, Any]()

    def add_batch(
        self, *, predictions: Sequence[str], references: Sequence[Any], directions: Sequence[str]
    ) -> None:
        """Add translations, the references of each, and of which direction each is."""
        from ..evaluation import TranslationMetric, default_tokenize

        for name in dict.fromkeys(directions):
            if name not in self._metrics:
                tokenize = self._tokenize or default_tokenize(languages_of(name)[1])
                self._metrics[name] = TranslationMetric(tokenize=tokenize)
            own = [i for i, direction in enumerate(directions) if direction == name]
            texts = {"predictions": [predictions[i] for i in own]}
            self._metrics[name].add_batch(**texts, references=[references[i] for i in own])

    def compute(self) -> dict[str, float | str]:
        """The scores, `en-de_bleu` and so on, and as `bleu` the mean over directions."""
        found = {name: metric.compute() for name, metric in self._metrics.items()}
        means: dict[str, float | str] = {}
        for score in next(iter(found.values())):
            values = [scores[score] for scores in found.values()]
            is_text = isinstance(values[0], str)
            means[score] = ", ".join(dict.fromkeys(values)) if is_text else fmean(values)
        each = {f"{name}_{s}": v for name, scores in found.items() for s, v in scores.items()}
        return means | each
