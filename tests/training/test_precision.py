"""bf16 on a CPU: the faster attention is chosen, says so, and changes no more than rounding."""

import json

import pytest
import torch

from axe_hf import AxeTrainingArguments
from axe_hf.training import DataArguments, ModelArguments, precision, run_training

SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}


@pytest.fixture
def run(pairs, tmp_path, monkeypatch):
    """One step on a processor with or without bf16: the attention it was made with."""

    def start(has_instructions, attn_implementation=None, bf16=True):
        monkeypatch.setattr(precision, "has_fast_bf16", lambda device: has_instructions)
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs[:8]))
        data = DataArguments("en", "de", train_file=str(tmp_path / "train.jsonl"), vocab_size=300)
        output = tmp_path / f"{has_instructions} {attn_implementation} {bf16}"
        once = {"max_steps": 1, "save_strategy": "no", "use_cpu": True}
        training = AxeTrainingArguments(str(output), bf16=bf16, **once)
        sizes = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, **SIZES}
        model = ModelArguments(attn_implementation=attn_implementation, **sizes)
        return run_training(model, data, training).model.config._attn_implementation

    return start


def test_a_run_in_bf16_chooses_the_faster_attention_and_says_so(run, caplog):
    assert run(has_instructions=True) == "eager"
    assert "`attn_implementation` is 'eager': it is the faster in bf16" in caplog.text
    caplog.clear()
    assert run(has_instructions=False) == "sdpa"
    assert "is 'sdpa': it is the faster in bf16 on a processor that lacks" in caplog.text


def test_what_the_user_chose_and_float32_are_left_alone(run, caplog):
    assert run(has_instructions=True, attn_implementation="sdpa") == "sdpa"
    assert run(has_instructions=True, bf16=False) == "sdpa"
    assert "attn_implementation" not in caplog.text


def test_the_choice_changes_no_more_than_rounding_in_bf16(make_model, make_sources):
    batch = make_sources([5, 3, 7]) | {"labels": make_sources([4, 6, 2], seed=1)["input_ids"]}
    batch["labels"][batch["labels"] == 0] = -100
    losses, gradients = [], []
    for attention in ("eager", "sdpa"):
        model = make_model(attn_implementation=attention)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append(model.model.encoder.layers[0].self_attn.q_proj.weight.grad)
    torch.testing.assert_close(*losses, rtol=2e-2, atol=0)
    difference = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert 0 < difference < 0.1  # 0 would say that both ran the same code
