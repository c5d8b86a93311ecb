"""bfloat16: whether hardware computes it, and by which attention a CPU trains faster in it."""

from typing import Any

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)


def has_fast_bf16(device_type: str) -> bool:
    """Whether "cpu" or "cuda" computes bfloat16 by instructions of its own.

    Emulated, it is several times slower than float32.

    Example:
        >>> from axe_hf.training import AxeTrainingArguments, has_fast_bf16
        >>> args = AxeTrainingArguments("run", bf16=has_fast_bf16("cpu"), use_cpu=True)
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.13
    return any(found.get(name) for name in ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16"))


def choose_attention(model: Any, args: Any) -> None:
    """Have `model` trained by the faster attention where `args` ask for bfloat16 on a CPU.

    Both compute the same, to rounding in bfloat16. On a processor with instructions for it "eager",
    one product for all heads of a batch, was several times faster than "sdpa", whose CPU kernel
    makes small ones for each head; on one without, where both emulate, "sdpa" took half the time.
    `python examples/benchmarks/training.py --parts precision` measures both. The rule reads the
    processor and times nothing, so that a run that is resumed chooses as it did before. Elsewhere
    nothing is changed.

    Args:
        model: A CMLM whose attention nobody chose.
        args: The training arguments, of which `bf16` and `device` are read.

    Example:
        >>> from axe_hf import AxeTrainingArguments, CmlmConfig, CmlmForConditionalGeneration
        >>> from axe_hf.training.precision import choose_attention
        >>> model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=9, d_model=8))
        >>> choose_attention(model, AxeTrainingArguments("run", use_cpu=True))  # no bf16
        >>> model.config._attn_implementation
        'sdpa'
    """
    if not args.bf16 or args.device.type != "cpu":
        return
    is_fast = has_fast_bf16("cpu")
    chosen, has = ("eager", "has") if is_fast else ("sdpa", "lacks")
    model.set_attn_implementation(chosen)
    reason = f"it is the faster in bf16 on a processor that {has} instructions for it"
    advice = "" if is_fast else " Without them float32 is several times faster than either."
    logger.warning(f"`attn_implementation` is {chosen!r}: {reason}.{advice}")
