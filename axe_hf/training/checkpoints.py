"""Which checkpoint a run goes on from."""

from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint


def resolve_checkpoint(asked: str | Path | bool | None, output_dir: str) -> str | None:
    """The folder of a checkpoint of the trainer.

    Args:
        asked: None or False for a new run; True or "last" for the last checkpoint in `output_dir`; or a folder.
        output_dir: of the run.

    Returns:
        The folder, None for a new run.

    Raises:
        ValueError: there is no such checkpoint.
    """
    if asked is None or str(asked).lower() in ("", "false"):
        return None
    if str(asked).lower() in ("true", "last"):
        last = get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
        if last is None:
            raise ValueError(
                f"`resume_from_checkpoint`: {output_dir} holds no checkpoint-* folder. Start a new run instead, "
                "without `resume_from_checkpoint`."
            )
        return last
    if not (Path(asked) / "trainer_state.json").is_file():
        raise ValueError(
            f"`resume_from_checkpoint` must be 'last' or a checkpoint folder of the trainer; {asked} holds no "
            "trainer_state.json."
        )
    return str(asked)
