"""Which token a decoder state stands for, and how probable it is, without the logits of all of them at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .fused_loss_axe import is_plain_linear

# Largest (positions, columns of the vocabulary) block of logits held at once, in elements: 64 MiB in fp32. On a CPU
# blocks are smaller, 8 MiB, so that a block is still in a core's cache when its maximum and sum are taken.
MAX_LOGITS_ELEMENTS = 2**24
MAX_LOGITS_ELEMENTS_CPU = 2**21
MAX_COLUMNS_CPU = 4096


@dataclass(frozen=True)
class TokenChoice:
    """How a token is chosen.

    Args:
        never: ids that are not predicted.
        temperature: None takes the most probable token; a number > 0 draws from the logits divided by it.
        generator: randomness of the drawing; None is PyTorch's own.
    """

    never: tuple[int, ...]
    temperature: float | None = None
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class _Columns:
    """A part of the vocabulary: ids from `start`, its rows of the weight, and which of it is never predicted."""

    start: int
    weight: torch.Tensor | None  # None where the head has to be called
    bias: torch.Tensor | None
    never: torch.Tensor | None


class TokenPredictor:
    """Token and log-probability at decoder states; made once for all passes of a decoding.

    Args:
        lm_head: projects states to logits. A plain `nn.Linear` is read a part of the vocabulary at a time on a CPU.
        vocab_size: number of logits of a position.
        choice: how to choose.
        is_called_once: call a head that is not plain once a pass, whatever the number of positions and the memory: for
            processes that share its weights and must call it equally often.
    """

    def __init__(
        self,
        lm_head: nn.Module,
        vocab_size: int,
        choice: TokenChoice,
        *,
        is_called_once: bool = False,
    ):
        self.lm_head, self.vocab_size, self.choice = lm_head, vocab_size, choice
        self.is_called_once = is_called_once
        self._columns: list[_Columns] = []

    @torch.no_grad()
    def __call__(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict.

        Args:
            states: (positions, d_model).

        Returns:
            tokens (positions,) long, and their log-probabilities (positions,) in nats, in float32 or the states' wider
            type, of the distribution without `choice.never` and before the temperature.
        """
        if not self._columns:
            self._columns = self._parts_of_vocabulary(states)
        tokens, log_probs = zip(
            *(self._predict(block) for block in states.split(self._num_rows(states))), strict=True
        )
        return torch.cat(tokens), torch.cat(log_probs)

    def _num_rows(self, states: torch.Tensor) -> int:
        """Positions whose logits are held at once."""
        weight = self._columns[0].weight
        if weight is None and self.is_called_once:
            return max(1, len(states))
        budget = MAX_LOGITS_ELEMENTS
        if states.device.type == "cpu":
            budget = min(budget, MAX_LOGITS_ELEMENTS_CPU)
        return max(1, budget // (self.vocab_size if weight is None else len(weight)))

    def _parts_of_vocabulary(self, states: torch.Tensor) -> list[_Columns]:
        device = states.device
        is_split = device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        is_split &= is_plain_linear(self.lm_head, device)
        size = min(MAX_COLUMNS_CPU, MAX_LOGITS_ELEMENTS) if is_split else self.vocab_size
        parts = []
        for start in range(0, self.vocab_size, size):
            stop = min(start + size, self.vocab_size)
            never = [i - start for i in self.choice.never if start <= i < stop]
            weight = self.lm_head.weight[start:stop] if is_split else None
            bias = self.lm_head.bias if is_split else None
            bias = None if bias is None else bias[start:stop]
            never = torch.tensor(never, device=device) if never else None
            parts.append(_Columns(start, weight, bias, never))
        return parts

    def _predict(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The best token and a running sum of exp(logit - largest logit), part by part of the vocabulary."""
        temperature = self.choice.temperature
        largest = total = best = token = chosen = None
        for start, logits in self._logits(states):  # (rows, columns)
            new_largest, new_token = logits.max(dim=1)
            new_best = new_chosen = new_largest
            if temperature is not None:
                new_best, new_token = self._drawn(logits, temperature)
                new_chosen = logits.gather(1, new_token[:, None])[:, 0]
            if start == 0:
                best, token, chosen = new_best, new_token, new_chosen
            else:
                is_better = new_best > best  # on a tie the earlier token wins
                best = torch.where(is_better, new_best, best)
                token = torch.where(is_better, new_token + start, token)
                chosen = torch.where(is_better, new_chosen, chosen)
                new_largest = torch.maximum(largest, new_largest)
            # Of a part that is never predicted the largest logit is -inf, and -inf - -inf is not a number.
            shift = new_largest.clamp(min=torch.finfo(logits.dtype).min)
            new_total = logits.sub_(shift[:, None]).exp_().sum(dim=1)
            total = new_total if start == 0 else total * (largest - shift).exp() + new_total
            largest = new_largest
        # With the largest logit left out of the logarithm more digits are right than in logit - logsumexp.
        return token, (chosen - largest) - total.log()

    def _logits(self, states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """First id and logits of each part of the vocabulary; they may be overwritten."""
        dtype = torch.promote_types(states.dtype, torch.float32)
        for part in self._columns:
            if part.weight is None:
                # A copy, since a hook of the head's may have kept its output.
                logits = self.lm_head(states).to(dtype, copy=True)
            else:
                logits = F.linear(states, part.weight, part.bias).to(dtype)
            if part.never is not None:
                logits.index_fill_(1, part.never, -torch.inf)
            yield part.start, logits

    def _drawn(self, logits: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest of the logits over the temperature with Gumbel noise, and its index, both (rows,)."""
        noise = torch.empty_like(logits).exponential_(generator=self.choice.generator).log_()
        return (logits / temperature).sub_(noise).max(dim=1)
