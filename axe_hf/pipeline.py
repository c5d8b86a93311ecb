"""A Transformers pipeline that translates with a CMLM.

This file imports nothing of the package: it is copied next to a checkpoint that carries its own
code. That is why the cleaning of texts, which `translate` and the rescoring need too, lives here.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import logging

logger = logging.get_logger(__name__)

# "translation" was taken out of Transformers 5 and cannot be registered again.
TASK = "cmlm-translation"
# How translations become text: a tokenizer of two files (Marian's) decodes them by the target's.
DECODED = {"skip_special_tokens": True, "use_source_tokenizer": False}


class CmlmTranslationPipeline(Pipeline):
    """Translation from text to text.

    Called with a text or a list of texts it returns a list of `{"translation_text": ...}`, one for
    each; with a generator or a data set, an iterator over them. Settings of
    `MaskPredictGenerationConfig` are taken by the constructor and, with precedence, by each call.
    Texts that are long or empty are treated as by `axe_hf.translation.translate`, which is faster
    for many sentences: it batches similar lengths.

    Args:
        model: a `CmlmForConditionalGeneration`.
        tokenizer: the tokenizer it was trained with.
        batch_size (default 1): texts translated at once, when called with several.
        device (default: the first GPU, if any): where to run.

    Raises:
        TypeError: `model` cannot translate, `tokenizer` is missing, or an input is not a string.

    Example:
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer
        >>> from axe_hf.pipeline import CmlmTranslationPipeline
        >>> tokenizer = train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)
        >>> config = CmlmConfig(vocab_size=len(tokenizer), encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config).eval()
        >>> translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer, num_iterations=2)
        >>> [list(translation) for translation in translator("A dog barks.")]
        [['translation_text']]
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, model, tokenizer=None, **kwargs: Any):
        if not hasattr(getattr(model, "config", None), "max_source_length"):
            kind, advice = type(model).__name__, "Load it by AutoModelForSeq2SeqLM."
            raise TypeError(f"`model` must be a CmlmForConditionalGeneration, got {kind}. {advice}")
        if tokenizer is None:
            raise TypeError("`tokenizer` is missing: load it by AutoTokenizer.from_pretrained.")
        super().__init__(model, tokenizer=tokenizer, **kwargs)

    def _sanitize_parameters(self, **generation: Any) -> tuple[dict, dict, dict]:
        if (generation.get("num_return_sequences") or 1) > 1:
            problem = "A pipeline gives one translation and has no use for `num_return_sequences`"
            raise ValueError(f"{problem}. Call model.generate(...) for several.")
        return {}, generation, {}

    def __call__(self, inputs, **kwargs: Any) -> list[dict[str, str]] | Iterator[dict[str, str]]:
        """Translate; see the class."""
        if isinstance(inputs, str):
            return [super().__call__(inputs, **kwargs)]
        if isinstance(inputs, list | tuple):
            return super().__call__(list(inputs), **kwargs) if inputs else []
        return super().__call__(inputs, **kwargs)

    def preprocess(self, input_: str) -> dict[str, torch.Tensor]:
        if not isinstance(input_, str):
            kind = type(input_).__name__
            raise TypeError(f"The pipeline translates strings, got {kind}: {input_!r:.80}.")
        limit = self.model.config.max_source_length
        text = valid_unicode(input_) if is_visible(input_) else ""
        token_ids = self.tokenizer(text, verbose=False).input_ids
        if len(token_ids) > limit:
            logger.warning(
                f"A text of {len(token_ids)} tokens is longer than the model's max_source_length "
                f"of {limit} and was cut there: {text[:60]!r}... Split it into sentences."
            )
            token_ids = [*token_ids[: limit - 1], self.tokenizer.eos_token_id]
        input_ids = torch.tensor([token_ids])
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}

    def _forward(self, input_tensors: dict[str, torch.Tensor], **generation: Any) -> dict[str, Any]:
        input_ids = input_tensors["input_ids"]  # (batch, source)
        # One translation for each text, whatever the model's settings say.
        generation |= {"return_dict_in_generate": False, "output_history": False}
        generation |= {"num_return_sequences": 1}
        sequences = self.model.generate(input_ids, input_tensors["attention_mask"], **generation)
        pad, eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        is_empty = ((input_ids == pad) | (input_ids == eos)).all(dim=1, keepdim=True)  # (batch, 1)
        return {"sequences": sequences.masked_fill(is_empty, pad)}

    def postprocess(self, model_outputs: dict[str, torch.Tensor]) -> dict[str, str]:
        token_ids = model_outputs["sequences"].reshape(-1)
        return {"translation_text": self.tokenizer.decode(token_ids, **DECODED)}


def valid_unicode(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which reading broken UTF-8 leaves behind."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_visible(text: str) -> bool:
    """Whether there is more in it than white space, controls and zero-width characters (Cc, Cf)."""
    characters = (char for char in text if not char.isspace())
    return any(unicodedata.category(char) not in ("Cc", "Cf") for char in characters)


def register_pipeline() -> None:
    """Make `transformers.pipeline("cmlm-translation", ...)` known; calling it again is harmless.

    Example:
        >>> from transformers.pipelines import get_supported_tasks
        >>> from axe_hf.pipeline import register_pipeline
        >>> register_pipeline()
        >>> "cmlm-translation" in get_supported_tasks()
        True
    """
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK, pipeline_class=CmlmTranslationPipeline, pt_model=AutoModelForSeq2SeqLM
        )
