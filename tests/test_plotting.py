import io
import math
import sys
import warnings

import pytest
import torch

from axe_hf import (
    CmlmConfig,
    CmlmForConditionalGeneration,
    MaskPredictOutput,
    axe_loss,
    train_tokenizer,
)
from axe_hf.plotting import plot_alignment, plot_history, plot_losses

TEXT = "Das größte Haus kostet $5 und $6."


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([TEXT, "A dog barks."] * 5, vocab_size=300)


@pytest.fixture
def sentence(tokenizer):
    """Target, and logits that say it one position late and forget the third token."""
    generator = torch.Generator().manual_seed(0)
    target = tokenizer(TEXT).input_ids
    said = [tokenizer.blank_token_id, *target[:2], *target[3:]]
    logits = torch.randn(len(said), len(tokenizer), generator=generator)
    for position, token in enumerate(said):
        logits[position, token] += 9
    return logits, target


@pytest.fixture
def output(tokenizer):
    tokens = torch.tensor(tokenizer(TEXT).input_ids).expand(3, 1, -1).clone()
    canvas = tokens.clone()
    canvas[0], canvas[1, 0, 2:], canvas[2, 0, 5] = 3, 3, 3
    log_probs = -torch.linspace(0, 3, tokens.numel()).reshape(tokens.shape)
    history = {"canvas": canvas, "tokens": tokens, "log_probs": log_probs}
    return MaskPredictOutput(lengths=torch.tensor([tokens.shape[-1]]), history=history)


@pytest.fixture
def model(tokenizer):
    """A small model in training mode, with much dropout; canvases of 1.5 times the target."""
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = CmlmConfig(vocab_size=len(tokenizer), dropout=0.5, axe_delta=2.5, **sizes, **heads)
    model = CmlmForConditionalGeneration(config)
    model.generation_config.length_multiplier = 1.5
    return model.train()


LOGS = [
    {"step": 10, "loss": 5.0, "learning_rate": 1e-3},
    {"step": 20, "loss": 4.0},
    {"step": 20, "eval_loss": 4.2, "eval_bleu": 12.0},
    {"step": 20, "train_runtime": 3.0, "train_loss": 4.5},
]


def as_png(figure):
    """Writes the picture, and fails on a missing letter or a layout that does not fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(stream := io.BytesIO(), format="png")
    return stream.getvalue()


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def test_an_alignment_shows_costs_path_and_tokens(sentence, tokenizer):
    logits, target = sentence
    figure = plot_alignment(logits, target, tokenizer, delta=4.0, title="$a$ and $b$")
    axes = figure.axes[0]
    [image] = axes.get_images()
    costs = -logits.log_softmax(dim=1)[:, [*target, tokenizer.blank_token_id]].T
    torch.testing.assert_close(torch.tensor(image.get_array()), costs)
    alignment = axe_loss(
        logits[None],
        torch.tensor([target]),
        blank_token_id=tokenizer.blank_token_id,
        delta=4.0,
        return_alignment=True,
    ).alignment
    path = axes.get_lines()[-1]
    assert path.get_xdata().tolist() == alignment.target_to_position[0].tolist()
    assert path.get_ydata().tolist() == list(range(len(target)))
    skipped = next(marks for marks in axes.collections if "blank" in marks.get_label())
    assert skipped.get_offsets().tolist() == [[0.0, len(target)]]
    assert labels(axes.get_yticklabels())[:3] == ["Das", "größte", "Haus"]
    assert labels(axes.get_yticklabels())[-2:] == ["</s>", "ε (blank)"]
    assert labels(axes.get_xticklabels())[:2] == ["ε  1", "Das  2"]
    assert as_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("position", [2, 4])
def test_an_alignment_shows_which_positions_say_a_token_again(sentence, tokenizer, position):
    _, target = sentence
    said = [*target[:position], target[position - 1], *target[position:]]
    logits = torch.nn.functional.one_hot(torch.tensor(said), len(tokenizer)) * 9.0
    figure = plot_alignment(logits, target, tokenizer, delta=math.inf, allow_repetition=True)
    marks = {found.get_label(): found for found in figure.axes[0].collections}
    assert marks["repeat"].get_offsets().tolist() == [[position, position - 1]]
    assert len(marks["align"].get_offsets()) == len(target) and "skip target" not in marks
    as_png(figure)
    plain = plot_alignment(logits, target, tokenizer, delta=math.inf)
    assert "repeat" not in {found.get_label() for found in plain.axes[0].collections}
    with pytest.raises(ValueError, match="find no place on 2 positions"):
        plot_alignment(logits[:2], target, tokenizer, delta=math.inf, allow_repetition=True)


def test_an_alignment_takes_half_precision_gradients_padding_and_impossible_tokens(
    sentence, tokenizer
):
    logits, target = sentence
    logits[:, 9] = -torch.inf
    logits = logits.bfloat16().requires_grad_()
    padded = torch.tensor([*target, -100, -100])
    figure = plot_alignment(logits, padded, tokenizer, delta=0.5)
    assert len(figure.axes[0].get_yticks()) == len(target) + 1
    as_png(figure)


def picture_of(figure):
    axes = figure.axes[0]
    return torch.tensor(axes.get_images()[0].get_array()), axes.get_lines()[-1].get_xdata().tolist()


@pytest.mark.parametrize("canvas_length", [None, 7])
def test_a_model_predicts_what_is_drawn(model, tokenizer, canvas_length):
    source, target = tokenizer("A dog barks.").input_ids, tokenizer(TEXT).input_ids
    options, length = {"input_ids": source}, round(1.5 * len(target))
    if canvas_length is not None:
        options["decoder_input_ids"] = [model.config.mask_token_id] * canvas_length
        length = canvas_length
    drawn = plot_alignment(model, [*target, -100], tokenizer, **options)
    assert model.training
    canvas = torch.full((1, length), model.config.mask_token_id)
    with torch.no_grad():
        logits = model.eval()(torch.tensor([source]), decoder_input_ids=canvas).logits[0]
    expected = plot_alignment(logits, target, tokenizer, delta=2.5)
    torch.testing.assert_close(picture_of(drawn)[0], picture_of(expected)[0])
    assert picture_of(drawn)[1] == picture_of(expected)[1]
    as_png(drawn)


def test_frozen_parts_stay_in_evaluation_mode(model, tokenizer):
    model.get_encoder().eval()
    before = [module.training for module in model.modules()]
    target = tokenizer(TEXT).input_ids
    plot_alignment(model, target, tokenizer, input_ids=target)
    assert [module.training for module in model.modules()] == before and not all(before)


def test_observed_tokens_are_aligned_with_themselves(model, tokenizer):
    target = tokenizer(TEXT).input_ids
    canvas = [model.config.mask_token_id, *target[1:-1], model.config.mask_token_id]
    options = {"input_ids": target, "decoder_input_ids": canvas}
    _, path = picture_of(plot_alignment(model, target, tokenizer, delta=0.0, **options))
    assert path[1:-1] == [*range(1, len(target) - 1)]


@pytest.mark.parametrize("length", [1, 2])
def test_small_alignments_fit_the_picture(tokenizer, length):
    logits = torch.zeros(length, len(tokenizer))
    as_png(plot_alignment(logits, [7], tokenizer, delta=4.0, title="One token"))


def test_a_history_shows_every_token_and_greys_the_masked(output, tokenizer):
    figure = plot_history(output, tokenizer, title="Three iterations")
    axes = figure.axes[0]
    length = int(output.lengths[0])
    assert len(axes.texts) == len(axes.patches) == 3 * length
    assert [text.get_text() for text in axes.texts[:3]] == ["Das", "größte", "Haus"]
    faces = [patch.get_facecolor() for patch in axes.patches]
    grey = next(iter({faces[2], faces[3]}))
    masked = [i for i, face in enumerate(faces) if face == grey]
    assert masked == [*range(2, length), length + 5]
    assert labels(axes.get_yticklabels()) == ["1", "2", "3"]
    assert as_png(figure).startswith(b"\x89PNG")


def test_losses_of_several_runs_share_one_picture():
    figure = plot_losses({"CE": LOGS, "AXE": iter(LOGS)}, title="Two runs")
    losses, bleu = figure.axes
    assert [line.get_label() for line in losses.get_lines()] == [
        "CE, training",
        "CE, evaluation",
        "AXE, training",
        "AXE, evaluation",
    ]
    assert losses.get_lines()[0].get_xydata().tolist() == [[10, 5.0], [20, 4.0]]
    assert bleu.get_lines()[1].get_xydata().tolist() == [[20, 12.0]]
    as_png(figure)
    assert len(plot_losses({"CE": LOGS[:2]}).axes) == 1


def test_pictures_leave_pyplot_alone(output, tokenizer):
    plot_history(output, tokenizer)
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_without_matplotlib_the_extra_is_named(output, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (lambda: plot_history(output, tokenizer), lambda: plot_losses({"CE": LOGS})):
        with pytest.raises(ImportError, match=r'pip install "axe-hf\[plot\]"'):
            draw()


def test_wrong_input_is_named(sentence, output, tokenizer):
    logits, target = sentence
    with pytest.raises(ValueError, match=r"`logits_or_model` must be .*outputs.logits\[0\]"):
        plot_alignment(logits[None], target, tokenizer, delta=4.0)
    with pytest.raises(ValueError, match=r"`labels` \(target,\)"):
        plot_alignment(logits, [target], tokenizer, delta=4.0)
    with pytest.raises(ValueError, match=r"`labels` \(target,\)"):
        plot_alignment(logits, [-100], tokenizer, delta=4.0)
    with pytest.raises(TypeError, match="`delta` is missing.*model.config.axe_delta"):
        plot_alignment(logits, target, tokenizer)
    with pytest.raises(TypeError, match="`input_ids` and .* are for a model; logits were given"):
        plot_alignment(logits, target, tokenizer, delta=4.0, input_ids=target)
    with pytest.raises(TypeError, match="`logits_or_model` must be .*got list"):
        plot_alignment(logits.tolist(), target, tokenizer, delta=4.0)
    with pytest.raises(ValueError, match="holds no history"):
        plot_history(MaskPredictOutput(lengths=torch.tensor([3])), tokenizer)
    with pytest.raises(ValueError, match=r"`sentence` must be in \[0, 1\)"):
        plot_history(output, tokenizer, sentence=1)
    with pytest.raises(TypeError, match="`log_histories` must map .*got list"):
        plot_losses(LOGS)
    with pytest.raises(ValueError, match=r"`log_histories` of \['CE'\] hold no `loss`"):
        plot_losses({"CE": LOGS[3:]})


def test_wrong_input_with_a_model_is_named(model, tokenizer):
    target = tokenizer(TEXT).input_ids
    with pytest.raises(TypeError, match="`input_ids` are missing"):
        plot_alignment(model, target, tokenizer)
    with pytest.raises(
        ValueError, match=r"`labels` must be \(target,\) and hold a token, got \(0,\)"
    ):
        plot_alignment(model, [-100], tokenizer, input_ids=target)
    with pytest.raises(ValueError, match=r"`input_ids` must be those of one sentence.*got \(1, "):
        plot_alignment(model, target, tokenizer, input_ids=[target])
    for canvas in ([*target, 3], [target[1], *[3] * (len(target) - 1)]):
        with pytest.raises(ValueError, match="`decoder_input_ids` may show tokens of the target"):
            plot_alignment(model, target, tokenizer, input_ids=target, decoder_input_ids=canvas)
    assert model.training
