import io

import pytest
import torch

from axe_hf import (
    CmlmConfig,
    CmlmForConditionalGeneration,
    MaskPredictOutput,
    train_tokenizer,
)
from axe_hf.history import display_width, format_history, history_rows, readable_tokens, uses_color

MASK, BLANK = 3, 4


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["A dog barks.", "Das größte Haus."] * 5, vocab_size=300)


@pytest.fixture
def output(tokenizer):
    """Two sentences, the second shorter; two iterations, the first of which left one gap each."""
    a, dog, dot, house = tokenizer.convert_tokens_to_ids(["▁A", "▁dog", ".", "▁Haus"])
    return MaskPredictOutput(
        lengths=torch.tensor([3, 2]),
        history={
            "canvas": torch.tensor([[[3, 3, 3], [3, 3, 0]], [[a, 3, dot], [3, BLANK, 0]]]),
            "tokens": torch.tensor(
                [[[a, a, dot], [a, BLANK, 0]], [[a, dog, dot], [house, BLANK, 0]]]
            ),
            "log_probs": torch.tensor(
                [[[-0.1, -3.0, -0.5], [-2.0, -0.1, 0.0]], [[-0.1, -1.2, -0.5], [-0.6, -0.1, 0.0]]]
            ),
        },
    )


def test_tokens_are_readable(tokenizer):
    ids = tokenizer("A dog, größte barks.").input_ids
    readable = readable_tokens(tokenizer, ids)
    assert readable[:2] == ["A", "dog"] and readable[-2:] == [".", "</s>"]
    assert "größte" in readable and "," in readable
    assert readable_tokens(tokenizer, torch.tensor([MASK, BLANK, 0])) == ["_", "ε", "<pad>"]
    pieces = readable_tokens(tokenizer, tokenizer("größteste").input_ids)[:-1]
    assert len(pieces) > 1 and all(piece.startswith("·") for piece in pieces[1:])
    assert "".join(pieces).replace("·", "") == "größteste"


def test_a_model_with_spare_rows_may_predict_an_id_without_a_token(tokenizer):
    assert readable_tokens(tokenizer, [len(tokenizer) + 7]) == [f"#{len(tokenizer) + 7}"]


def test_a_vocabulary_commands_no_terminal(tokenizer):
    import copy

    evil = copy.deepcopy(tokenizer)
    evil.add_tokens(["\x1b[5mx", "\x9by", "\u2067z"], special_tokens=True)
    shown = readable_tokens(evil, evil("\x1b[5mx dog \x9by \u2067z").input_ids)
    assert shown[0] == r"\x1b[5mx" and {r"\x9by", r"\u2067z"} < {*shown}
    assert not any(set("\x1b\x9b\u2067") & set(token) for token in shown)


def test_a_row_holds_what_the_next_iteration_leaves_standing(output, tokenizer):
    rows, log_probs = history_rows(output, tokenizer, 0)
    assert rows == [["_", "_", "_"], ["A", "_", "."], ["A", "dog", "."]]
    assert log_probs[0] == [0.0] * 3
    torch.testing.assert_close(torch.tensor(log_probs[1:]), output.history["log_probs"][:, 0])


def test_one_line_an_iteration(output, tokenizer):
    lines = format_history(output, tokenizer, color=False).split("\n")
    assert lines == ["0  _ _   _", "1  A _   .", "2  A dog ."]
    lines = format_history(output, tokenizer, sentence=1, color=False).split("\n")
    assert lines == ["0  _    _", "1  _    ε", "2  Haus ε"]


def test_tokens_that_were_given_stand_from_the_start(tokenizer):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_target_length": 9}
    model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **sizes)).eval()
    source = torch.tensor([tokenizer("A dog barks.").input_ids])
    dog, dot = tokenizer.convert_tokens_to_ids(["▁dog", "."])
    output = model.generate(
        source,
        decoder_input_ids=torch.tensor([[MASK, dog, MASK, MASK, dot, 0]]),
        num_iterations=3,
        output_history=True,
        return_dict_in_generate=True,
    )
    rows, log_probs = history_rows(output, tokenizer, 0)
    assert rows[0] == ["_", "dog", "_", "_", "."] and len(rows) == len(log_probs) == 4
    assert all(row[1] == "dog" and row[4] == "." for row in rows)
    assert all(of_row[1] == of_row[4] == 0 for of_row in log_probs)
    first_line = format_history(output, tokenizer, color=False, width=200).split("\n")[0]
    assert first_line.split() == ["0", *rows[0]]


def test_a_canvas_wider_than_the_terminal_goes_on_in_blocks(output, tokenizer):
    text = format_history(output, tokenizer, color=False, width=9)
    assert text == "0  _ _\n1  A _\n2  A dog\n\n0  _\n1  .\n2  ."
    assert format_history(output, tokenizer, color=False, width=1).count("\n\n") == 2


def test_colours_tell_the_confidence(output, tokenizer):
    text = format_history(output, tokenizer, color=True)
    assert "\x1b[38;5;34mA\x1b[0m" in text  # sure: e^-0.1
    assert "\x1b[38;5;208mdog\x1b[0m" in text  # unsure: e^-1.2
    assert "\x1b[38;5;244m_\x1b[0m" in text  # masked


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colours_are_for_terminals_that_want_them(output, tokenizer, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert uses_color(Terminal()) and not uses_color(io.StringIO())
    monkeypatch.setattr("sys.stdout", Terminal())
    assert "\x1b" in format_history(output, tokenizer)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not uses_color(Terminal()) and "\x1b" not in format_history(output, tokenizer)
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "dumb")
    assert not uses_color(Terminal())


def test_wide_letters_fill_two_columns_and_accents_none():
    assert [display_width(text) for text in ("abc", "日本", "e\u0301", "ε")] == [3, 4, 1, 1]


def test_a_missing_history_and_a_missing_sentence_are_named(output, tokenizer):
    with pytest.raises(ValueError, match="`output` holds no history.*output_history=True"):
        format_history(MaskPredictOutput(lengths=torch.tensor([3])), tokenizer)
    with pytest.raises(ValueError, match="no history"):
        format_history(torch.tensor([[1, 2]]), tokenizer)
    with pytest.raises(ValueError, match=r"`sentence` must be in \[0, 2\), got 2"):
        format_history(output, tokenizer, sentence=2)
