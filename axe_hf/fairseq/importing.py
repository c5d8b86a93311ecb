"""Turn a checkpoint of Mask-Predict's program into a folder that Transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from torch import Tensor
from tqdm.auto import tqdm
from transformers.utils import logging

from ..cmlm import CmlmConfig, CmlmForConditionalGeneration, MaskPredictGenerationConfig
from ..cmlm.configuration_cmlm import languages_of
from ..output import check_new_folder, whole_folder
from .checkpoint import read_checkpoint
from .dictionary import joined_dictionary, read_codes, tokenizer_of, warn_of_text
from .tokenization_fairseq import FairseqTokenizer, MosesSettings
from .weights import complete_arguments, config_of, weights_of

logger = logging.get_logger(__name__)

PUBLISHED_LICENSE = "cc-by-nc-4.0"
LICENSE_WARNING = (
    "The weights that Mask-Predict's authors published are CC-BY-NC-4.0: for research, not for "
    "commercial use. The card says so. If these are your own, say your license."
)
_TEMPLATE = Path(__file__).parents[1] / "templates" / "fairseq_card.md"
_TAGS = ["axe_hf", "cmlm", "mask-predict", "non-autoregressive", "translation"]
# How the original program decodes (EMNLP 2019, section 4; its ranking knows no lengths).
_DECODING = {"num_iterations": 10, "num_length_candidates": 5, "length_score_weight": 0.0}
_DECODING |= {"min_length": 2}


def import_fairseq(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    dict_source: str | Path,
    dict_target: str | Path,
    moses: MosesSettings | None,
    bpe_codes: str | Path | None = None,
    direction: str | None = None,
    license: str | None = None,
) -> Path:
    """Import a model that Mask-Predict's program trained, with the tokenizer for raw text.

    The architectures `bert_transformer_seq2seq` and `bert_transformer_seq2seq_big` (Ghazvininejad
    et al., EMNLP 2019; https://github.com/facebookresearch/Mask-Predict) come over wholly: the
    logits are the original's to 1e-5, and the settings of decoding that are saved are those of its
    program (10 passes, 5 length candidates). It never predicts `<pad>` and `<mask>`, which the
    original may. fairseq's later `cmlm_transformer` is refused with what has no place here.

    The file is read without running what it holds. Weights are written in float32, which takes
    twice their size in memory; of a file that PyTorch wrote before version 1.6 three times, if the
    optimizer's state is in it.

    Args:
        checkpoint: the file, such as checkpoint_best.pt, or fairseq's average of several.
        output_dir: a new or an empty folder.
        dict_source, dict_target: the `dict.*.txt` of the data, which must be the same.
        moses: how the texts were tokenised by Moses, which no file says; None if they were not:
            then texts are split at white space.
        bpe_codes: the file that subword-nmt cut the words by; None if they are whole, or if all
            texts will be cut already.
        direction: what it translates, such as "en-de".
        license: of the weights, for the card; by default that of the published ones, with a
            warning.

    Returns:
        `output_dir`, for `AutoModelForSeq2SeqLM`, `AutoTokenizer` and `axe-hf translate`.

    Raises:
        FileNotFoundError, FileExistsError: a file is missing, or the folder holds something.
        ValueError: another architecture, a file that is not what it should be, settings or tensors
            that are missing or have no place, all by name.
        ImportError: sacremoses is missing, and `moses` asks for it.

    Example:
        >>> from axe_hf import MosesSettings, import_fairseq
        >>> files = {"dict_source": "data/dict.en.txt", "dict_target": "data/dict.de.txt"}
        >>> files["bpe_codes"] = "data/codes"
        >>> moses = MosesSettings("en", "de", aggressive_dash_splits=True)
        >>> import_fairseq(
        ...     "checkpoint_best.pt", "mask-predict-en-de", **files, moses=moses, direction="en-de"
        ... )  # doctest: +SKIP
        PosixPath('mask-predict-en-de')
    """
    folder = check_new_folder(output_dir, "output_dir")
    symbols = joined_dictionary(dict_source, dict_target)
    codes = None if bpe_codes is None else read_codes(bpe_codes)
    tokenizer = tokenizer_of(symbols, codes, moses)
    _try_moses(moses)
    model = _model_of(checkpoint, len(symbols), direction)
    model.config.check_tokenizer(tokenizer)
    warn_of_text(symbols, codes, moses)
    if license is None:
        logger.warning(LICENSE_WARNING)
    with whole_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        card = _card(model, tokenizer, folder, Path(checkpoint), license)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
    return folder


def _try_moses(moses: MosesSettings | None) -> None:
    """Fail at once where a text would; None needs nothing."""
    if moses is None:
        return
    for language in (moses.source_lang, moses.target_lang):
        moses.tokenized("a", language)
    moses.detokenized("a")


@torch.no_grad()
def _model_of(path: str | Path, vocab_size: int, direction: str | None) -> Any:
    """The model with its settings, in evaluation mode."""
    checkpoint = read_checkpoint(path)
    arguments = complete_arguments(checkpoint)
    directions = None if direction is None else [direction]
    config = config_of(arguments, vocab_size, directions=directions)
    weights = weights_of(checkpoint, arguments, config)
    model = _empty_model(config)
    _fill(model, weights)
    model.generation_config = MaskPredictGenerationConfig(
        **_DECODING,
        max_length=config.max_target_length,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
    )
    return model.eval()


def _empty_model(config: CmlmConfig) -> CmlmForConditionalGeneration:
    """A model whose weights were not drawn, which takes longer than all the rest."""
    with torch.device("meta"):
        model = CmlmForConditionalGeneration(config)
    model.to_empty(device="cpu")
    model.tie_weights()
    return model


def _fill(model: Any, weights: dict[str, Tensor | None]) -> None:
    parameters = dict(model.named_parameters())
    if parameters.keys() != weights.keys():
        raise AssertionError(parameters.keys() ^ weights.keys())
    for name, parameter in tqdm(parameters.items(), "Converting", disable=None, leave=False):
        tensor = weights.pop(name)
        if tensor is None:
            parameter.zero_()
        else:
            parameter.copy_(tensor)


def _card(
    model: Any, tokenizer: FairseqTokenizer, folder: Path, checkpoint: Path, license: str | None
) -> str:
    from ..training.model_card import hub_language  # no need of it where models are loaded

    config = model.config
    languages = [code for pair in config.directions or () for code in languages_of(pair)]
    data = ModelCardData(
        language=[known for code in languages if (known := hub_language(code))] or None,
        license=license or PUBLISHED_LICENSE,
        library_name="transformers",
        pipeline_tag="translation",
        tags=_TAGS,
    )
    details = {
        "name": folder.resolve().name,
        "checkpoint": checkpoint.name,
        "config": config,
        "languages": languages,
        "is_published": license is None,
        "moses": tokenizer.moses_settings,
        "has_codes": tokenizer.init_kwargs.get("bpe_codes") is not None,
        "num_parameters": model.num_parameters(),
        "decoding": _DECODING,
    }
    return str(ModelCard.from_template(data, template_path=str(_TEMPLATE), **details))
