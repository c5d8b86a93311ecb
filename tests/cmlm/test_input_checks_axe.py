"""Every bad input to the AXE loss is refused with an error that names it and says what to do."""

import pytest
import torch

from axe_hf.cmlm.fused_loss_axe import linear_axe_loss
from axe_hf.cmlm.loss_axe import axe_loss

LOGITS = torch.zeros(2, 3, 5)
LABELS = torch.tensor([[1, 2, 3], [4, -100, -100]])
OBSERVED = torch.tensor([[True, False, False], [False, False, False]])


def with_nan():
    logits = LOGITS.clone()
    logits[1, 2, 0] = torch.nan
    return logits


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": LOGITS[0]}, ValueError, "`logits` must be .batch, canvas, vocab."),
        ({"logits": LOGITS.long()}, TypeError, "`logits` must be a floating point tensor"),
        ({"logits": with_nan()}, ValueError, "`logits` hold NaN .* sentence 1, position 2"),
        (
            {"labels": LABELS[:1]},
            ValueError,
            r"`labels` must be \(batch, target\) = \(2, any\), got \(1, 3\)",
        ),
        ({"labels": LABELS.float()}, TypeError, "`labels` must be a tensor of integers"),
        (
            {"labels": LABELS + 1},
            ValueError,
            r"in \[0, 5\) or -100, got 5 at \[1, 0\].*resize_token",
        ),
        (
            {"labels": LABELS * (LABELS != 1)},
            ValueError,
            r"not hold the blank \(0\), got 0 at \[0, 0\]",
        ),
        ({"labels": LABELS.flip(1)}, ValueError, "-100 behind its end only.*observed_mask"),
        ({"blank_token_id": 5}, ValueError, r"`blank_token_id` must be in \[0, 5\).* got 5"),
        ({"blank_token_id": None}, TypeError, "`blank_token_id` must be an int, got None"),
        ({"delta": -1.0}, ValueError, "`delta` must be a number of at least 0, got -1"),
        ({"delta": float("nan")}, ValueError, "`delta` must be a number of at least 0, got nan"),
        ({"delta": None}, TypeError, "`delta` must be a number, got None"),
        ({"temperature": -1.0}, ValueError, "`temperature` must be a finite number of at least 0"),
        ({"temperature": float("inf")}, ValueError, "`temperature` must be a finite number"),
        ({"temperature": "warm"}, TypeError, "`temperature` must be a number, got 'warm'"),
        ({"allow_repetition": 1}, TypeError, "`allow_repetition` must be a bool, got 1"),
        ({"observed_tokens": LABELS}, ValueError, "`observed_tokens` need `observed_mask`"),
        (
            {"observed_tokens": LABELS, "observed_mask": OBSERVED},
            ValueError,
            "`observed_tokens` are not for the paper's AXE. Set `allow_repetition` or a `temp",
        ),
        (
            {"observed_tokens": LABELS + 4, "observed_mask": OBSERVED, "temperature": 1.0},
            ValueError,
            r"`observed_tokens` must be ids in \[0, 5\), got 5 at \[0, 0\]",
        ),
        (
            {"observed_tokens": LABELS[:, :2], "observed_mask": OBSERVED, "temperature": 1.0},
            ValueError,
            r"`observed_tokens` must be \(batch, canvas\) = \(2, 3\), got \(2, 2\)",
        ),
        (
            {"temperature": 1.0, "implementation": "triton"},
            ValueError,
            "'triton'` knows the paper's AXE only.*implementation='auto'",
        ),
        (
            {"num_items_in_batch": 0},
            ValueError,
            "`num_items_in_batch` must be the number of targets",
        ),
        (
            {"num_items_in_batch": torch.tensor(0)},
            ValueError,
            r"`num_items_in_batch` must .*got tensor\(0\)",
        ),
        ({"num_items_in_batch": torch.tensor([3, 4])}, ValueError, "int or a scalar tensor, got"),
        ({"num_items_in_batch": "3"}, ValueError, "int or a scalar tensor, got '3'"),
        ({"logits": LOGITS[:, :0]}, ValueError, "sentence 0 hold 3 tokens.*no position"),
        (
            {"logits": torch.full_like(LOGITS, torch.inf)},
            ValueError,
            r"`logits` hold .*\+inf.*sentence 0",
        ),
        # What torch says well, torch says.
        ({"labels": LABELS.to("meta")}, RuntimeError, "(meta.*cpu|cpu.*meta|meta)"),
        ({"observed_mask": OBSERVED.to("meta")}, RuntimeError, "(meta.*cpu|cpu.*meta|meta)"),
        ({"label_smoothing": 1.0}, ValueError, r"`label_smoothing` must be in \[0, 1\), got 1"),
        ({"reduction": "avg"}, ValueError, "`reduction` must be one of mean, sum, none, got 'avg'"),
        ({"canvas_lengths": torch.tensor([3])}, ValueError, "`canvas_lengths` must be .batch,."),
        ({"canvas_lengths": torch.tensor([3, 4])}, ValueError, r"in \[0, 3\], got 4 at \[1\]"),
        (
            {"canvas_lengths": torch.tensor([3.0, 1])},
            TypeError,
            "`canvas_lengths` must be a tensor",
        ),
        (
            {"canvas_lengths": torch.tensor([0, 1])},
            ValueError,
            "sentence 0 hold 3 tokens.*no position",
        ),
        ({"observed_mask": OBSERVED.long()}, TypeError, "`observed_mask` must be bool"),
        (
            {"observed_mask": OBSERVED[:1]},
            ValueError,
            r"\(batch, canvas\) = \(2, 3\), got \(1, 3\)",
        ),
        ({"observed_mask": ~OBSERVED}, ValueError, "sentence 1.* got 1 targets and 3 positions"),
        (
            {"observed_mask": ~OBSERVED, "canvas_lengths": torch.tensor([3, 1])},
            ValueError,
            "False behind the canvas's end.*position 1 of sentence 1",
        ),
    ],
)
def test_bad_input_is_refused(change, error, message):
    arguments = {"logits": LOGITS, "labels": LABELS, "blank_token_id": 0, "delta": 2.0} | change
    with pytest.raises(error, match=f"(?s){message}"):
        axe_loss(**arguments)


def test_a_leaf_is_not_overwritten():
    with pytest.raises(ValueError, match="`inplace_backward=True` overwrites `logits`"):
        axe_loss(
            LOGITS.clone().requires_grad_(),
            LABELS,
            blank_token_id=0,
            delta=1.0,
            inplace_backward=True,
        )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"hidden_states": torch.zeros(3, 4)},
            ValueError,
            "`hidden_states` must be .batch, canvas",
        ),
        ({"weight": torch.zeros(5, 3)}, ValueError, "`weight` must be .vocab, hidden."),
        ({"weight": torch.zeros(5, 4).long()}, RuntimeError, "same dtype, but got.*[Ll]ong"),
        ({"bias": torch.zeros(4)}, ValueError, r"`bias` must be \(vocab,\) = \(5,\), got \(4,\)"),
        ({"bias": torch.zeros(1)}, ValueError, r"`bias` must be \(vocab,\) = \(5,\), got \(1,\)"),
        ({"labels": LABELS + 1}, ValueError, r"got 5 at \[1, 0\]"),
        (
            {"weight": torch.zeros(5, 4).double()},
            RuntimeError,
            "same dtype, but got: float != double",
        ),
        ({"bias": torch.zeros(5).half()}, RuntimeError, "dtype"),
        ({"hidden_states": torch.full((2, 3, 4), torch.nan)}, ValueError, "hold NaN"),
    ],
)
def test_bad_input_to_the_fused_loss_is_refused(change, error, message):
    arguments = {
        "hidden_states": torch.zeros(2, 3, 4),
        "weight": torch.zeros(5, 4),
        "labels": LABELS,
    }
    with pytest.raises(error, match=message):
        linear_axe_loss(**(arguments | change), blank_token_id=0, delta=2.0)
