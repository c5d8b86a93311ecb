"""What Transformers' script run_translation.py calls otherwise than this library."""

import os
from dataclasses import dataclass, fields, replace

from transformers.utils import logging

from ..output import check_new_folder
from .arguments import AxeTrainingArguments, DataArguments, ModelArguments, with_help

logger = logging.get_logger(__name__)

# Why a setting is no use here, and what is in its place.
_REFUSED = {
    "config_name": "A trained model has its own configuration; the sizes of a new one are settings "
    "such as `d_model`",
    "cache_dir": "Set the environment variable HF_HOME before the start: data sets go by it, too",
    "forced_bos_token": "A canvas is filled at once and has no first token to force. A model "
    "writes the language it was trained on; for a teacher's tokenizer set `teacher_target_lang`",
    "ignore_pad_token_for_loss": "Padding is never scored. Leave it out",
}
_NEEDLESS = {
    "use_auth_token": "the token of `hf auth login` is used wherever there is one",
    "overwrite_output_dir": "a training run never writes over another",
    "trust_remote_code": "a CMLM's code is this library's, no other is run",
    "use_fast_tokenizer": "a tokenizer is of the class that its folder names",
    "overwrite_cache": "tokenized data is cached by what it was made of, and never out of date",
    "pad_to_max_length": "batches are padded to their longest sentence, with the same result",
}


@with_help
@dataclass
class ScriptArguments:
    """Settings of Transformers' run_translation.py that have another name here, or no use.

    Args:
        tokenizer_name (default None): `tokenizer_name_or_path`.
        dataset_config_name (default None): what stands behind the colon of `dataset_name`.
        val_max_target_length (default None): `generation_max_length`.
        num_beams (default None): `num_length_candidates`: no beams, but lengths are what is tried.
        trust_remote_code (default False): not needed.
        use_fast_tokenizer (default True): not needed.
        overwrite_cache (default False): not needed.
        pad_to_max_length (default False): not needed.
        use_auth_token (default False): not needed.
        overwrite_output_dir (default False): not needed, and refused where there is something to be
            written over.
        token (default None): access token of the Hub, for models, data sets and pushes; by default
            that of hf auth login. Others on the machine can read it in the command: in the variable
            HF_TOKEN, which this sets in its process, they cannot.
        config_name (default None): refused; sizes of a new model are settings of their own.
        cache_dir (default None): refused; set the environment variable HF_HOME.
        forced_bos_token (default None): refused; there is no first token to force.
        ignore_pad_token_for_loss (default True): refused where false; padding is never scored.

    Example:
        >>> from axe_hf.training import ScriptArguments
        >>> ScriptArguments(num_beams=4).num_beams
        4
    """

    tokenizer_name: str | None = None
    dataset_config_name: str | None = None
    val_max_target_length: int | None = None
    num_beams: int | None = None
    trust_remote_code: bool = False
    use_fast_tokenizer: bool = True
    overwrite_cache: bool = False
    pad_to_max_length: bool = False
    use_auth_token: bool = False
    overwrite_output_dir: bool = False
    token: str | None = None
    config_name: str | None = None
    cache_dir: str | None = None
    forced_bos_token: str | None = None
    ignore_pad_token_for_loss: bool = True

    def __post_init__(self):
        for name, instead in _REFUSED.items():
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"`{name}` of run_translation.py is not one here. {instead}.")

    def applied_to(
        self,
        model_args: ModelArguments,
        data_args: DataArguments,
        training_args: AxeTrainingArguments,
    ) -> tuple[ModelArguments, DataArguments, AxeTrainingArguments]:
        """The three kinds of arguments, with what is meant by these; `training_args` is changed.

        Raises:
            FileExistsError: `overwrite_output_dir`, and there is something in `output_dir`.
            ValueError: Something is given by both of its names.
        """
        given = {
            f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default
        }
        is_trained = training_args.do_train or not (
            training_args.do_eval + training_args.do_predict
        )
        if self.overwrite_output_dir and is_trained:
            advice = (
                "A run never writes over another: remove the folder, choose another one, or go "
            )
            advice += "on in it by `resume_from_checkpoint`, which may be last"
            check_new_folder(training_args.output_dir, "output_dir", f"{advice}.")
        if self.token is not None:
            os.environ["HF_TOKEN"] = self.token
        for name in sorted(given.keys() & _NEEDLESS.keys()):
            logger.warning(f"`{name}` changes nothing: {_NEEDLESS[name]}.")
        if self.tokenizer_name is not None:
            _check_single(data_args, "tokenizer_name_or_path", "tokenizer_name")
            data_args = replace(data_args, tokenizer_name_or_path=self.tokenizer_name)
        if (part := self.dataset_config_name) is not None:
            hub = data_args.dataset_name
            if hub is None or ":" in hub:
                text = f"goes with a `dataset_name` without a colon, got {hub!r}"
                raise ValueError(f"`dataset_config_name` {text}.")
            data_args = replace(data_args, dataset_name=f"{hub}:{part}")
        if (longest := self.val_max_target_length) is not None:
            _check_single(training_args, "generation_max_length", "val_max_target_length")
            training_args.generation_max_length = longest
        if (number := self.num_beams) is not None:
            _check_single(training_args, "num_length_candidates", "num_beams")
            training_args.num_length_candidates = number
            training_args.check()
            text = f"so many lengths are tried for each sentence: `num_length_candidates` {number}"
            logger.warning(f"`num_beams` is {number}, but there are no beams here; {text}.")
        return model_args, data_args, training_args


def _check_single(arguments: object, name: str, other: str) -> None:
    if (value := getattr(arguments, name)) is not None:
        raise ValueError(f"`{other}` is another name of `{name}`, which is {value!r}: give one.")
