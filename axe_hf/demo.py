"""A page to try a model on: the translation, how it came about, and how sure the model is of it.

`explain`, `align` and `word_by_word` compute, the `draw_...` write what they found as HTML, and
`create_demo` makes the page of it.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from .cmlm import CmlmForConditionalGeneration, axe_loss
from .cmlm.configuration_cmlm import languages_of
from .cmlm.generation_cmlm import settings_of_call
from .cmlm.mask_predict import DecoderPass, length_candidates, masked_canvas_of_labels
from .history import history_rows, readable_tokens
from .output import printable
from .pipeline import DECODED, in_evaluation_mode, is_visible, own_tokenizer, valid_unicode
from .rescoring import Rescorer, check_autoregressive, token_limit

if TYPE_CHECKING:
    from gradio import Blocks

# What the sliders reach to.
MOST_ITERATIONS, MOST_CANDIDATES = 20, 10
# Longer texts are not tokenized: no model reads them.
_CHARACTERS_OF_A_TOKEN = 50
_MAX_TOKENS = 256
_NUM_RUNS = 3
_EXAMPLES = {
    "en": ("Where is the station?", "The old car was very slow.", "Can you tell me when he left?"),
    "de": ("Wo ist der Bahnhof?", "Das alte Auto war sehr langsam.", "Weißt du, wann er ging?"),
}


@dataclass(frozen=True)
class Cell:
    """A position of a canvas after a pass."""

    token: str
    probability: float  # that it was said with
    is_new: bool  # another one stood there before this pass
    is_masked: bool  # the next pass predicts it again


@dataclass(frozen=True)
class Candidate:
    """What was said on a canvas of one length; all log-probabilities in nats."""

    text: str
    length: int  # positions, `</s>` included
    length_log_prob: float
    mean_log_prob: float  # per token
    ranking: float


@dataclass(frozen=True)
class Explanation:
    """How a sentence was translated."""

    candidates: list[Candidate]  # best first
    tokens: list[Cell]  # of the best, without blanks and repeats
    passes: list[list[Cell]]  # of its canvas
    milliseconds: float


@dataclass(frozen=True)
class Alignment:
    """Which position AXE trains to say which token of a reference."""

    target: list[str]  # rows, the blank last
    predicted: list[str]  # the most probable token at each position
    probabilities: list[list[float]]  # (target + 1, canvas)
    marks: dict[tuple[int, int], str]  # row and column to "align", "repeat", ...
    nats_per_token: float


@dataclass(frozen=True)
class WordByWord:
    """What an autoregressive model says by greedy search."""

    text: str
    num_passes: int
    milliseconds: float


def explain(
    model: CmlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    target_lang: str | None = None,
    **generation: Any,
) -> Explanation:
    """Translate a sentence and keep how it came about.

    Args:
        model, tokenizer: as in `axe_hf.translate`; the model may be one of `load_exported`.
        text: one sentence.
        target_lang: of a model with several target languages.
        **generation: settings of `MaskPredictGenerationConfig`.

    Raises:
        ValueError: nothing to translate, or more than the model reads; a setting out of range.

    Example:
        >>> explain(model, tokenizer, "A dog barks.", num_iterations=4)  # doctest: +SKIP
        Explanation(candidates=[Candidate(text='Ein Hund bellt.', length=8, ...
    """
    model = in_evaluation_mode(model)
    source = _source(model, tokenizer, text, target_lang)
    settings = settings_of_call(model.config, model.generation_config, generation)
    with torch.no_grad():
        encoded = model.model.encoder(**source)
    lengths, _ = length_candidates(encoded.length_logits, settings)
    asked = generation | {"output_history": True, "return_dict_in_generate": True}
    mask = source["attention_mask"]
    output: Any = model.generate(
        attention_mask=mask,
        encoder_outputs=encoded,
        **asked | {"num_return_sequences": lengths.shape[1]},
    )
    plain = generation | {"output_history": False, "num_return_sequences": 1}
    texts = tokenizer.batch_decode(output.sequences, **DECODED)
    numbers = (output.lengths, output.length_log_probs, output.sequences_scores)
    rows = (values.tolist() for values in (*numbers, output.ranking_scores))
    num_kept = int((output.sequences[0] != model.config.pad_token_id).sum())
    kept = readable_tokens(tokenizer, output.sequences[0, :num_kept])
    log_probs = output.token_scores[0, :num_kept].tolist()
    cells = [Cell(t, math.exp(p), False, False) for t, p in zip(kept, log_probs, strict=True)]
    milliseconds, _ = _fastest(model, partial(model.generate, **source, **plain))
    candidates = [*map(Candidate, texts, *rows)]
    return Explanation(candidates, cells, _passes(output, tokenizer), milliseconds)


def align(
    model: CmlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    reference: str,
    *,
    target_lang: str | None = None,
) -> Alignment:
    """Align what the model predicts on a masked canvas, as long as in training, with a reference.

    Args:
        model, tokenizer, text, target_lang: as in `explain`.
        reference: a translation of `text`, of any words.

    Raises:
        ValueError: as `explain`; a reference that is too long.

    Example:
        >>> align(model, tokenizer, "A dog barks.", "Ein Hund bellt.").marks  # doctest: +SKIP
        {(0, 0): 'align', (1, 1): 'align', (4, 2): 'skip prediction', (2, 3): 'align', ...
    """
    model, config = in_evaluation_mode(model), model.config
    source = _source(model, tokenizer, text, target_lang)
    limit, reference = config.max_target_length, valid_unicode(reference)
    how = {"text_target": reference, "verbose": False}
    ids = [] if _is_long(reference, limit) else own_tokenizer(tokenizer)(**how).input_ids
    if not ids or len(ids) > limit:
        problem = f"has {_size(reference, ids)}, and this model writes {limit} at most"
        raise ValueError(f"The reference {problem}. Take a sentence of it.")
    labels = torch.tensor([ids], device=model.device)
    canvas = masked_canvas_of_labels(labels, model.generation_config.length_multiplier, config)
    with torch.no_grad():
        states = model.model.encoder(**source).last_hidden_state
        is_inside = torch.ones_like(canvas, dtype=torch.bool)
        decoder = DecoderPass(model, states, source["attention_mask"], is_inside)
        logits = model.lm_head(decoder(canvas)[0]).float()  # (canvas, vocab)
    options: dict[str, Any] = {"blank_token_id": config.blank_token_id, "return_alignment": True}
    options |= {"delta": config.axe_delta, "allow_repetition": config.allow_repetition}
    found: Any = axe_loss(logits[None], labels, **options)
    if (found.alignment.target_to_position < 0).any():
        raise ValueError(f"The reference finds no place on {len(logits)} positions. Shorten it.")
    rows = [*ids, config.blank_token_id]
    return Alignment(
        target=[*readable_tokens(tokenizer, ids), "ε"],
        predicted=readable_tokens(tokenizer, logits.argmax(dim=1)),
        probabilities=logits.softmax(dim=1)[:, rows].T.tolist(),
        marks=_marks(found.alignment, len(ids)),
        nats_per_token=float(found.loss),
    )


def _marks(alignment: Any, num_targets: int) -> dict[tuple[int, int], str]:
    """What becomes of each position and of each target, by row and column; the blank's row last."""
    marks = {}
    positions = alignment.target_to_position[0].tolist()
    is_aligned = alignment.is_aligned[0].tolist()
    for column, row in enumerate(alignment.position_to_target[0].tolist()):
        if row < 0:
            marks[num_targets, column] = "skip prediction"
        else:
            marks[row, column] = "align" if positions[row] == column else "repeat"
    for row, column in enumerate(positions):
        if not is_aligned[row]:
            marks[row, column] = "skip target"
    return marks


def word_by_word(teacher: Rescorer, text: str) -> WordByWord:
    """What an autoregressive model, with its tokenizer, says by greedy search.

    Example:
        >>> word_by_word((marian, its_tokenizer), "A dog barks.").text  # doctest: +SKIP
        'Ein Hund bellt.'
    """
    model, tokenizer = in_evaluation_mode(teacher[0]), own_tokenizer(teacher[1])
    limits = [token_limit(model, tokenizer, side) for side in ("encoder", "decoder")]
    how = {"return_tensors": "pt", "truncation": True, "max_length": limits[0]}
    inputs = tokenizer([valid_unicode(text)], **how).to(model.device)
    settings = copy.deepcopy(model.generation_config)
    settings.update(num_beams=1, do_sample=False, num_return_sequences=1)
    settings.update(max_length=min(_MAX_TOKENS, limits[1]), max_new_tokens=None)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    milliseconds, ids = _fastest(
        model, partial(model.generate, **inputs, generation_config=settings)
    )
    return WordByWord(tokenizer.decode(ids[0], **DECODED), ids.shape[1] - 1, milliseconds)


def _source(model: Any, tokenizer: Any, text: str, target_lang: str | None) -> dict[str, Any]:
    """`input_ids` and `attention_mask` (1, source), or what is wrong with the text."""
    limit = model.config.max_source_length
    if not is_visible(text):
        raise ValueError("There is nothing to translate. Type a sentence.")
    text = model.config.tagged(valid_unicode(text), target_lang)
    is_long = _is_long(text, limit)
    ids = [] if is_long else own_tokenizer(tokenizer)(text, verbose=False).input_ids
    if is_long or len(ids) > limit:
        problem = f"has {_size(text, ids)}, and this model reads {limit} tokens"
        raise ValueError(f"The text {problem}. Translate it sentence by sentence.")
    input_ids = torch.tensor([ids], device=model.device)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def _is_long(text: str, limit: int) -> bool:
    """Whether it need not be tokenized to know that it has more tokens."""
    return len(text) > limit * _CHARACTERS_OF_A_TOKEN


def _size(text: str, ids: list[int]) -> str:
    return f"{len(ids)} tokens" if ids else f"{len(text)} characters"


def _passes(output: Any, tokenizer: Any) -> list[list[Cell]]:
    """What stands on the first canvas after each pass."""
    standing, log_probs = history_rows(output, tokenizer, 0)
    length, passes = int(output.lengths[0]), []
    before = None
    for t, step in enumerate(output.history["tokens"], start=1):
        ids = step[0, :length].tolist()
        rows = zip(readable_tokens(tokenizer, ids), log_probs[t], standing[t], strict=True)
        is_new = [before is not None and ids[j] != before[j] for j in range(length)]
        is_last = t == len(output.history["tokens"])
        passes.append(
            [
                Cell(token, math.exp(log_prob), is_new[j], not is_last and stands == "_")
                for j, (token, log_prob, stands) in enumerate(rows)
            ]
        )
        before = ids
    return passes


def _fastest(model: Any, generate: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds of the fastest of a few runs, and what the last one returned."""
    seconds, result = [], None
    for _ in range(_NUM_RUNS):
        start = time.perf_counter()
        result = generate()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds), result


# Gradio's own variables follow its light and its dark theme.
_STYLE = """<style>
.html-container:has(.axe, .axe-head) { padding: 0 !important; }
.axe-head { padding: 0 2px; font-size: 20px; color: var(--body-text-color); }
.axe-head span { font-size: 14px; color: var(--block-label-text-color); margin-left: 10px; }
.axe { font-size: 14px; line-height: 1.45; color: var(--body-text-color); padding: 10px 14px;
  background: var(--block-background-fill); border: 1px solid var(--border-color-primary);
  border-radius: var(--block-radius); }
.axe .axe-title { font-size: 13px; color: var(--block-label-text-color); margin-bottom: 4px; }
.axe .axe-small { font-size: 12px; color: var(--block-label-text-color); margin-top: 5px; }
.axe .axe-small .axe-p { padding: 0 5px; color: var(--body-text-color); }
.axe .axe-said { font-size: 22px; line-height: 1.3; margin-bottom: 8px; min-height: 29px; }
.axe .axe-error { border-left: 3px solid #d94801; padding: 2px 10px; font-size: 15px; }
.axe .axe-wide { overflow-x: auto; }
.axe.axe table { border-collapse: separate; border-spacing: 2px; width: auto; margin: 0; }
.axe.axe tr { background: none; border: 0; }
.axe.axe th, .axe.axe td { border: 0; padding: 1px 5px; text-align: left; white-space: nowrap;
  font-weight: 400; color: inherit; font-size: 13px; line-height: 20px; }
.axe.axe th { color: var(--block-label-text-color); font-size: 12px; background: none; }
.axe.axe .axe-p { border-radius: 4px;
  background: hsl(calc(22 + 146 * var(--p)) 75% 45% / calc(.5 - .18 * var(--p))); }
.axe .axe-chip { display: inline-block; padding: 1px 6px; margin: 0 3px 3px 0; text-align: center; }
.axe .axe-chip span { display: block; font-size: 11px; line-height: 1.2; opacity: .75; }
.axe.axe td.axe-masked { color: var(--block-label-text-color); opacity: .8; border-radius: 4px;
  box-shadow: inset 0 0 0 1px var(--border-color-primary); }
.axe .axe-new { text-decoration: underline; text-underline-offset: 3px; }
.axe.axe tr.axe-best td { background: hsl(168 65% 40% / .16); }
.axe.axe .axe-number { text-align: right; font-variant-numeric: tabular-nums; }
.axe .axe-speed { display: grid; grid-template-columns: max-content 1fr max-content;
  gap: 2px 10px; align-items: center; }
.axe .axe-bar { height: 9px; border-radius: 3px; background: hsl(168 65% 40%); min-width: 2px; }
.axe .axe-bar.axe-other { background: hsl(22 80% 55%); }
.axe.axe .axe-map { border-spacing: 1px; }
.axe.axe .axe-map td, .axe.axe .axe-map thead th { min-width: 19px; padding: 0; line-height: 17px;
  text-align: center; font-size: 12px; }
.axe.axe .axe-map thead th { writing-mode: vertical-rl; transform: rotate(180deg);
  padding: 3px 0; color: inherit; }
.axe.axe .axe-map tbody th { text-align: right; color: inherit; line-height: 17px; padding: 0 5px; }
.axe.axe .axe-map td { border-radius: 3px;
  background: hsl(215 70% 50% / calc(.07 + .6 * var(--p))); }
</style>"""
ALIGNMENT = "AXE's alignment with a reference"
_SUBTITLE = "all words at once, then the least sure ones again"
_SIGNS = {"align": "●", "repeat": "◆", "skip target": "✕", "skip prediction": "■"}
_MEANINGS = {
    "align": "says the token",
    "repeat": "says it again",
    "skip target": "left out",
    "skip prediction": "should be blank",
}


def draw_translation(found: Explanation) -> str:
    """The translation, and how sure the model is of each token."""
    chips = "".join(
        f'<span class="axe-p axe-chip" style="--p:{cell.probability:.3f}" '
        f'title="{_title(cell)}">{_html(cell.token)}<span>{cell.probability:.2f}</span></span>'
        for cell in found.tokens
    )
    said = _html(found.candidates[0].text) or "<i>nothing</i>"
    return _panel(
        "Translation", f'<div class="axe-said" id="axe-said" dir="auto">{said}</div>{chips}'
    )


def draw_speed(found: Explanation, other: WordByWord | None) -> str:
    """Milliseconds of this sentence, beside those of an autoregressive model where there is one."""
    bars = [("all at once", len(found.passes), found.milliseconds, "axe-bar")]
    if other is not None:
        bars.append(("word by word", other.num_passes, other.milliseconds, "axe-bar axe-other"))
    longest = max(milliseconds for _, _, milliseconds, _ in bars)
    rows = "".join(
        f'<span>{name}, {num} pass{"es" * (num != 1)}</span><div><div class="{kind}" '
        f'style="width:{100 * milliseconds / longest:.1f}%"></div></div>'
        f"<span>{milliseconds:.1f} ms</span>"
        for name, num, milliseconds, kind in bars
    )
    text = f'<div class="axe-speed">{rows}</div>'
    if other is not None:
        ratio = other.milliseconds / found.milliseconds
        text += f'<div class="axe-small">{ratio:.1f} times as fast as the autoregressive model, '
        text += f'which says: <bdi id="axe-other">{_html(other.text)}</bdi></div>'
    return _panel(f"Speed of this sentence, the best of {_NUM_RUNS} runs", text)


def draw_passes(found: Explanation) -> str:
    """A row for each pass, a column for each position of the canvas."""
    rows = "".join(
        f"<tr><th>{number}</th>{''.join(map(_cell, cells))}</tr>"
        for number, cells in enumerate(found.passes, start=1)
    )
    legend = "from <span class='axe-p' style='--p:0'>unsure</span> to "
    legend += "<span class='axe-p' style='--p:1'>sure</span>; ε is blank, · goes on "
    legend += "inside a word"
    if len(found.passes) > 1:
        legend += "; framed: predicted again by the next pass; "
        legend += "<span class='axe-new'>underlined</span>: changed"
    table = f'<div class="axe-wide"><table id="axe-passes">{rows}</table></div>'
    return _panel("Passes", f'{table}<div class="axe-small">{legend}</div>')


def _cell(cell: Cell) -> str:
    kind = "axe-masked" if cell.is_masked else "axe-p"
    kind += " axe-new" * cell.is_new
    style = f'class="{kind}" style="--p:{cell.probability:.3f}" title="{_title(cell)}"'
    return f"<td {style}>{_html(cell.token)}</td>"


def _title(cell: Cell) -> str:
    return f"{_html(cell.token)}: {cell.probability:.4f}"


def draw_candidates(found: Explanation) -> str:
    """A row for each length that was tried, best first."""
    rows = "".join(
        f"<tr{' class=axe-best' * (number == 0)}>"
        f'<td class="axe-number">{candidate.length}</td>'
        f'<td class="axe-number">{100 * math.exp(candidate.length_log_prob):.1f}%</td>'
        f'<td class="axe-number">{candidate.mean_log_prob:.3f}</td>'
        f'<td class="axe-number">{candidate.ranking:.3f}</td>'
        f'<td dir="auto">{_html(candidate.text)}</td></tr>'
        for number, candidate in enumerate(found.candidates)
    )
    names = ("length", "P(length)", "log P / token", "score", "translation")
    head = "".join(f"<th>{name}</th>" for name in names)
    table = f'<div class="axe-wide"><table id="axe-lengths"><tr>{head}</tr>{rows}</table></div>'
    return _panel("Lengths tried, best first; log-probabilities in nats", table)


def draw_alignment(found: Alignment | None) -> str:
    """The probability of each token of the reference at each position, and the best path."""
    if found is None:
        text = "Type a reference to see which position AXE would train to say which of its tokens."
        return _panel(ALIGNMENT, f'<div class="axe-small">{text}</div>')
    head = "".join(f"<th>{_html(token)}</th>" for token in found.predicted)
    rows = ""
    for row, (token, probabilities) in enumerate(
        zip(found.target, found.probabilities, strict=True)
    ):
        cells = ""
        for column, probability in enumerate(probabilities):
            mark = found.marks.get((row, column), "")
            title_of = f"{_html(token)} at {column + 1}: {probability:.4f} {mark}".rstrip()
            sign = _SIGNS.get(mark, "")
            cells += f'<td style="--p:{probability:.3f}" title="{title_of}">{sign}</td>'
        rows += f"<tr><th>{_html(token)}</th>{cells}</tr>"
    used = [kind for kind in _SIGNS if kind in found.marks.values()]
    legend = ", ".join(f"{_SIGNS[kind]} {_MEANINGS[kind]}" for kind in used)
    legend = f"AXE: {found.nats_per_token:.2f} nats per token. {legend}; darker: more probable"
    table = f"<thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody>"
    table = f'<div class="axe-wide"><table class="axe-map" id="axe-alignment">{table}</table></div>'
    return _panel(ALIGNMENT, f'{table}<div class="axe-small">{legend}</div>')


def draw_error(title: str, error: Exception) -> str:
    """What is wrong, in place of a panel's content."""
    return _panel(title, f'<div class="axe-error" role="alert">{_html(str(error))}</div>')


def _html(text: str) -> str:
    """Text as HTML shows it; no braces, which Gradio's templates might read."""
    text = escape(printable(text))
    return text.replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


def _panel(title: str, content: str) -> str:
    return f'<div class="axe"><div class="axe-title">{title}</div>{content}</div>'


def create_demo(
    model: CmlmForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    *,
    teacher: Rescorer | None = None,
    examples: Sequence[str | Sequence[str]] | None = None,
    title: str = "Non-autoregressive translation",
    **generation: Any,
) -> "Blocks":
    """Make a page to try a model on: what it says, how it came about, how sure it is of it.

    No text leaves the machine that it runs on: Gradio's telemetry is switched off, for the whole
    process, and nothing is recorded.

    Args:
        model, tokenizer: as in `axe_hf.translate`; the model may be one of `load_exported`.
        teacher: an autoregressive model and its tokenizer, whose speed and translation are shown
            beside the model's.
        examples: sentences to click on, or pairs of a sentence and a reference; by default three of
            the model's source language, if it is English or German or not known.
        title: of the page.
        **generation: settings of `MaskPredictGenerationConfig` in place of the model's own.

    Returns:
        The page; `.launch()` serves it, on this machine only unless it is told otherwise.

    Raises:
        ImportError: gradio is missing.
        TypeError, ValueError: a model, a tokenizer or a setting that cannot be used.

    Example:
        >>> from axe_hf import create_demo
        >>> demo = create_demo(model, tokenizer, num_iterations=4)  # doctest: +SKIP
        >>> demo.launch()  # doctest: +SKIP
        * Running on local URL:  http://127.0.0.1:7860
    """
    # Some of what Gradio sends home asks for this, and not for the page's own setting.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        text = 'The page needs gradio. Install it: python -m pip install "axe-hf[demo]".'
        raise ImportError(text) from error
    config = model.config
    config.check_tokenizer(tokenizer)
    if teacher is not None:
        check_autoregressive(*teacher, "teacher")
    settings = settings_of_call(config, model.generation_config, generation)
    pairs = _pairs(_default_examples(config) if examples is None else examples)
    responder = _Responder(model, tokenizer, teacher, generation)
    panel = partial(gradio.HTML, apply_default_css=False)
    with gradio.Blocks(title=title, analytics_enabled=False, fill_width=True) as page:
        panel(f'{_STYLE}<div class="axe-head">{_html(title)}<span>{_SUBTITLE}</span></div>')
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                inputs = _inputs(gradio, config.target_languages, settings, pairs[:1])
                button = gradio.Button("Translate", variant="primary", elem_id="axe-button")
                clicks = [button.click]
                if pairs:
                    samples, labels = [[*pair] for pair in pairs], [text for text, _ in pairs]
                    shown = gradio.Examples(samples, inputs[:2], example_labels=labels)
                    clicks.append(shown.dataset.click)
                speed = panel()
            with gradio.Column(scale=5, min_width=480):
                outputs = [panel(), speed, *(panel() for _ in range(3))]
        changes = [*(box.submit for box in inputs[:2]), *(knob.change for knob in inputs[2:])]
        gradio.on(
            [*changes, *clicks, page.load],
            responder.respond,
            inputs,
            outputs,
            show_progress="minimal",
            show_progress_on=outputs[:1],
            trigger_mode="always_last",
            api_visibility="private",
        )
    return page


def _inputs(gradio: Any, languages: list[str], settings: Any, first: list) -> list:
    """Sentence, reference, passes, lengths and language, as `_Responder.respond` takes them."""
    text, reference = first[0] if first else ("", "")
    boxes = [
        gradio.Textbox(text, label="Sentence", lines=2, elem_id="axe-source"),
        gradio.Textbox(reference, label="Reference, if you have one", elem_id="axe-reference"),
    ]
    with gradio.Row():
        most = max(MOST_ITERATIONS, settings.num_iterations)
        now = {"value": settings.num_iterations, "step": 1, "elem_id": "axe-iterations"}
        iterations = gradio.Slider(1, most, label="Passes", min_width=120, **now)
        most = max(MOST_CANDIDATES, settings.num_length_candidates)
        now = {"value": settings.num_length_candidates, "step": 1, "elem_id": "axe-candidates"}
        candidates = gradio.Slider(1, most, label="Lengths", min_width=120, **now)
    choices = {"choices": languages or [""], "value": (languages or [""])[0]}
    is_shown = len(languages) > 1
    return [
        *boxes,
        iterations,
        candidates,
        gradio.Dropdown(**choices, label="Into", visible=is_shown, elem_id="axe-language"),
    ]


@dataclass(frozen=True)
class _Responder:
    """Answers a click."""

    model: Any
    tokenizer: Any
    teacher: Rescorer | None
    generation: dict[str, Any]

    def respond(
        self,
        text: str,
        reference: str,
        iterations: float | None,
        candidates: float | None,
        language: str,
    ) -> list[str]:
        """HTML of translation, speed, passes, length candidates and alignment."""
        # A number's box is empty while another one is typed.
        settings = self.generation | {"num_iterations": int(iterations or 1)}
        settings |= {"num_length_candidates": int(candidates or 1)}
        known = {"target_lang": language or None}
        try:
            found = explain(self.model, self.tokenizer, text, **known, **settings)
        except ValueError as error:
            return [draw_error("Translation", error), "", "", "", ""]
        other = None if self.teacher is None else word_by_word(self.teacher, text)
        panels = [draw_translation(found), draw_speed(found, other), draw_passes(found)]
        return [*panels, draw_candidates(found), self._alignment(text, reference, known)]

    def _alignment(self, text: str, reference: str, known: dict[str, Any]) -> str:
        if not is_visible(reference):
            return draw_alignment(None)
        try:
            return draw_alignment(align(self.model, self.tokenizer, text, reference, **known))
        except ValueError as error:
            return draw_error(ALIGNMENT, error)


def _pairs(examples: Sequence[str | Sequence[str]]) -> list[tuple[str, str]]:
    """Sentences, with a reference or without, as pairs; "" where there is none."""
    pairs: Any = [(pair, "") if isinstance(pair, str) else tuple(pair) for pair in examples]
    for number, pair in enumerate(pairs, start=1):
        if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            expected = "sentences, or pairs of a sentence and a reference"
            raise ValueError(
                f"`examples` must hold {expected}, got {pair!r:.80} as number {number}."
            )
    return pairs


def _default_examples(config: Any) -> tuple[str, ...]:
    sources = {languages_of(direction)[0] for direction in config.directions or ["en-de"]}
    return next((_EXAMPLES[language] for language in _EXAMPLES if language in sources), ())
