"""Training in several processes: what is refused of it, and weights spread over them (FSDP2)."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..cmlm.modeling_cmlm import CmlmDecoderLayer


def check_processes(args: Any) -> None:
    """Refuse to train alone where a launcher started several, which have not found each other.

    Of those that have, the first alone warns: the others would say the same.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and args.world_size == 1:
        problem = f"the launcher started {started} processes, but each would train by itself"
        raise ValueError(f"{problem}: there is no GPU. To use the CPUs, set `use_cpu` (--use-cpu).")
    if args.local_process_index > 0 and args.log_level_replica == "warning":  # the default
        logging.getLogger("axe_hf").setLevel(logging.ERROR)


def check_sharding(trainer: Any) -> None:
    """Refuse what would train otherwise than it was asked to, or was never run.

    On a CPU accelerate leaves FSDP out without a word.
    """
    asked = bool(trainer.args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if asked and not trainer.is_fsdp_enabled:
        size, device = trainer.args.world_size, trainer.args.device.type
        problem = f"FSDP is asked for, but accelerate shards nothing on {size} x {device}"
        raise ValueError(f"{problem}. It needs GPUs and a launcher; without it DDP trains alike.")
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise ValueError("`fsdp_version` must be 2, got 1. Set `fsdp_version: 2` (fsdp2.yaml).")
    if trainer.args.ema_decay is not None and trainer.is_deepspeed_enabled:
        problem = "`ema_decay` needs the weights, which DeepSpeed keeps in its optimizer"
        raise ValueError(f"{problem}. Use FSDP2 or DDP, or `average_checkpoints` afterwards.")
    if trainer.is_fsdp_enabled:
        _keep_float32(trainer.accelerator.state.fsdp_plugin)


def _keep_float32(plugin: Any) -> None:
    """Let FSDP2 add gradients up in float32 and hand on losses as they were computed, as DDP does.

    With `bf16` accelerate has it round both: a loss of 7.872 would be logged, and checkpoints
    chosen by it, as 7.875.
    """
    policy = plugin.mixed_precision_policy
    if policy is not None and policy.output_dtype in (torch.bfloat16, torch.float16):
        exact = {"reduce_dtype": torch.float32, "output_dtype": None}
        plugin.mixed_precision_policy = replace(policy, **exact)


@contextmanager
def embeddings_in_one_group(model: nn.Module) -> Iterator[None]:
    """Inside, accelerate leaves the embeddings where FSDP2 has all that is in no layer.

    By itself it makes a group of input embedding and output projection. Ours are tied to those of
    encoder and decoder, too, and PyTorch refuses a weight that is in two groups.
    """
    names = ("get_input_embeddings", "get_output_embeddings")
    for name in names:
        setattr(model, name, lambda: None)
    # What it warns of, an operation in place on what a model returned, is done nowhere here.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    try:
        yield
    finally:
        for name in names:
            delattr(model, name)


def let_generate(model: nn.Module) -> None:
    """Let FSDP2 gather a decoder layer, too, when `generate` reads it outside of its `forward`."""
    from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

    for module in model.modules():
        if isinstance(module, CmlmDecoderLayer) and isinstance(module, FSDPModule):
            register_fsdp_forward_method(module, "project_source")


def saves_shards(accelerator: Any) -> bool:
    """Whether the state dict of FSDP is that of each process, not the whole one."""
    return "SHARDED" in str(accelerator.state.fsdp_plugin.state_dict_type)


def reshard(model: nn.Module) -> None:
    """Let go of weights that stand gathered, which would hide what is written into the shards."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def models_are_whole(trainer: Any) -> Iterator[None]:
    """Inside, `from_pretrained` makes whole models: with ZeRO-3 each process would get a part."""
    from transformers.integrations import deepspeed

    if not deepspeed.is_deepspeed_zero3_enabled():
        yield
        return
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed.set_hf_deepspeed_config(trainer.accelerator.state.deepspeed_plugin.dschf)


def own_name(name: str) -> str:
    """The name of a weight without what gradient checkpointing by FSDP puts into it."""
    return name.replace("_checkpoint_wrapped_module.", "")


@torch.no_grad()
def write_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Write whole weights, which every process has, into `model`, however they are spread.

    Args:
        model: Not wrapped by DDP; its weights may be spread by FSDP2 or by DeepSpeed's ZeRO-3.
        weights: By name, tied ones once, in the shape of the whole.
    """
    reshard(model)
    for name, weight in model.named_parameters():
        value = weights[own_name(name)]
        with _gathered(weight):
            place = weight if hasattr(weight, "full_tensor") else weight.data
            place.copy_(spread_as(value, place).to(place.dtype))


def _gathered(weight: nn.Parameter) -> Any:
    """Inside, a weight that ZeRO-3 spreads is whole; what the first process writes is kept."""
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([weight], modifier_rank=0)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor that may be spread over processes, which must all ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def spread_as(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`tensor`, which every process has whole, spread over them as `like` is."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
