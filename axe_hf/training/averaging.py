"""Averages of weights: a moving one during training, and the mean of several checkpoints."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, TrainerCallback

from ..cmlm import CmlmForConditionalGeneration
from ..output import check_new_folder, whole_folder
from .distributed import reshard, spread_as, whole

EMA_STATE_NAME = "ema_state.safetensors"


class EmaCallback(TrainerCallback):
    """Exponential moving average of the trained weights, in fp32, of fp64 weights in fp64.

    After step t (from 1) the average moves by 1 - d towards the weights, with
    d = min(decay, (1 + t) / (10 + t)): the short memory at the beginning lets go of the random
    start. `AxeTrainer` evaluates and saves the average, which the model holds after training too.
    Checkpoints keep both. Weights that FSDP2 spreads over processes have averages that are spread
    alike; checkpoints keep them whole.

    Args:
        decay: Between 0 and 1, for instance 0.999; else ValueError.

    Example:
        >>> import torch
        >>> from axe_hf import EmaCallback
        >>> model, ema = torch.nn.PReLU(init=0.0), EmaCallback(0.9)
        >>> ema.start(model)
        >>> _ = model.weight.data.fill_(1.0)
        >>> ema.update()
        >>> with ema.applied():
        ...     round(model.weight.item(), 3)  # 0 moved by 1 - 2/11 towards 1
        0.818
    """

    def __init__(self, decay: float):
        if not isinstance(decay, int | float) or not 0 < decay < 1:
            raise ValueError(f"`decay` must be between 0 and 1, got {decay!r}.")
        self.decay, self.num_updates = decay, 0
        self.resume_from: str | Path | None = None
        self._model = nn.Module()
        self._weights: dict[str, nn.Parameter] = {}
        self._averages: list[torch.Tensor] = []

    def start(self, model: nn.Module) -> None:
        """Begin an average at the model's present weights."""
        self._model = model
        reshard(model)
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._averages = [_exact(p.detach()).clone() for p in self._weights.values()]
        self.num_updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        weights = [_exact(p.detach()) for p in self._weights.values()]
        torch._foreach_lerp_(self._averages, weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average inside this context; outside of training it does anyway."""
        kept = [p.detach().clone() for p in self._weights.values()]
        self._write(self._averages)
        try:
            yield
        finally:
            self._write(kept)

    def apply(self) -> None:
        """Let the model hold the average from now on."""
        self._write(self._averages)

    @torch.no_grad()
    def _write(self, values: list[torch.Tensor]) -> None:
        reshard(self._model)
        for weight, value in zip(self._weights.values(), values, strict=True):
            weight.copy_(value)

    def save(self, directory: str | Path, is_writer: bool = True) -> None:
        """Write average, trained weights and the count of updates into a checkpoint.

        Where weights are spread over processes all must call this, and one of them writes.
        """
        tensors = {f"weights.{name}": p.detach() for name, p in self._weights.items()}
        tensors |= {f"averages.{n}": a for n, a in zip(self._weights, self._averages, strict=True)}
        gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
        tensors = {name: tensor for name, tensor in gathered if is_writer}
        tensors["num_updates"] = torch.tensor(self.num_updates)
        if is_writer:
            save_file(tensors, Path(directory) / EMA_STATE_NAME)

    def load(self, model: nn.Module, directory: str | Path) -> None:
        """Take up what `save` wrote, the trained weights into the model, or FileNotFoundError."""
        path = Path(directory) / EMA_STATE_NAME
        if not path.is_file():
            problem = f"`ema_decay` is set, but {directory} holds no {EMA_STATE_NAME}"
            raise FileNotFoundError(f"{problem}. Leave it out.")
        self.start(model)
        tensors = load_file(path)
        self.num_updates = int(tensors["num_updates"])
        for name, average in zip(self._weights, self._averages, strict=True):
            average.copy_(spread_as(tensors[f"averages.{name}"], average))
        kept = ((tensors[f"weights.{name}"], weight) for name, weight in self._weights.items())
        self._write([spread_as(tensor, weight) for tensor, weight in kept])

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if self.resume_from is None:
            self.start(model)
        else:
            self.load(model, self.resume_from)

    def on_step_end(self, args, state, control, **kwargs):
        self.update()

    def on_train_end(self, args, state, control, **kwargs):
        # The best checkpoint, if it was loaded, holds averaged weights already.
        if not (args.load_best_model_at_end and state.best_model_checkpoint):
            self.apply()
        self._weights, self._averages = {}, []


@torch.no_grad()
def average_checkpoints(
    checkpoints: Sequence[str | Path], output_dir: str | Path | None = None
) -> CmlmForConditionalGeneration:
    """Average the weights of checkpoints of one run, as Mask-Predict does with its 5 best (4.1).

    Args:
        checkpoints: Folders that `save_pretrained` or the trainer wrote, one or more; those that
            are best, or the last of a run, are what `axe_hf.training.choose_checkpoints` finds.
        output_dir: A new or an empty folder for the result, with the first checkpoint's tokenizer.

    Returns:
        The averaged model, in evaluation mode. Means are taken in fp32, of fp64 weights in fp64.

    Raises:
        ValueError: There is no checkpoint, or two of them differ in shape.
        FileExistsError: `output_dir` holds something.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration, average_checkpoints
        >>> model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=20, d_model=8))
        >>> with TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     average_checkpoints([folder, folder]).config.d_model
        8
    """
    if isinstance(checkpoints, str | Path) or not checkpoints:
        raise ValueError(f"`checkpoints` must be a list of folders, got {checkpoints!r}.")
    folders = [Path(folder) for folder in checkpoints]
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise ValueError(f"`checkpoints`: {folder} holds no model (no config.json).")
    if output_dir is not None:
        check_new_folder(output_dir, "output_dir")
    average = CmlmForConditionalGeneration.from_pretrained(folders[0])
    # By name and once for each matrix: tied ones appear once.
    sums = {name: _exact(p).clone() for name, p in average.named_parameters()}
    for folder in folders[1:]:
        weights = dict(CmlmForConditionalGeneration.from_pretrained(folder).named_parameters())
        for name in sorted(sums.keys() | weights.keys()):
            first, other = (tuple(d[name].shape) if name in d else None for d in (sums, weights))
            if first != other:
                shapes = f"{name} has shape {first} in {folders[0]} and {other} in {folder}"
                raise ValueError(f"`checkpoints` must be of one model: {shapes}.")
            sums[name] = sums[name] + weights[name]
    for name, parameter in average.named_parameters():
        parameter.copy_(sums[name] / len(folders))
    if output_dir is not None:
        with whole_folder(output_dir) as unfinished:
            average.save_pretrained(unfinished)
            if (folders[0] / "tokenizer_config.json").is_file():
                AutoTokenizer.from_pretrained(folders[0]).save_pretrained(unfinished)
    return average.eval()


def _exact(weight: torch.Tensor) -> torch.Tensor:
    """`weight` in the precision that averages are taken in."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32))
