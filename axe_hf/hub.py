"""Save or push a checkpoint with the code it needs, so that others load it without this package.

They load it by `AutoModelForSeq2SeqLM.from_pretrained(..., trust_remote_code=True)`. Where axe_hf
is installed and imported, its own classes are used and the copied code is left alone.
"""

import json
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from transformers import PreTrainedTokenizerBase
from transformers.dynamic_module_utils import get_relative_import_files

from . import pipeline
from .cmlm import CmlmForConditionalGeneration, modeling_cmlm
from .output import check_new_folder, whole_folder

_AUTO_MAP = {
    "AutoConfig": "configuration_cmlm.CmlmConfig",
    "AutoModel": "modeling_cmlm.CmlmModel",
    "AutoModelForSeq2SeqLM": "modeling_cmlm.CmlmForConditionalGeneration",
}
_CUSTOM_PIPELINES = {  # one: `pipeline(model=...)` takes it without being told
    pipeline.TASK: {"impl": "pipeline.CmlmTranslationPipeline", "pt": ["AutoModelForSeq2SeqLM"]}
}


def save_pretrained_with_code(
    model: CmlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    directory: str | Path,
    *,
    model_card: str | None = None,
) -> None:
    """Save weights, settings, tokenizer and code in a new folder, whole or not at all.

    Args:
        model, tokenizer: what belongs together.
        directory: the folder to make; it must not exist yet, or be empty.
        model_card: Markdown with the Hub's YAML header, written to README.md; none by default.

    Raises:
        FileExistsError: `directory` holds something, or is a file.
        TypeError: `model` or `tokenizer` is something else.

    Example:
        >>> import os, tempfile
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer
        >>> from axe_hf.hub import save_pretrained_with_code
        >>> tokenizer = train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)
        >>> config = CmlmConfig(vocab_size=len(tokenizer), encoder_layers=1, decoder_layers=1)
        >>> model = CmlmForConditionalGeneration(config)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_pretrained_with_code(model, tokenizer, f"{folder}/my-model")
        ...     "modeling_cmlm.py" in os.listdir(f"{folder}/my-model")
        True
    """
    modeling_cmlm.check_class(model)
    model.config.check_tokenizer(tokenizer)
    check_new_folder(directory, "directory", "Choose another name or remove it first.")
    with whole_folder(directory) as scratch:
        _write(model, tokenizer, scratch, model_card)


def push_to_hub_with_code(
    model: CmlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload model, tokenizer and code",
    model_card: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload what `save_pretrained_with_code` writes to the Hugging Face Hub, as one commit.

    Args:
        model, tokenizer, model_card: as in `save_pretrained_with_code`.
        repo_id: "name" or "owner/name"; the repository is made if there is none.
        private: whether a new repository is private; the owner's default by default.
        token: access token; the one that `hf auth login` stored by default.
        revision: the branch to write to, made if there is none; the main one by default.
        create_pr (default False): open a pull request to that branch, which must be there then.

    Returns:
        The address of the repository, or of the pull request.

    Raises:
        TypeError: `model` or `tokenizer` is something else.
        huggingface_hub.errors.HfHubHTTPError: the Hub refused; nothing was uploaded.

    Example:
        >>> push_to_hub_with_code(model, tokenizer, "me/de-en-axe")  # doctest: +SKIP
        'https://huggingface.co/me/de-en-axe'
    """
    modeling_cmlm.check_class(model)
    model.config.check_tokenizer(tokenizer)
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        _write(model, tokenizer, Path(folder), model_card)
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None and not create_pr and not revision.startswith("refs/"):
            api.create_branch(repo.repo_id, branch=revision, exist_ok=True)
        how = {"commit_message": commit_message, "revision": revision, "create_pr": create_pr}
        commit = api.upload_folder(repo_id=repo.repo_id, folder_path=folder, **how)
    return str(commit.pr_url if create_pr else repo)


def _write(model, tokenizer, folder: Path, model_card: str | None) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modeling = modeling_cmlm.__file__
    for file in {modeling, pipeline.__file__, *get_relative_import_files(modeling)}:
        shutil.copy(file, folder)
    # In the file: `register_for_auto_class` would change every later save, too.
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config |= {"auto_map": _AUTO_MAP, "custom_pipelines": _CUSTOM_PIPELINES}
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if model_card is not None:
        (folder / "README.md").write_text(model_card, encoding="utf-8")
