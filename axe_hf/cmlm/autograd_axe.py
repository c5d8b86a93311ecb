"""How autograd sees a loss along a path: a first derivative, in one pass over the logits, and no second one."""

from __future__ import annotations

import torch

from .back_end_axe import along_path_gradient
from .compiled_axe import compiled_path_gradient


class AlongPath(torch.autograd.Function):
    """Passes on a loss that was computed along a path, and writes the gradient by the logits."""

    @staticmethod
    def forward(ctx, logits, loss, options, path_type, *path):
        ctx.save_for_backward(logits, *path)
        ctx.options = options
        ctx.path_type = path_type
        return loss.clone()

    @staticmethod
    def backward(ctx, grad_loss):
        logits, *path = ctx.saved_tensors
        if torch.compiler.is_compiling():
            grad = compiled_path_gradient(logits, ctx.path_type(*path), grad_loss, *ctx.options[:2])
            return grad, *[None] * (3 + len(path))
        grad = along_path_gradient(logits, ctx.path_type(*path), grad_loss, *ctx.options)
        if torch.is_grad_enabled():
            grad = RefuseSecondDerivative.apply(grad, logits, grad_loss)
        return grad, *[None] * (3 + len(path))


class RefuseSecondDerivative(torch.autograd.Function):
    """Passes on a gradient and refuses to be differentiated."""

    @staticmethod
    def forward(ctx, grad, *differentiable):
        return grad

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError(
            "The losses of axe_hf have a first derivative only, but a gradient was differentiated. Leave out "
            "create_graph=True, or use axe_loss_definition, which can be differentiated twice and is slow."
        )
