r"""Posteriors of the alignment family by Triton, two launches that a CUDA graph can hold.

One program computes one sentence, of n targets and c positions. A row of its four tables stands for
0 to n targets that are done with, a column for 0 to c positions:

    T[i, j]   log-probability of all ways to come here in which position j says target i
    N[i, j]   the same, of those that end with a blank or with a skipped target
    BT, BN    log-probability of all ways from there to the end

              j - 1      j
    i - 1     T, N ..   T, N    position j says target i: from the left above (and, where it may be
                 \ say    | skip  repeated, from T on the left); a blank: from the left; target i is
    i         T, N ---> T, N    skipped: from above.
                    blank

A row hangs on itself only through sums along it, which are scans; rows follow on each other.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

NEVER = -60.0  # log-probability of what an observed position does not say


@triton.jit
def _add(a, b):
    """log(exp(a) + exp(b))"""
    highest = tl.maximum(a, b)
    return highest + tl.log(1.0 + tl.exp(tl.minimum(a, b) - highest))


@triton.jit
def _load_token(row, j, c, inverse_t):
    """Log-probabilities of a target at the positions, that of the first at j = 0 too."""
    return tl.load(row + tl.maximum(j - 1, 0), mask=j <= c, other=0.0) * inverse_t


@triton.jit
def _load_sum(N, T):
    return _add(tl.load(N), tl.load(T))


@triton.jit
def _load_left(N, T, j):
    left = tl.load(N - 1, mask=j >= 1, other=-1e30)
    return _add(left, tl.load(T - 1, mask=j >= 1, other=-1e30))


@triton.jit
def _at_position(skips, j):
    """What is skipped before the first position is priced there."""
    at_start = tl.sum(tl.where(j == 0, skips, 0.0), 0)
    return skips + tl.where(j == 1, at_start, 0.0)


@triton.jit
def _ways_here(
    token,
    blank,
    is_repeat,
    lengths,
    canvas_lengths,
    tables,
    value,
    widest,
    canvas,
    inverse_t,
    delta,
    REPEAT: tl.constexpr,
    SKIP: tl.constexpr,
    M: tl.constexpr,
):
    s, j = tl.program_id(0), tl.arange(0, M)
    n, c = tl.load(lengths + s), tl.load(canvas_lengths + s)
    is_inside = (j >= 1) & (j <= c)
    b = tl.load(blank + s * canvas + j - 1, mask=is_inside, other=0.0) * inverse_t
    B = tl.cumsum(b, 0)
    T = tables + s * (widest + 1) * M
    N = T + tl.num_programs(0) * (widest + 1) * M
    tl.store(T + j, tl.full([M], -1e30, tl.float32))
    tl.store(N + j, B)
    tl.debug_barrier()
    for i in range(1, n + 1):
        row, above = i * M + j, (i - 1) * M + j
        price = _load_token(token + (s * widest + i - 1) * canvas, j, c, inverse_t)
        t = tl.where(j >= 1, price, 0.0)
        no_token = tl.load(N + above - 1, mask=j >= 1, other=-1e30)
        entry = _add(no_token, tl.load(T + above - 1, mask=j >= 1, other=-1e30))
        if REPEAT:  # between two equal targets something else must stand
            entry = tl.where(tl.load(is_repeat + s * widest + i - 1) != 0, no_token, entry)
        entry = tl.where(j >= 1, entry, -1e30)
        says = t + entry
        if REPEAT:
            sums = tl.cumsum(t, 0)
            says = sums + tl.associative_scan(entry - (sums - t), 0, _add)
        tl.store(T + row, says)
        tl.debug_barrier()
        source = tl.load(T + row - 1, mask=j >= 1, other=-1e30) + b
        if SKIP:
            source = _add(source, _load_sum(N + above, T + above) + delta * price)
        tl.store(N + row, B + tl.associative_scan(source - B, 0, _add))
        tl.debug_barrier()
    total = _load_sum(N + n * M + c, T + n * M + c)
    tl.store(value + s, -total / inverse_t)


@triton.jit
def _ways_on(
    token,
    row,
    j,
    c,
    from_T,
    from_N,
    is_repeat,
    inverse_t,
    delta,
    REPEAT: tl.constexpr,
    SKIP: tl.constexpr,
):
    """From row i to row i + 1 = `row`: all ways on for those in N, and for those in T."""
    price = tl.load(token + j, mask=j < c, other=0.0) * inverse_t
    on_from_N = tl.load(from_T + row + 1, mask=j < c, other=-1e30) + price
    on_from_T = on_from_N
    if REPEAT:
        on_from_T = tl.where(tl.load(is_repeat) != 0, -1e30, on_from_N)
    if SKIP:
        skip = tl.load(from_N + row) + delta * _load_token(token, j, c, inverse_t)
        skip = tl.where(j <= c, skip, -1e30)
        on_from_N, on_from_T = _add(on_from_N, skip), _add(on_from_T, skip)
    return on_from_N, on_from_T


@triton.jit
def _posteriors(
    token,
    blank,
    is_repeat,
    lengths,
    canvas_lengths,
    tables,
    gamma,
    gamma_blank,
    widest,
    canvas,
    inverse_t,
    delta,
    REPEAT: tl.constexpr,
    SKIP: tl.constexpr,
    M: tl.constexpr,
):
    s, j = tl.program_id(0), tl.arange(0, M)
    n, c = tl.load(lengths + s), tl.load(canvas_lengths + s)
    is_inside = (j >= 1) & (j <= c)
    b = tl.load(blank + s * canvas + j - 1, mask=is_inside, other=0.0) * inverse_t
    next_b = tl.load(blank + s * canvas + j, mask=j < c, other=0.0) * inverse_t
    B = tl.cumsum(b, 0)
    size = tl.num_programs(0) * (widest + 1) * M
    T = tables + s * (widest + 1) * M
    N, BT, BN = T + size, T + 2 * size, T + 3 * size
    total = _load_sum(N + n * M + c, T + n * M + c)
    is_possible = (j <= c) & ((tl.zeros([M], tl.float32) + total) > -1e20)
    is_used = is_inside & is_possible  # elsewhere the outputs stay 0
    blanks = tl.zeros([M], tl.float32)
    for k in range(n + 1):
        i = n - k
        row, first = i * M + j, s * widest + i  # first: of target i + 1
        on_from_N = tl.where((k == 0) & (j == c), 0.0, -1e30)
        on_from_T = on_from_N
        if k > 0:
            how = token + first * canvas
            on_from_N, on_from_T = _ways_on(
                how, row + M, j, c, BT, BN, is_repeat + first, inverse_t, delta, REPEAT, SKIP
            )
        ways = tl.associative_scan(on_from_N + B, 0, _add, reverse=True) - B
        ways = tl.where(j <= c, ways, -1e30)
        tl.store(BN + row, ways)
        tl.debug_barrier()
        blanks += tl.exp(_load_left(N + row, T + row, j) + b + ways - total)
        if i > 0:
            price = _load_token(token + (first - 1) * canvas, j, c, inverse_t)
            on_from_T = _add(on_from_T, tl.load(BN + row + 1, mask=j < c, other=-1e30) + next_b)
            if REPEAT:
                sums = tl.cumsum(tl.where(j >= 1, price, 0.0), 0)
                on_from_T = tl.associative_scan(on_from_T + sums, 0, _add, reverse=True) - sums
            on_from_T = tl.where(j <= c, on_from_T, -1e30)
            tl.store(BT + row, on_from_T)
            uses = tl.exp(tl.load(T + row) + on_from_T - total)
            if SKIP:
                skips = _load_sum(N + row - M, T + row - M) + delta * price + ways - total
                uses += delta * _at_position(tl.where(is_possible, tl.exp(skips), 0.0), j)
            tl.store(gamma + (first - 1) * canvas + j - 1, uses, mask=is_used)
        tl.debug_barrier()
    tl.store(gamma_blank + s * canvas + j - 1, blanks, mask=is_used)


@torch.no_grad()
def posteriors(
    token: Tensor,
    blank: Tensor,
    is_repeat: Tensor,
    lengths: Tensor,
    canvas_lengths: Tensor,
    allow_repetition: bool,
    temperature: float,
    delta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """How much each target and the blank use each position, and the loss of each sentence.

    Args:
        token: `(batch, target, canvas)`, float32. Log-probability of a target at a position.
        blank: `(batch, canvas)`, float32. That of the blank.
        is_repeat: `(batch, target)`, long. 1 where a target equals the one before it.
        lengths, canvas_lengths: `(batch,)`, long. Targets and positions per sentence, at least 1.
        allow_repetition, temperature, delta: As in `axe_loss`; the temperature is over 0.

    Returns:
        `(batch, target, canvas)`, `(batch, canvas)` and `(batch,)`.
    """
    batch, widest, canvas = token.shape
    M = triton.next_power_of_2(canvas + 1)
    can_skip = delta != float("inf")
    tables = token.new_empty((4, batch, widest + 1, M))
    gamma, gamma_blank = torch.zeros_like(token), torch.zeros_like(blank)
    value = token.new_empty(batch)
    inputs = (token, blank, is_repeat, lengths, canvas_lengths, tables)
    sizes = (widest, canvas, 1.0 / temperature, delta if can_skip else 0.0)
    flags = {"REPEAT": allow_repetition, "SKIP": can_skip, "M": M, "num_warps": 1}
    _ways_here[(batch,)](*inputs, value, *sizes, **flags)
    _posteriors[(batch,)](*inputs, gamma, gamma_blank, *sizes, **flags)
    return gamma, gamma_blank, value


def family_loss(
    logits: Tensor,
    targets: Tensor,
    lengths: Tensor,
    canvas_lengths: Tensor,
    *,
    blank_token_id: int,
    delta: float,
    allow_repetition: bool,
    temperature: float,
    label_smoothing: float = 0.0,
    observed_mask: Tensor | None = None,
    observed_tokens: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A sum whose gradient is that of `axe_loss`, the loss itself, and the posteriors.

    `targets` is `(batch, target)`, with the blank behind the ends; the rest is as in `axe_loss`.
    """
    log_probs = logits.float().log_softmax(-1)  # (batch, canvas, vocab)
    index = targets[:, None, :].expand(*logits.shape[:2], targets.shape[1])
    token = log_probs.gather(2, index).transpose(1, 2)  # (batch, target, canvas)
    blank = log_probs[:, :, blank_token_id]
    is_repeat = torch.zeros_like(targets)
    is_repeat[:, 1:] = targets[:, 1:] == targets[:, :-1]
    seen, seen_blank = token.detach().contiguous(), blank.detach().contiguous()
    if observed_mask is not None:
        says = torch.where(targets[:, :, None] == observed_tokens[:, None, :], 0.0, NEVER)
        says_blank = torch.where(observed_tokens == blank_token_id, 0.0, NEVER)
        seen = torch.where(observed_mask[:, None, :], says, seen).contiguous()
        seen_blank = torch.where(observed_mask, says_blank, seen_blank).contiguous()
    arguments = (lengths, canvas_lengths, allow_repetition, temperature, delta)
    gamma, gamma_blank, value = posteriors(seen, seen_blank, is_repeat, *arguments)
    if observed_mask is not None:
        gamma = gamma.masked_fill(observed_mask[:, None, :], 0)
        gamma_blank = gamma_blank.masked_fill(observed_mask, 0)
    loss = -(gamma * token).sum() - (gamma_blank * blank).sum()
    if label_smoothing:
        uniform = ((gamma.sum(1) + gamma_blank) * log_probs.mean(-1)).sum()
        loss = (1 - label_smoothing) * loss - label_smoothing * uniform
    return loss, value.sum(), gamma, gamma_blank
