"""The kernel of the benchmark of recipes gives what `axe_loss` gives."""

import math

import pytest
import torch

from axe_hf import axe_loss


def make_case(device):
    """Logits (3, 9, 7), targets (3, 4) with the blank, 0, behind their ends, and both lengths."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 9, 7, generator=generator)
    targets = torch.tensor([[3, 3, 1, 6], [2, 5, 5, 0], [4, 0, 0, 0]])
    lengths, canvas_lengths = torch.tensor([4, 3, 1]), torch.tensor([9, 6, 2])
    return [tensor.to(device) for tensor in (logits, targets, lengths, canvas_lengths)]


@pytest.mark.parametrize("is_observed", [False, True])
@pytest.mark.parametrize("allow_repetition", [False, True])
@pytest.mark.parametrize(("delta", "temperature"), [(math.inf, 1.0), (3.0, 1.0), (0.7, 0.3)])
def test_the_kernel_of_recipes(
    device, benchmarks, delta, temperature, allow_repetition, is_observed
):
    from recipes_kernel import family_loss

    logits, targets, lengths, canvas_lengths = make_case(device)
    options = {"blank_token_id": 0, "delta": delta, "temperature": temperature}
    options |= {"allow_repetition": allow_repetition}
    if is_observed:
        observed = torch.zeros(logits.shape[:2], dtype=torch.long, device=device)
        observed[0, 1] = 3
        is_shown = observed > 0
        is_shown[1, 2] = True
        options |= {"observed_mask": is_shown, "observed_tokens": observed}
    labels = targets.masked_fill(targets == 0, -100)
    leaves = [logits.clone().requires_grad_() for _ in range(2)]
    result, value, *_ = family_loss(leaves[0], targets, lengths, canvas_lengths, **options)
    exact = axe_loss(leaves[1], labels, canvas_lengths=canvas_lengths, reduction="sum", **options)
    torch.testing.assert_close(value, exact.detach(), rtol=1e-5, atol=1e-4)
    gradients = [
        torch.autograd.grad(loss, leaf)[0]
        for loss, leaf in zip((result, exact), leaves, strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
