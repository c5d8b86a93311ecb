"""Save or push a checkpoint with the code it needs, so that others load it without this package.

They load it by `AutoModelForSeq2SeqLM.from_pretrained(..., trust_remote_code=True)`. Where axe_hf
is installed and imported, its own classes are used and the copied code is left alone.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .cmlm import CmlmConfig, CmlmForConditionalGeneration, modeling_cmlm
from .export import is_exported
from .output import check_new_folder, is_shared, whole_folder

CARD = "README.md"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


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
        model, tokenizer: as in `save_pretrained_with_code`.
        repo_id: "name" or "owner/name"; the repository is made if there is none.
        private: whether a new repository is private; the owner's default by default.
        token: access token; the one that `hf auth login` stored by default.
        model_card: Markdown with the Hub's YAML header; by default the repository's stays, and
            where there is none, one is made that tells what the model tells of itself.
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
    how: dict[str, Any] = {"private": private, "token": token, "commit_message": commit_message}
    how |= {"revision": revision, "create_pr": create_pr}
    with tempfile.TemporaryDirectory() as folder:
        _write(model, tokenizer, Path(folder), model_card)
        files = {path.name: path for path in Path(folder).iterdir()}
        return _commit(files, repo_id, model.config, **how)


def push_folder_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload model, tokenizer and code",
    revision: str | None = None,
    create_pr: bool = False,
    license: str | None = None,
) -> str:
    """Upload a folder with a model to the Hugging Face Hub, with code and a card, as one commit.

    The folder is one that training, `save_pretrained` or `axe-hf export` wrote, or an adapter whose
    base is on the Hub. The weights are not loaded. A run's checkpoints, its `training_args.bin` and
    its translations of the test data stay at home.

    Args:
        folder: what to upload. Its README.md is the card; without one the repository's stays, and
            where there is none, one is made that tells what the model tells of itself.
        repo_id, private, token, revision, create_pr: as in `push_to_hub_with_code`.
        commit_message: title of the commit, or of the pull request.
        license: an identifier of the Hub, such as "apache-2.0", for the card.

    Returns:
        The address of the repository, or of the pull request.

    Raises:
        FileNotFoundError, ValueError: `folder` holds no model that others could use.
        huggingface_hub.errors.HfHubHTTPError: the Hub refused; nothing was uploaded.

    Example:
        >>> from axe_hf import push_folder_to_hub
        >>> push_folder_to_hub("axe_hf_quickstart/axe", "me/en-de-axe")  # doctest: +SKIP
        'https://huggingface.co/me/en-de-axe'
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` must be the folder of a model, there is no {folder}.")
    how: dict[str, Any] = {"private": private, "token": token, "commit_message": commit_message}
    how |= {"revision": revision, "create_pr": create_pr, "license": license}
    files = {path.name: path for path in sorted(folder.iterdir()) if is_shared(path)}
    with tempfile.TemporaryDirectory() as scratch:
        if "adapter_config.json" in files and "config.json" not in files:
            _check_adapter(folder)
            return _commit(files, repo_id, None, **how)
        config = _checked_config(folder, files)
        if not is_exported(folder):  # graphs need no code
            config.carry_code()
            config.save_pretrained(scratch)
            files |= {path.name: path for path in Path(scratch).iterdir()}
        return _commit(files, repo_id, config, **how)


def _checked_config(folder: Path, files: dict[str, Path]) -> CmlmConfig:
    """The configuration of what is whole, or an error that says what is not."""
    if "config.json" not in files:
        raise ValueError(f"`folder`: {folder} holds no model: there is no config.json in it.")
    config = CmlmConfig.from_pretrained(folder)
    if not is_exported(folder) and not {*_WEIGHTS} & files.keys():
        raise ValueError(f"`folder`: {folder} lacks the weights, {_WEIGHTS[0]}.")
    if "tokenizer_config.json" not in files:
        advice = "Save it there: tokenizer.save_pretrained(folder)"
        raise ValueError(f"`folder`: {folder} lacks the tokenizer. {advice}.")
    config.check_tokenizer(AutoTokenizer.from_pretrained(folder))
    return config


def _check_adapter(folder: Path) -> None:
    from .training.sharing import check_base  # with it comes the Trainer

    adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    check_base(adapter.get("base_model_name_or_path"), "folder")


def _commit(
    files: dict[str, Path],
    repo_id: str,
    config: CmlmConfig | None,
    *,
    private: bool | None,
    token: str | None,
    commit_message: str,
    revision: str | None,
    create_pr: bool,
    license: str | None = None,
) -> str:
    """Upload files by their names, all in one commit, whatever the client has for large folders."""
    api = HfApi(token=token)
    repo = api.create_repo(repo_id, private=private, exist_ok=True)
    if revision is not None and not create_pr and not revision.startswith("refs/"):
        api.create_branch(repo.repo_id, branch=revision, exist_ok=True)
    added = {name: CommitOperationAdd(name, path) for name, path in files.items()}
    if CARD in files:
        card = files[CARD].read_text(encoding="utf-8")
        card = _renamed(card, files[CARD].resolve().parent.name, repo.repo_id)
    elif config is not None and not api.file_exists(repo.repo_id, CARD, revision=revision):
        card = _minimal_card(repo.repo_id, config, files)
    else:
        card = None
    if card is not None:
        added[CARD] = CommitOperationAdd(CARD, _with_license(card, license).encode("utf-8"))
    how: dict[str, Any] = {"commit_message": commit_message, "revision": revision}
    commit = api.create_commit(repo.repo_id, added.values(), create_pr=create_pr, **how)
    return str(commit.pr_url or repo)  # what holds nothing new opens no pull request


def _renamed(card: str, folder: str, repo_id: str) -> str:
    """A card whose code loads `repo_id`, and no longer the folder that the card was written for.

    That is `folder`, or, if it was copied since, what the title says.
    """
    names = {folder, *re.findall("^# (.+)$", card, re.MULTILINE)[:1]}
    shown = "|".join(re.escape(json.dumps(name)) for name in names)
    loads = rf"((?:from_pretrained|load_exported)\(|axe-hf translate )(?:{shown})"
    return re.sub(loads, lambda found: found[1] + json.dumps(repo_id), card)


def _minimal_card(repo_id: str, config: CmlmConfig, files: dict[str, Path]) -> str:
    from .training.model_card import minimal_card_text  # with it comes the Trainer

    folder = files["generation_config.json"].parent
    return minimal_card_text(repo_id, config, folder, is_exported(folder))


def _with_license(card: str, license: str | None) -> str:
    """A card with a licence on top, and in the line that ours have of it."""
    if license is None:
        return card
    line = f"- Licence: `{license}`"
    changed = ModelCard(re.sub("^- Licence: .*$", lambda _: line, card, flags=re.MULTILINE))
    changed.data.license = license
    return str(changed)


def _write(model, tokenizer, folder: Path, model_card: str | None) -> None:
    with model.config.with_code():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if model_card is not None:
        (folder / CARD).write_text(model_card, encoding="utf-8")
