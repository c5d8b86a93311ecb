"""Compiles every kernel for an H100, as its launcher asks for it, on a machine without a GPU:
python compile_ahead.py

The interpreter accepts what the compiler refuses. Prints a line per kernel that was compiled.
"""

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from axe_hf import kernels
from axe_hf.cmlm.alignment_axe import AxeOptions, AxeTargets
from axe_hf.kernels import alignment


class NoDevice:
    """A driver that answers as one of a GPU does, as long as nothing is launched."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def set_current_device(self, device):
        pass

    def get_current_stream(self, device=0):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")


def compile_only(run):
    """Makes a launch stop after compilation."""

    def run_compile_only(self, *args, warmup, **options):
        compiled = run(self, *args, warmup=True, **options)
        assert "cubin" in compiled.asm, f"{self.__name__} gave {list(compiled.asm)}"
        print(f"{self.__name__}: {len(compiled.asm['cubin'])} bytes", flush=True)

    return run_compile_only


def compile_kernels(dtype: torch.dtype, canvas: int, with_everything: bool) -> None:
    """Calls both halves of the loss as `axe_loss` does."""
    batch, target, vocab = 2, canvas, 32
    logits = torch.zeros((batch, canvas, vocab), dtype=dtype)
    tokens = torch.ones((batch, target), dtype=torch.long)
    lengths = torch.full((batch,), target)
    observed = torch.zeros((batch, canvas), dtype=torch.bool)
    more = (lengths, observed) if with_everything else (None, None)
    targets = AxeTargets(tokens, lengths, *more)
    options = AxeOptions(0, 3.0, 0.1 if with_everything else 0.0)
    loss, _, path = kernels.axe_along_path(logits, targets, options)
    kernels.path_gradient(logits, path, loss, options, False)


if __name__ == "__main__":
    triton.runtime.driver.set_active(NoDevice())
    JITFunction.run = compile_only(JITFunction.run)
    compile_kernels(torch.bfloat16, 64, with_everything=False)
    compile_kernels(torch.float32, 64, with_everything=True)
    compile_kernels(torch.float64, 20, with_everything=True)
    alignment.MAX_BLOCK = 64
    compile_kernels(torch.bfloat16, 65, with_everything=True)
