"""`freeze`: parts of the model whose weights stay as they are in a run."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MarianConfig, MarianMTModel, TrainerCallback

from axe_hf import AxeTrainer, AxeTrainingArguments, CmlmForConditionalGeneration

LORA = {"task_type": "SEQ_2_SEQ_LM", "init_lora_weights": False}
SAVING = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 3e-3}


class Watch(TrainerCallback):
    """What had a gradient, and what the optimizer was made for."""

    def __init__(self):
        self.with_gradient, self.optimized = set(), set()

    def on_pre_optimizer_step(self, args, state, control, model, optimizer, **kwargs):
        groups = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        for name, weight in model.named_parameters():
            self.with_gradient |= {name} if weight.grad is not None else set()
            self.optimized |= {name} if id(weight) in groups else set()


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def part_of(name):
    """The part that a weight belongs to, of a model with one matrix for all symbols."""
    if "shared" in name or "lm_head" in name:
        return "embeddings"
    return "lengths" if "embed_lengths" in name else name.split(".")[1]


@pytest.mark.parametrize("fused", ["never", "always"])
@pytest.mark.parametrize(
    "parts", [["encoder"], ["decoder"], ["embeddings"], ["embeddings", "encoder"]], ids="+".join
)
def test_these_parts_stay_as_they_are_and_all_others_train(make_trainer, make_model, parts, fused):
    model, watch = make_model(fused_loss=fused), Watch()
    before = weights_of(model)
    make_trainer(model, callbacks=[watch], freeze=parts, weight_decay=0.5).train()
    trained = {name for name in before if part_of(name) not in parts}
    assert watch.with_gradient == watch.optimized == trained
    changed = {name for name, old in before.items() if not old.equal(weights_of(model)[name])}
    assert changed == trained


def test_with_all_of_them_the_length_head_alone_trains(make_trainer, make_model):
    model = make_model()
    before = weights_of(model)
    make_trainer(model, freeze=["encoder", "decoder", "embeddings"]).train()
    changed = {name for name, old in before.items() if not old.equal(weights_of(model)[name])}
    assert changed == {"model.encoder.embed_lengths.weight"}


def test_an_output_projection_of_its_own_is_not_among_the_embeddings(make_trainer, make_model):
    model, watch = make_model(tie_word_embeddings=False), Watch()
    make_trainer(model, callbacks=[watch], freeze=["embeddings"]).train()
    frozen = {name for name, _ in model.named_parameters()} - watch.optimized
    assert frozen == {f"model.{stack}.embed_tokens.weight" for stack in ("encoder", "decoder")}


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_embeddings_of_its_own_stop_with_a_part(make_trainer, make_model, part):
    model, watch = make_model(tie_word_embeddings=False), Watch()
    make_trainer(model, callbacks=[watch], freeze=[part]).train()
    named = getattr(model.model, part).named_parameters()
    own = {f"model.{part}.{name}" for name, _ in named} - {"model.encoder.embed_lengths.weight"}
    assert {name for name, _ in model.named_parameters()} - watch.optimized == own


@pytest.mark.parametrize(
    ("is_tied", "parts", "is_saved"),
    [
        (False, ["encoder"], True),
        (True, ["encoder"], False),
        (True, ["encoder", "embeddings"], True),
    ],
)
def test_time_is_saved_where_nothing_that_the_encoder_reads_trains(
    make_trainer, make_model, monkeypatch, is_tied, parts, is_saved
):
    model, calls = make_model(tie_word_embeddings=is_tied, hide_length_token=True), []
    encoder, encode = model.model.encoder, model.model.encoder._encode_frozen
    monkeypatch.setattr(
        encoder, "_encode_frozen", lambda *a, **k: calls.append(1) or encode(*a, **k)
    )
    make_trainer(model, freeze=parts).train()
    assert bool(calls) == is_saved


def test_it_is_of_the_run_and_not_of_the_model(make_trainer, make_model):
    """What somebody has frozen by hand stays so."""
    model = make_model()
    model.model.decoder.embed_positions.requires_grad_(False)
    before = {name for name, weight in model.named_parameters() if weight.requires_grad}
    make_trainer(model, freeze=["encoder", "decoder"]).train()
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == before
    watch = Watch()
    make_trainer(model, callbacks=[watch]).train()
    assert watch.optimized == before


def test_a_run_that_fails_leaves_nothing_frozen(make_trainer, make_model):
    model = make_model()
    model.loss_function = lambda **given: 1 / 0
    with pytest.raises(ZeroDivisionError):
        make_trainer(model, freeze=["encoder"]).train()
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_model_of_model_init_is_frozen_too(make_model, dataset, tokenizer, tmp_path):
    args = {"max_steps": 2, "save_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    args = AxeTrainingArguments(str(tmp_path / "run"), freeze=["encoder"], **args)
    data, watch = {"train_dataset": dataset, "processing_class": tokenizer}, Watch()
    trainer = AxeTrainer(model_init=lambda: make_model(), args=args, callbacks=[watch], **data)
    trainer.train()
    assert {part_of(name) for name in watch.optimized} == {"decoder", "embeddings", "lengths"}


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_resumed_run_ends_bit_by_bit_as_an_unbroken_one(make_trainer, make_model, tmp_path, ema):
    settings = SAVING | {"max_steps": 6, "freeze": ["encoder", "embeddings"], "ema_decay": ema}
    whole = make_trainer(make_model(dropout=0.2), output_dir=str(tmp_path / "a"), **settings)
    whole.train()
    settings["freeze"] = ["embeddings", "encoder"]  # the same
    resumed = make_trainer(make_model(dropout=0.2), output_dir=str(tmp_path / "b"), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    pair = weights_of(resumed.model), weights_of(whole.model)
    torch.testing.assert_close(*pair, rtol=0, atol=0)
    kept = weights_of(make_model())
    assert all(kept[n].equal(w) for n, w in pair[0].items() if part_of(n) == "encoder")
    assert not any(kept[n].equal(w) for n, w in pair[0].items() if part_of(n) == "decoder")


@pytest.mark.parametrize(("before", "now"), [(["encoder"], None), (None, ["decoder"])])
def test_a_run_is_not_resumed_with_other_parts(make_trainer, caplog, before, now):
    make_trainer(freeze=before, **SAVING).train()
    with pytest.raises(ValueError, match=r"`freeze` is \[.*\], but .* is of a run with \["):
        make_trainer(freeze=now, **SAVING).train(resume_from_checkpoint=True)


def test_a_message_and_the_card_tell_how_many_parameters_train(make_trainer, make_model, caplog):
    model = make_model()
    part = sum(w.numel() for name, w in weights_of(model).items() if part_of(name) == "encoder")
    count = f"{model.num_parameters() - part:,}"
    trainer = make_trainer(model, freeze=["encoder"])
    trainer.train()
    assert f"encoder as before this run, {count} of {model.num_parameters():,}" in caplog.text
    trainer.create_model_card()
    card = Path(trainer.args.output_dir, "README.md").read_text()
    assert "| frozen | encoder |" in card and f"| trainable parameters | {count} |" in card


def test_of_an_adapted_model_the_adapter_stops_with_its_part(make_trainer, make_model):
    adapted = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"], **LORA))
    watch = Watch()
    make_trainer(adapted, callbacks=[watch], freeze=["encoder"]).train()
    assert watch.optimized and all("decoder" in name for name in watch.optimized)
    assert all("lora" in name for name in watch.optimized)
    encoder = get_peft_model(
        make_model(), LoraConfig(target_modules=r".*encoder\.layers.*q_proj", **LORA)
    )
    with pytest.raises(ValueError, match="`freeze` is encoder, which leaves nothing to train"):
        make_trainer(encoder, freeze=["encoder"]).train()


def test_a_blank_that_could_never_be_said_is_not_kept(make_trainer, make_model):
    """A model started from another's weights has their mean there, which no other row is under."""
    for config in ({}, {"tie_word_embeddings": False}, {"training_loss": "cross_entropy"}):
        model = make_model(**config)
        rows = model.lm_head.weight.data
        rows[model.config.blank_token_id] = rows[5:].mean(dim=0)
        trainer = make_trainer(model, freeze=["embeddings"])
        if not config:
            with pytest.raises(ValueError, match="`freeze` has the embeddings, but the blank's"):
                trainer.train()
        else:  # is not among what stays, or is not needed
            trainer.train()


@pytest.fixture
def teacher(tokenizer):
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": len(tokenizer)}
    sizes |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 12}
    sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "init_std": 0.2}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    return MarianMTModel(MarianConfig(decoder_start_token_id=0, dropout=0.0, **sizes, **ids))


def test_a_student_can_keep_its_teachers_encoder_but_must_learn_a_blank(
    make_trainer, teacher, tokenizer
):
    student = CmlmForConditionalGeneration.from_autoregressive(teacher, tokenizer)
    with pytest.raises(ValueError, match="`freeze` has the embeddings, but the blank's"):
        make_trainer(student, freeze=["encoder", "embeddings"]).train()
    source = torch.tensor([tokenizer("one two three").input_ids])
    layers = teacher.model.encoder.layers.state_dict()
    make_trainer(student, freeze=["encoder"], learning_rate=1e-2).train()
    for name, weight in student.model.encoder.layers.state_dict().items():
        assert weight.equal(layers[name])
    student.model.shared.load_state_dict(
        {"weight": teacher.model.shared.weight.detach()[: len(tokenizer)]}
    )
    states = (model.eval().get_encoder()(source).last_hidden_state for model in (student, teacher))
    torch.testing.assert_close(*states, rtol=0, atol=1e-5)


@pytest.mark.parametrize("given", ["encoder", ["encoders"], ["encoder", "length"], [0]])
def test_what_is_no_part_is_refused(given):
    with pytest.raises(ValueError, match="`freeze` must be a list .* encoder, decoder, embeddings"):
        AxeTrainingArguments("run", freeze=given)
