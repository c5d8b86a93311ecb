"""Everything that must not change: losses and gradients, decoded tokens and scores, checkpoints,
options.

Written down in November 2026 with the code of commit 83b8408, in float64 where rounding could
decide:

    PYTHONPATH=. python tests/golden/measure.py > tests/golden/golden.json

What hangs on the length head of a float64 model was measured anew when that came to compute in
float64 (5e-7 apart at most); no token or length changed.

A value here is part of the interface. Write the file anew only together with a breaking change in
CHANGELOG.md.
"""

import contextlib
import io
import json
import re
import tempfile
from itertools import product
from pathlib import Path

import torch

PAD, EOS, UNK, MASK, BLANK = range(5)


def fingerprint(tensor):
    """Size, and two sums that change with every entry: of the magnitudes, and weighted by fixed
    waves."""
    flat = tensor.detach().double().flatten()
    waves = torch.cos(torch.arange(len(flat), dtype=torch.float64) * 0.7310)
    return [list(tensor.shape), float(flat.abs().sum()), float(flat @ waves)]


def loss_inputs(dtype=torch.float64, batch=4, target=7, canvas=9, vocab=23):
    """Seeded logits, labels of ragged length, lengths of the canvases."""
    generator = torch.Generator().manual_seed(11)
    logits = torch.randn((batch, canvas, vocab), generator=generator, dtype=torch.float64) * 2
    labels = torch.randint(5, vocab, (batch, target), generator=generator)
    for row, length in enumerate((7, 5, 1, 6)):
        labels[row, length:] = -100
    return logits.to(dtype), labels, torch.tensor([9, 6, 3, 4])


def with_gradients(function, *tensors):
    """Value of a loss, the loss of each sentence weighted by its number, and the gradients."""
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    loss = function(*tensors)
    (loss * torch.arange(1, loss.numel() + 1).view(loss.shape)).sum().backward()
    return [loss.tolist(), *(fingerprint(tensor.grad) for tensor in tensors)]


def measure_losses():
    from axe_hf import axe_loss, linear_axe_loss

    found = {}
    for dtype, delta, smoothing in product(
        (torch.float64, torch.float32, torch.bfloat16), (0.0, 1.0, 2.5), (0.0, 0.1)
    ):
        logits, labels, lengths = loss_inputs(dtype)
        options = {"blank_token_id": BLANK, "delta": delta, "label_smoothing": smoothing}
        for reduction, canvas in product(("mean", "sum", "none"), (None, lengths)):
            name = f"{dtype} delta {delta} smoothing {smoothing} {reduction}"
            name += " whole canvas" if canvas is None else " ragged canvas"
            how = options | {"reduction": reduction, "canvas_lengths": canvas}
            found[f"logits, {name}"] = with_gradients(
                lambda x, how=how, labels=labels: axe_loss(x, labels, **how), logits
            )
            if dtype != torch.bfloat16:
                states, weight, bias = projection(dtype)
                found[f"fused, {name}"] = with_gradients(
                    lambda h, w, b, how=how, labels=labels: linear_axe_loss(
                        h, w, labels, bias=b, **how
                    ),
                    *(states, weight, bias),
                )
        compiled = torch.compile(axe_loss, backend="eager", fullgraph=True, dynamic=False)
        if smoothing and dtype != torch.bfloat16:
            found[f"compiled, {dtype} delta {delta}"] = with_gradients(
                lambda x, o=options, y=labels, c=compiled: c(x, y, **o), logits
            )
    return found | measure_observed() | measure_alignment()


def projection(dtype):
    generator = torch.Generator().manual_seed(12)
    shapes = ((4, 9, 6), (23, 6), (23,))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes
    ]


def measure_observed():
    from axe_hf import axe_loss

    logits, _, _ = loss_inputs()
    generator = torch.Generator().manual_seed(13)
    labels = torch.randint(5, 23, (4, 9), generator=generator)
    labels[1, 6:] = -100
    observed = torch.rand((4, 9), generator=generator) < 0.4
    observed &= labels != -100
    options = {"blank_token_id": BLANK, "delta": 2.0, "observed_mask": observed}
    options["canvas_lengths"] = (labels != -100).sum(1)
    return {
        f"observed, {reduction}, smoothing {smoothing}": with_gradients(
            lambda x, r=reduction, s=smoothing: axe_loss(
                x, labels, reduction=r, label_smoothing=s, **options
            ),
            logits,
        )
        for reduction, smoothing in product(("mean", "none"), (0.0, 0.2))
    }


def measure_alignment():
    from axe_hf import axe_loss

    logits, labels, lengths = loss_inputs()
    tied = logits.round()  # many equal costs: the rule for ties decides
    options = {"blank_token_id": BLANK, "canvas_lengths": lengths, "return_alignment": True}
    found = {}
    for name, x in (("as drawn", logits), ("with ties", tied), ("all equal", tied * 0)):
        alignment = axe_loss(x, labels, delta=1.0, **options).alignment
        found[f"alignment {name}"] = {key: value.tolist() for key, value in vars(alignment).items()}
    return found


def make_model(kind, dtype=torch.float64, **changes):
    from axe_hf import CmlmConfig, CmlmForConditionalGeneration

    sizes = {"vocab_size": 24, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 4, "encoder_ffn_dim": 32}
    sizes |= {"decoder_ffn_dim": 32, "max_source_length": 40, "max_target_length": 30}
    sizes |= {"init_std": 0.5, "dropout": 0.0}
    if kind == "pre-norm":
        sizes |= {"normalize_before": True, "position_embedding_type": "sinusoidal"}
        sizes |= {
            "tie_word_embeddings": False,
            "layernorm_embedding": True,
            "scale_embedding": True,
        }
    torch.manual_seed(5)
    return CmlmForConditionalGeneration(CmlmConfig(**(sizes | changes))).to(dtype)


def make_sources(lengths=(9, 4, 6)):
    generator = torch.Generator().manual_seed(6)
    input_ids = torch.randint(5, 24, (len(lengths), max(lengths)), generator=generator)
    for row, length in zip(input_ids, lengths, strict=True):
        row[length - 1] = EOS
        row[length:] = PAD
    return {"input_ids": input_ids, "attention_mask": input_ids.ne(PAD).long()}


def measure_model_losses():
    found = {}
    sources = make_sources()
    labels = make_sources((5, 8, 2))["input_ids"]
    target = labels.masked_fill(labels == PAD, -100)
    hidden = torch.rand(target.shape, generator=torch.Generator().manual_seed(7)) < 0.6
    canvas = torch.where(hidden & (target != -100), MASK, labels)
    scored = target.masked_fill(canvas != MASK, -100)
    for kind, loss, fused in product(
        ("post-norm", "pre-norm"), ("axe", "cross_entropy"), ("always", "never")
    ):
        changes = {"training_loss": loss, "fused_loss": fused, "label_smoothing": 0.1}
        model = make_model(kind, **changes).train()
        stretched = model.prepare_decoder_input_ids_from_labels(target, 1.4)
        cases = {"masked": (None, target), "partly observed": (canvas, scored)}
        if loss == "axe":
            cases["stretched"] = (stretched, target)
        for name, (decoder_input_ids, wanted) in cases.items():
            model.zero_grad()
            output = model(
                **sources, decoder_input_ids=decoder_input_ids, labels=wanted, num_items_in_batch=13
            )
            output.loss.backward()
            grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            values = [output.loss, output.token_loss, output.length_loss]
            found[f"{kind} {loss} fused {fused} {name}"] = [
                *(value.item() for value in values),
                fingerprint(torch.cat(grads)),
            ]
    return found


def decoding_settings():
    return {
        "one pass": {},
        "four passes": {"num_iterations": 4},
        "ten passes, five lengths": {"num_iterations": 10, "num_length_candidates": 5},
        "cosine": {"num_iterations": 5, "schedule": "cosine", "num_length_candidates": 2},
        "length multiplier": {"num_iterations": 3, "length_multiplier": 1.4},
        "length score 0": {"num_length_candidates": 4, "length_score_weight": 0.0},
        "threshold": {"num_iterations": 6, "confidence_threshold": 0.4},
        "early stop": {"num_iterations": 10, "early_stop": True, "num_length_candidates": 3},
        "collapse": {"num_iterations": 2, "collapse_repeats": True},
        "suppressed": {"num_iterations": 2, "suppress_tokens": [7, 9, 11, 23]},
        "several results": {"num_length_candidates": 4, "num_return_sequences": 3},
        "bounds": {"num_iterations": 2, "min_length": 7, "max_length": 8, "length_multiplier": 0.7},
        "given lengths": {
            "num_iterations": 3,
            "target_lengths": torch.tensor([[3, 9], [4, 5], [1, 2]]),
        },
        "sampling": {"num_iterations": 3, "do_sample": True, "temperature": 1.5, "seed": 3},
        "infilling": {"num_iterations": 3, "decoder_input_ids": infilled_canvas()},
    }


def infilled_canvas():
    return torch.tensor(
        [[MASK, 9, MASK, MASK, 12, MASK], [7, MASK, MASK, PAD, PAD, PAD], [MASK] * 6]
    )


def measure_decoding():
    found = {}
    for kind in ("post-norm", "pre-norm"):
        model = make_model(kind).eval()
        for name, settings in decoding_settings().items():
            settings = dict(settings)
            if "seed" in settings:
                settings["generator"] = torch.Generator().manual_seed(settings.pop("seed"))
            output = model.generate(
                **make_sources(), **settings, return_dict_in_generate=True, output_history=True
            )
            names = ("sequences", "lengths", "num_iterations")
            names += ("sequences_scores", "ranking_scores", "token_scores")
            result = {key: getattr(output, key).tolist() for key in names}
            result["history"] = fingerprint(output.history["tokens"])
            found[f"{kind}, {name}"] = result
    return found


def measure_translations():
    """Texts, with and without an autoregressive model that chooses."""
    from transformers import MarianConfig, MarianMTModel

    from axe_hf import train_tokenizer, translate

    texts = ["one two", "three four", "two three", "", "four one two one"]
    german = ["eins zwei", "drei vier", "zwei drei", "vier eins zwei"]
    tokenizer = train_tokenizer((texts + german) * 5, vocab_size=300)
    model = make_model("pre-norm", vocab_size=len(tokenizer), init_std=1.0).eval()
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    sizes |= {"decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(8)
    config = MarianConfig(vocab_size=len(tokenizer), init_std=0.5, **sizes, **ids)
    marian = MarianMTModel(config).double().eval()
    settings = {"num_length_candidates": 5, "num_iterations": 2}
    return {
        "alone": translate(model, tokenizer, texts, **settings),
        "rescored": translate(
            model, tokenizer, texts, rescore_with=(marian, tokenizer), **settings
        ),
        "vocabulary": sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])[:60],
    }


def measure_checkpoint():
    from safetensors.torch import load_file

    found = {}
    for kind in ("post-norm", "pre-norm"):
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(kind, torch.float32)
            model.generation_config.num_iterations = 4
            model.save_pretrained(folder)
            weights = load_file(Path(folder) / "model.safetensors")
            settings = {
                name: json.loads((Path(folder) / name).read_text())
                for name in ("config.json", "generation_config.json")
            }
        for values in settings.values():
            values.pop("transformers_version")
        found[kind] = {
            "weights": {name: fingerprint(weights[name]) for name in sorted(weights)},
            **settings,
        }
    return found


def measure_options():
    from axe_hf.cli import main

    found = {}
    for command in (
        ["--help"],
        *([name, "--help"] for name in ("quickstart", "train", "translate", "evaluate")),
        ["train", "--help-all"],
    ):
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            code = main(command)
        # In the first column, since what an explanation mentions may be broken at a hyphen.
        columns = re.findall(
            r"^  (?:-\w, )?(--[\w-]+)(?:, (--[\w-]+))?", text.getvalue(), re.MULTILINE
        )
        found[" ".join(command)] = [code, sorted(filter(None, sum(columns, ())))]
    return found


MEASURES = {
    "losses": measure_losses,
    "model losses": measure_model_losses,
    "decoding": measure_decoding,
    "translations": measure_translations,
    "checkpoint": measure_checkpoint,
    "options": measure_options,
}


if __name__ == "__main__":
    values = {name: measure() for name, measure in MEASURES.items()}
    lines = [
        f" {json.dumps(f'{part}: {name}')}: {json.dumps(value)}"
        for part, found in values.items()
        for name, value in found.items()
    ]
    print("{\n" + ",\n".join(lines) + "\n}")
