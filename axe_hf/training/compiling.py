"""`torch_compile` of a run: encoder and decoder compiled, the loss by the library's own code."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from accelerate.utils import DynamoBackend, TorchDynamoPlugin
from transformers.utils import logging

logger = logging.get_logger(__name__)


def take_compilation(trainer: Any) -> dict[str, Any] | None:
    """How `trainer` was asked to compile, for `torch.compile`; accelerate does not any more.

    It would compile the whole model, and so the loss, whose walk over the target would be unrolled
    and compiled anew for each length, which takes minutes each time.

    Raises ValueError where a process does not hold the weights, whole and once.
    """
    args = trainer.args
    # Reads what `accelerate launch --dynamo_backend` says, too.
    asked = TorchDynamoPlugin(backend=args.torch_compile_backend, mode=args.torch_compile_mode)
    if asked.backend == DynamoBackend.NO:
        return None
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled or args.n_gpu > 1:
        kind = "several GPUs in one process" if args.n_gpu > 1 else "FSDP or DeepSpeed"
        raise ValueError(f"`torch_compile` does not go with {kind}: leave it out, or use DDP.")
    trainer.accelerator.state.dynamo_plugin = TorchDynamoPlugin(backend=DynamoBackend.NO.value)
    return asked.to_kwargs() | {"dynamic": True}


def compiled_body(model: Any, options: dict[str, Any]) -> Callable[[], AbstractContextManager]:
    """Makes contexts, inside which encoder and decoder of `model` run compiled.

    Outside nothing of it is on the model, so that evaluating, saving and copying are as ever.

    Args:
        model: a CMLM, also with an adapter of PEFT's.
        options: of `torch.compile`, `backend` among them.

    Returns:
        What makes a context; all share the compiled code.

    Example:
        >>> from axe_hf import CmlmConfig, CmlmForConditionalGeneration
        >>> from axe_hf.training.compiling import compiled_body
        >>> model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=50, d_model=16))
        >>> with compiled_body(model, {"backend": "eager"})():
        ...     "forward" in vars(model.model)
        True
        >>> "forward" in vars(model.model)
        False
    """
    own = model.get_base_model() if hasattr(model, "get_base_model") else model
    body = own.model
    before = vars(body).get("forward")  # a hook of accelerate's
    compiled = torch.compile(body.forward, **options)
    logger.warning(
        f"`torch_compile`: encoder and decoder are compiled by {options['backend']!r} at the first "
        "batches, which may take minutes."
    )

    @contextmanager
    def in_use() -> Iterator[None]:
        body.forward = compiled
        try:
            yield
        finally:
            del body.forward
            if before is not None:
                body.forward = before

    return in_use
