"""Which token a decoder state stands for, and how probable it is, without the logits of all of them at once."""

from dataclasses import dataclass

import torch
from torch import nn

# Largest (positions, vocab) tensor of scores held at once, in elements: 64 MiB in fp32. On a CPU fewer or more
# rows at a time were not faster.
MAX_LOGITS_ELEMENTS = 2**24


@dataclass(frozen=True)
class TokenChoice:
    """How a token is chosen.

    Args:
        vocab_size: number of logits of a position.
        never: ids that are not predicted.
        temperature: None takes the most probable token; a number > 0 draws from the logits divided by it.
        generator: randomness of the drawing; None is PyTorch's own.
    """

    vocab_size: int
    never: tuple[int, ...]
    temperature: float | None = None
    generator: torch.Generator | None = None


def predict_tokens(
    lm_head: nn.Module, states: torch.Tensor, choice: TokenChoice
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token and log-probability at each decoder state.

    Args:
        lm_head: projects states to logits.
        states: (positions, d_model).
        choice: how to choose.

    Returns:
        tokens (positions,) long, and their log-probabilities (positions,) in nats, in float32 or the states' wider
        type, of the distribution without `choice.never` and before the temperature.
    """
    never = torch.tensor(choice.never, device=states.device)
    rows = max(1, MAX_LOGITS_ELEMENTS // choice.vocab_size)
    tokens, log_probs = [], []
    for chunk in states.split(rows):
        logits = lm_head(chunk)  # (rows, vocab)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits.index_fill_(1, never, -torch.inf)
        largest, token = logits.max(dim=1, keepdim=True)
        # log P is -log(sum of exp(logit - largest)), which keeps more digits than largest - logsumexp.
        relative = 0.0
        if choice.temperature is not None:
            token = _draw(logits, choice)
            relative = logits.gather(1, token) - largest
        log_prob = relative - logits.sub_(largest).exp_().sum(dim=1, keepdim=True).log_()
        tokens.append(token[:, 0])
        log_probs.append(log_prob[:, 0])
    if not tokens:
        return states.new_empty(0, dtype=torch.long), states.new_empty(0)
    return torch.cat(tokens), torch.cat(log_probs)


def _draw(logits: torch.Tensor, choice: TokenChoice) -> torch.Tensor:
    """One token a row, (rows, 1), from the logits divided by the temperature: the largest after Gumbel noise."""
    noise = torch.empty_like(logits).exponential_(generator=choice.generator).log_()
    return (logits / choice.temperature).sub_(noise).argmax(dim=1, keepdim=True)
