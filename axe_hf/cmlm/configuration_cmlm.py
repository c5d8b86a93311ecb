"""Configuration of the conditional masked language model (CMLM)."""

import copy
import math
import os
import re
import shutil
import textwrap
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.activations import ACT2FN
from transformers.dynamic_module_utils import get_relative_imports
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME, cached_file, logging

from .configuration_mask_predict import AUTOREGRESSIVE, SETTINGS, check_autoregressive, require

logger = logging.get_logger(__name__)

# The symbols that are no words, as configuration and tokenizer both call them.
SPECIAL_TOKEN_IDS = ("pad_token_id", "eos_token_id", "mask_token_id", "blank_token_id")
# What a field must be by itself.
_LAYERS = "encoder_layers decoder_layers"
_SIZES = "vocab_size d_model encoder_ffn_dim decoder_ffn_dim max_source_length max_target_length"
CONFIG_RANGES = {
    "at least 1": f"{_SIZES} {_LAYERS} encoder_attention_heads decoder_attention_heads",
    "at most 1000": _LAYERS,  # making a model of more would not end
    "at most 10000000": _SIZES,
    "positive": "layer_norm_eps",
    ">= 0": "init_std axe_temperature length_loss_weight",
    ">= 0 or infinite": "axe_delta",
    "in [0, 1)": "label_smoothing dropout attention_dropout activation_dropout",
}

# What a configuration says of code that lies beside it; one pipeline: `pipeline(model=...)` takes
# it without being told.
_KEYS_OF_CODE = {"auto_map", "custom_pipelines"}
AUTO_MAP = {
    "AutoConfig": "configuration_cmlm.CmlmConfig",
    "AutoModel": "modeling_cmlm.CmlmModel",
    "AutoModelForSeq2SeqLM": "modeling_cmlm.CmlmForConditionalGeneration",
}
CUSTOM_PIPELINES = {
    "translation": {"impl": "pipeline.CmlmTranslationPipeline", "pt": ["AutoModelForSeq2SeqLM"]}
}

# What lies beside an adapter: of the configuration, all that training may change.
SETTINGS_OF_ADAPTER = "cmlm_settings.json"
SETTINGS_WITH_ADAPTER = ["masking", "length_multiplier", "length_jitter", "source_prefix"]
SETTINGS_WITH_ADAPTER += ["directions", "training_loss", "axe_delta", "allow_repetition"]
SETTINGS_WITH_ADAPTER += ["axe_temperature", "label_smoothing", "length_loss_weight"]

# In front of a source, for a model of several target languages; as in OPUS-MT's.
LANGUAGE_TAG = ">>{}<<"


def languages_of(direction: str) -> tuple[str, str]:
    """Source and target language of "en-de", or of "zh-CN:en" where a code has a hyphen."""
    codes = direction.split(":" if ":" in direction else "-")
    if len(codes) != 2 or not all(re.fullmatch(r"[\w-]+", code) for code in codes):
        expected = "two language codes, such as 'en-de', or 'zh-CN:en' where one has a hyphen"
        raise ValueError(f"`directions` must hold {expected}, got {direction!r}.")
    return codes[0], codes[1]


def with_prefix(text: str, prefix: str | None) -> str:
    """`text` behind `prefix`, of which nothing is put twice: a text may come with it, or a part.

    >>> with_prefix("Hello.", "to German: "), with_prefix("to German: Hello.", "to German: ")
    ('to German: Hello.', 'to German: Hello.')
    >>> with_prefix("say: Hello.", ">>de<< say: "), with_prefix(">>de<< Hello.", ">>de<< say: ")
    ('>>de<< say: Hello.', '>>de<< say: Hello.')
    """
    prefix = prefix or ""
    if text.startswith(prefix):
        return text
    tag, behind = "", prefix
    if prefix.startswith(">>") and "<< " in prefix:  # see LANGUAGE_TAG
        tag, end, behind = prefix.partition("<< ")
        tag += end
    return prefix + text.removeprefix(tag).removeprefix(behind)


def canvas_recipe(of: Any) -> dict[str, Any]:
    """How canvases are made in training, as a config, arguments or a collator have it, if so."""
    names = ("masking", "length_multiplier", "length_jitter")
    return {name: value for name in names if (value := getattr(of, name)) is not None}


def needs_room(config: Any) -> bool:
    """Whether a canvas must hold its whole target, a blank between equal neighbours too."""
    is_whole = config.allow_repetition or config.axe_delta == math.inf
    return config.training_loss == "axe" and is_whole


def check_family(config: Any, masking: str = "full") -> None:
    """Refuse settings of the alignment, of a config, that its loss or the masks have no use for."""
    for name in ("allow_repetition", "axe_temperature"):
        if config.training_loss != "axe" and (value := getattr(config, name)):
            reason = "cross entropy aligns nothing: every position has its label"
            advice = f"Set it to {type(value)()}, or `training_loss` to 'axe'."
            raise ValueError(f"`{name}` is {value}, but {reason}. {advice}")
    if masking == "uniform" and config.allow_repetition and config.axe_delta == math.inf:
        reason = "between tokens that are shown equal neighbours have no room for a blank"
        advice = "Use masking='full', or a finite `axe_delta`."
        raise ValueError(f"`axe_delta` is infinite, but with uniform masks {reason}. {advice}")


def check_canvas_recipe(recipe: dict[str, Any], training_loss: str = "axe") -> None:
    """Refuse what is wrong, or excludes each other, of what is given of a recipe."""
    masking = recipe.get("masking", "full")
    if masking not in ("uniform", "full"):
        raise ValueError(f"`masking` must be 'uniform' or 'full', got {masking!r}.")
    multiplier, jitter = recipe.get("length_multiplier", 1.0), recipe.get("length_jitter", 0.0)
    SETTINGS["length_multiplier"].check(multiplier)
    require({"in [0, 1)": "length_jitter"}, recipe)
    if multiplier == 1 and not jitter:
        return
    if masking != "full":
        given = f"`length_multiplier` is {multiplier} and `length_jitter` {jitter}"
        reason = "where tokens are observed no canvas can be stretched"
        raise ValueError(f"{given}, but {reason}. Use masking='full', or 1 and 0.")
    if training_loss != "axe":
        reason = "cross entropy needs a label at every position of the canvas"
        expected = "must be 1 and `length_jitter` 0 unless `training_loss` is 'axe'"
        got = f"Got {multiplier} and {jitter}."
        raise ValueError(f"`length_multiplier` {expected}: {reason}. {got}")


@strict
class CmlmConfig(PreTrainedConfig):
    r"""Architecture and training loss of a CMLM; the defaults are Mask-Predict's base model.

    Sizes: Ghazvininejad et al., "Mask-Predict" (EMNLP 2019), section 4.1; AXE: Ghazvininejad et
    al., "Aligned Cross Entropy" (ICML 2020), section 3; `axe_delta` is ours, by experiment.

    Args:
        vocab_size: number of symbols, shared by source and target, special tokens included.
        d_model: width of every hidden state.
        encoder_layers: layers of the encoder.
        decoder_layers: layers of the decoder; a deep encoder with a shallow decoder decodes faster.
        encoder_attention_heads, decoder_attention_heads: their number must divide `d_model`.
        encoder_ffn_dim, decoder_ffn_dim: inner width of that stack's feed-forward blocks.
        activation_function: any name in `transformers.activations.ACT2FN`.
        dropout: dropout after each block.
        attention_dropout: dropout on the attention weights.
        activation_dropout: dropout inside the feed-forward blocks.
        normalize_before: layer normalisation before each block and at the end, not after each.
        position_embedding_type: position embeddings, `"learned"` or `"sinusoidal"`.
        scale_embedding: multiply the token embeddings by sqrt(d_model).
        layernorm_embedding: layer normalisation after token plus position embedding.
        layer_norm_eps: epsilon of every layer normalisation.
        init_std: standard deviation of the normal initialisation.
        max_source_length: longest source in tokens, `</s>` included.
        max_target_length: longest canvas, and length that can be predicted, `</s>` included.
        tie_word_embeddings: one matrix for source, target and output embeddings.
        output_bias: the output projection has a bias, as Marian's has.
        hide_length_token: the source tokens do not attend to the vector that predicts the length:
            their states are what they would be without it. A model with a pretrained encoder keeps
            it exactly so, and trains faster where that encoder is frozen.
        pad_token_id, eos_token_id, mask_token_id, blank_token_id: ids of the special tokens; the
            defaults are those of `axe_hf.train_tokenizer`. The blank is AXE's epsilon.
        training_loss: `"axe"`, or `"cross_entropy"` for the position-wise loss of Mask-Predict.
        axe_delta: penalty factor (>= 0) of leaving a target token without a prediction of its own.
            With 1 a model learns to leave out too much (BLEU 23 where 1.5 and 2 reach 33);
            infinite, `inf`: no token is ever left out.
        allow_repetition: a token may be said by several positions in a row, which decoding
            collapses (in AXE ours; with `axe_temperature` 1 and an infinite `axe_delta` it is CTC,
            Graves et al., ICML 2006). It belongs to the recipe of the canvas: canvases have room
            for a blank between equal neighbours.
        axe_temperature: 0 trains on the best alignment, as the paper; over 0 on the soft minimum
            over all alignments, 1: minus the logarithm of the sum of their probabilities (ours).
        label_smoothing: share of the loss, in [0, 1), of the uniform distribution over all symbols.
            A Trainer's `label_smoothing_factor` would put another loss in AXE's place.
        length_loss_weight: weight of the length head's negative log-likelihood, per sentence.
        fused_loss: when training computes the loss from the decoder's states, a few sentences at a
            time, with the same value in less memory and `outputs.logits` None: `"auto"`, where the
            logits would take over 48 MiB on a CPU, 256 MiB on a GPU; `"always"`; or `"never"`.
        masking, length_multiplier, length_jitter: the recipe of the canvas in training, as in
            `DataCollatorForCmlm`; `AxeTrainer` writes it, goes on by it, and `generate` decodes by
            its multiplier.
        directions: what it translates, such as `["en-de", "de-en"]`, as training writes it; None if
            that is not known. Of several target languages, a tag in front of the source says which.
        source_prefix: text in front of each source, such as "translate English to German: ", as
            training writes it; who translates need not give it. None is nothing.

    Raises:
        StrictDataclassClassValidationError: sizes that do not fit, special tokens that collide.

    Example:
        >>> from axe_hf import CmlmConfig
        >>> config = CmlmConfig(vocab_size=100, d_model=32, encoder_layers=1, decoder_layers=1)
        >>> config.training_loss, config.hidden_size
        ('axe', 32)
    """

    model_type = "cmlm"
    keys_to_ignore_at_inference = ["length_logits", "encoder_last_hidden_state", "token_loss"]
    keys_to_ignore_at_inference += ["length_loss", "num_skipped_targets", "num_skipped_predictions"]
    attribute_map = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
        "max_position_embeddings": "max_target_length",
    }

    vocab_size: int = 32000
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "gelu"
    dropout: float | int = 0.3
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    normalize_before: bool = False
    position_embedding_type: Literal["learned", "sinusoidal"] = "learned"
    scale_embedding: bool = False
    layernorm_embedding: bool = False
    layer_norm_eps: float = 1e-12
    init_std: float | int = 0.02
    max_source_length: int = 1024
    max_target_length: int = 1024
    is_encoder_decoder: bool = True
    use_cache: bool = False
    tie_word_embeddings: bool = True
    output_bias: bool = False
    hide_length_token: bool = False
    pad_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    mask_token_id: int = 3
    blank_token_id: int = 4
    # Never fed to the decoder (no canvas has a start symbol); asked for by autoregressive scripts.
    decoder_start_token_id: int | None = 1
    training_loss: Literal["axe", "cross_entropy"] = "axe"
    axe_delta: float | int = 2.0
    allow_repetition: bool = False
    axe_temperature: float | int = 0.0
    label_smoothing: float | int = 0.0
    length_loss_weight: float | int = 0.1
    fused_loss: Literal["auto", "always", "never"] = "auto"
    masking: Literal["uniform", "full"] = "uniform"
    length_multiplier: float | int = 1.0
    length_jitter: float | int = 0.0
    directions: list[str] | None = None
    source_prefix: str | None = None

    def validate_fields(self):
        """Numbers are in range, heads divide the width, activation and canvases are possible."""
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            if (heads := getattr(self, name)) < 1 or self.d_model % heads:
                raise ValueError(f"`{name}` must divide `d_model`, got {heads} for {self.d_model}.")
        if (name := self.activation_function) not in ACT2FN:
            raise ValueError(f"`activation_function` must be a name in `ACT2FN`, got {name!r}.")
        require(CONFIG_RANGES, vars(self))
        # With uniform masks the multiplier is one of decoding alone.
        check_canvas_recipe(canvas_recipe(self) | {"masking": "full"}, self.training_loss)
        check_family(self)
        for direction in self.directions or ():
            languages_of(direction)

    def validate_special_tokens(self):
        """Pad, end, mask and blank are four different symbols of the vocabulary."""
        ids = {name: getattr(self, name) for name in SPECIAL_TOKEN_IDS}
        for name, token_id in ids.items():
            if not isinstance(token_id, int) or not 0 <= token_id < self.vocab_size:
                expected = f"one id in [0, {self.vocab_size}), as in the tokenizer"
                raise ValueError(f"`{name}` must be {expected}, got {token_id}.")
        if len(set(ids.values())) < len(ids):
            raise ValueError(f"pad, end, mask and blank must be four different tokens, got {ids}.")

    @property
    def source_languages(self) -> list[str]:
        """Those of `directions`, each once, in their order; none where they are not known."""
        return [*dict.fromkeys(languages_of(direction)[0] for direction in self.directions or ())]

    @property
    def target_languages(self) -> list[str]:
        """Those of `directions`, each once, in their order; none where they are not known."""
        return [*dict.fromkeys(languages_of(direction)[1] for direction in self.directions or ())]

    def tagged(self, text: str, target_lang: str | None = None) -> str:
        """A source as the model reads it: with its prefix, and, if it knows several targets, a tag.

        `target_lang` counts, and not a tag that `text` begins with. A prefix that is there already
        is not put twice.

        Raises:
            ValueError: `target_lang` is none of them, or missing where `text` has no tag either.

        Example:
            >>> from axe_hf import CmlmConfig
            >>> CmlmConfig(directions=["en-de", "en-fr"]).tagged("Good day.", "fr")
            '>>fr<< Good day.'
            >>> CmlmConfig(source_prefix="to French: ").tagged("Good day.")
            'to French: Good day.'
        """
        known = self.target_languages
        if target_lang is not None and known and target_lang not in known:
            raise ValueError(f"`target_lang` must be one of {known}, got {target_lang!r}.")
        if len(known) < 2:
            return with_prefix(text, self.source_prefix)
        tags = tuple(map(LANGUAGE_TAG.format, known))
        has_tag = text.lstrip().startswith(tags)
        if target_lang is None:
            if not has_tag:
                raise ValueError(f"`target_lang` must say into which of {known} to translate.")
            if not self.source_prefix:
                return text
        own_tag, _, behind = text.lstrip().partition("<<") if has_tag else ("", "", text)
        text = with_prefix(behind.lstrip() if has_tag else behind, self.source_prefix)
        tag = f"{own_tag}<<" if target_lang is None else LANGUAGE_TAG.format(target_lang)
        return f"{tag} {text}"

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """As in Transformers, but for the configuration of another kind of model."""
        if (kind := config_dict.get("model_type", cls.model_type)) != cls.model_type:
            advice = "Load it by AutoModelForSeq2SeqLM; it can rank (rescore_with) or teach a CMLM."
            raise ValueError(f"This is a {kind} checkpoint, not a {cls.model_type}. {advice}")
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any):
        """As in Transformers. What a copy of this file was loaded from is copied, too: whole, code
        and pipeline can be saved again where that is out of reach."""
        found = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        config = found[0] if isinstance(found, tuple) else found
        if __name__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME):
            names = ("cache_dir", "token", "local_files_only")
            where = {name: kwargs[name] for name in names if name in kwargs}
            where["revision"] = getattr(config, "_commit_hash", None)
            with suppress(OSError):  # it has no such file: `save_pretrained` says so
                _lay_beside(code_modules(config), pretrained_model_name_or_path, **where)
        return found

    def carry_code(self) -> None:
        """From now on, save the code along: others then load the model without this package."""
        self.auto_map, self.custom_pipelines = copy.deepcopy([AUTO_MAP, CUSTOM_PIPELINES])

    @contextmanager
    def with_code(self) -> Iterator[None]:
        """Saved inside, the code comes along."""
        before = {name: vars(self)[name] for name in _KEYS_OF_CODE & vars(self).keys()}
        self.carry_code()
        try:
            yield
        finally:
            for name in _KEYS_OF_CODE:
                delattr(self, name)
            for name, value in before.items():
                setattr(self, name, value)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any):
        """As in Transformers, with the code that the configuration names, if it names any."""
        saved = copy.copy(self)
        files, missing = code_files(code_modules(self))
        if missing:
            text = f"{', '.join(missing)}: not found, and so not saved along"
            logger.warning(f"{text}. Others need axe_hf to load what is in {save_directory}.")
            for key in _KEYS_OF_CODE & vars(saved).keys():
                delattr(saved, key)
        elif files and not os.path.isfile(save_directory):
            os.makedirs(save_directory, exist_ok=True)
            for file in files:
                copied = os.path.join(save_directory, file.name)
                if not (os.path.exists(copied) and file.samefile(copied)):
                    shutil.copyfile(file, copied)
        super(CmlmConfig, saved).save_pretrained(save_directory, *args, **kwargs)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise where `tokenizer` cannot be the one the model was trained with."""
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            problem = f"a tokenizer of Transformers, got {type(tokenizer).__name__}"
            raise TypeError(f"`tokenizer` must be {problem}. Load it by AutoTokenizer.")
        advice = "Is it the tokenizer the model was trained with?"
        for name in SPECIAL_TOKEN_IDS:
            if (got := getattr(tokenizer, name, None)) != (expected := getattr(self, name)):
                problem = f"The tokenizer's `{name}` is {got}, the model's config has {expected}"
                raise ValueError(f"{problem}. {advice} To build one: CmlmConfig({name}={got}).")
        if (size := len(tokenizer)) > self.vocab_size:
            problem = f"The tokenizer has {size} symbols, the model {self.vocab_size}. {advice}"
            raise ValueError(f"{problem} To widen it: model.resize_token_embeddings({size}).")


def code_modules(config: Any) -> list[str]:
    """The modules of ours that a configuration names, without what those import."""
    named = str([getattr(config, key, None) for key in sorted(_KEYS_OF_CODE)])
    return [*dict.fromkeys(re.findall(r"(\w+)\.Cmlm", named))]


def code_files(modules: list[str]) -> tuple[list[Path], list[str]]:
    """The files of modules and of what they import, and the names of those that are not there.

    They lie beside this one; in the package, the pipeline's is one folder up.
    """
    files, missing, modules = list[Path](), list[str](), [*modules]
    for module in modules:  # which grows
        places = [folder / f"{module}.py" for folder in Path(__file__).parents[:2]]
        if (file := next((place for place in places if place.is_file()), None)) is None:
            missing.append(places[0].name)
            continue
        files.append(file)
        modules += sorted({*get_relative_imports(file)} - {*modules})
    return files, missing


def _lay_beside(modules: list[str], name_or_path: Any, **where: Any) -> None:
    """Copy the files of modules, and of what they import, from a checkpoint to this one's."""
    modules, laid = [*modules], list[str]()
    for module in modules:  # which grows
        file = Path(__file__).with_name(f"{module}.py")
        if not file.is_file():
            unfinished = file.with_name(f".{uuid.uuid4().hex}")  # others may do the same now
            shutil.copyfile(cached_file(name_or_path, file.name, **where), unfinished)
            unfinished.replace(file)
            laid.append(file.name)
        modules += sorted({*get_relative_imports(file)} - {*modules})
    if laid and not os.path.isdir(name_or_path):  # Transformers says it of those it gets itself
        advice = "Read them before you trust them; a pinned `revision` stays the same"
        logger.warning(f"Downloaded from {name_or_path}: {', '.join(laid)}. {advice}.")


# What else a generation config may hold: ids, what other classes write into every configuration,
# what changes nothing here.
_INDIFFERENT = {"pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"}
_INDIFFERENT |= {"use_cache", "transformers_version", "output_attentions", "output_hidden_states"}
_INDIFFERENT |= {"output_logits", "disable_compile"}


@cache
def _base_fields() -> frozenset[str]:
    """The settings that Transformers knows."""
    return frozenset(vars(GenerationConfig()))


class MaskPredictGenerationConfig(GenerationConfig):
    """Settings of Mask-Predict, saved as `generation_config.json`; `generate` overrides some.

    Their table is `axe_hf.cmlm.configuration_mask_predict.SETTINGS`.

    Args:
        {settings}
        pad_token_id, eos_token_id, ... : as in `GenerationConfig`.

    Raises:
        ValueError: a value out of its range.

    Example:
        >>> from axe_hf import MaskPredictGenerationConfig
        >>> MaskPredictGenerationConfig(num_iterations=4).num_length_candidates
        1
        >>> MaskPredictGenerationConfig(length_multiplier=0)
        Traceback (most recent call last):
        ...
        ValueError: `length_multiplier` must be > 0, got 0.
    """

    if TYPE_CHECKING:  # the fields are those of `SETTINGS`

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **kwargs: Any):
        for setting in SETTINGS.values():
            if setting.is_own:
                setattr(self, setting.name, kwargs.pop(setting.name, setting.default))
        # `_from_model_config` makes the base class drop fields it does not know on the next load.
        kwargs.pop("_from_model_config", None)
        super().__init__(**kwargs)
        self._from_model_config = False

    @staticmethod
    def _get_default_generation_params() -> dict[str, Any]:
        """None: Seq2SeqTrainer would write the base class's, autoregressive, into the model."""
        return {}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """Read saved settings; what this version does not know is left out with a warning."""
        known = {*SETTINGS, *_base_fields(), *_INDIFFERENT, "return_unused_kwargs"}

        def pop_unknown(given: dict[str, Any]) -> dict[str, Any]:
            names = [name for name in given if name not in known and not name.startswith("_")]
            return {name: given.pop(name) for name in names}

        config_dict, unused = {**config_dict}, pop_unknown(kwargs)
        if unknown := pop_unknown(config_dict):
            names = ", ".join(map(ascii, unknown))  # ascii: a terminal obeys control characters
            logger.warning(f"Left out saved generation settings unknown to this version: {names}.")
        result = super().from_dict(config_dict, **kwargs)
        return (result[0], result[1] | unused) if isinstance(result, tuple) else result

    @classmethod
    def from_model_config(cls, model_config) -> "MaskPredictGenerationConfig":
        """Fresh settings with special tokens, length limit and multiplier of a `CmlmConfig`."""
        values = model_config if isinstance(model_config, dict) else model_config.to_dict()
        names = ("pad_token_id", "eos_token_id", "length_multiplier")
        known = {name: values.get(name) for name in names}
        known["max_length"] = values.get("max_target_length")
        return cls(**{name: value for name, value in known.items() if value is not None})

    def validate(self, *args, **kwargs):
        """Check every field; called by Transformers at each construction and update."""
        # Several results need neither beams nor sampling here, which the base class asks for.
        num_returned, self.num_return_sequences = self.num_return_sequences, None
        try:
            super().validate(*args, **kwargs)
        finally:
            self.num_return_sequences = num_returned
        for setting in SETTINGS.values():
            setting.check(getattr(self, setting.name))
        # Nothing is set that would be ignored.
        known, defaults = _base_fields(), GenerationConfig._get_default_generation_params()
        for name, value in vars(self).items():
            is_allowed = name in SETTINGS or name in _INDIFFERENT or name.startswith("_")
            if is_allowed or value is None or value == defaults.get(name):
                continue
            if name in AUTOREGRESSIVE:
                check_autoregressive(name, value)
            elif name in known and value is not False:
                raise ValueError(f"`{name}` has no meaning for Mask-Predict: leave {value!r} out.")
            elif name not in known:
                near = ", ".join(f"`{n}`" for n in get_close_matches(name, {*SETTINGS, *known}))
                advice = f" Is it {near}?" if near else ""
                raise ValueError(f"There is no setting `{name}`.{advice}")


if MaskPredictGenerationConfig.__doc__:  # none under python -OO
    wrapper = textwrap.TextWrapper(100, " " * 8, " " * 12, break_on_hyphens=False)
    texts = [wrapper.fill(f"{setting.name}: {setting.help}") for setting in SETTINGS.values()]
    MaskPredictGenerationConfig.__doc__ = MaskPredictGenerationConfig.__doc__.replace(
        "{settings}", "\n".join(texts).lstrip()
    )
