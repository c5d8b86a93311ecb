"""LoRA by PEFT, as its tutorials have it: trained, saved, loaded, merged, shared."""

import json
import os

import peft
import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM,
    MarianConfig,
    MarianMTModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    pipeline,
)

from axe_hf import (
    AxeTrainer,
    AxeTrainingArguments,
    CmlmConfig,
    CmlmForConditionalGeneration,
    DataCollatorForCmlm,
    ExportableMaskPredict,
    MaskPredictGenerationConfig,
    load_merged,
    push_to_hub_with_code,
    quantize_int8,
    register_pipeline,
    save_pretrained_with_code,
    train_tokenizer,
    translate,
)
from axe_hf.cli import main

ENGLISH = ["one two", "three four", "", "two three", "four one two"]
GERMAN = ["eins zwei", "drei vier", "", "zwei drei", "vier eins zwei"]
LORA = {"task_type": "SEQ_2_SEQ_LM", "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((ENGLISH + GERMAN) * 5, vocab_size=300)


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory):
    """The folder of the model that is adapted."""
    folder = tmp_path_factory.mktemp("adapters") / "base"
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    sizes |= {"max_source_length": 24, "max_target_length": 12, "init_std": 0.5}
    torch.manual_seed(0)
    model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **sizes))
    model.generation_config.num_iterations = 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def make_adapted(base):
    """The model with an adapter that changes its translations; keywords change the adapter."""

    def make(name="default", **changes):
        torch.manual_seed(1)
        model = AutoModelForSeq2SeqLM.from_pretrained(base)
        config = LoraConfig(**LORA | {"init_lora_weights": False} | changes)
        return get_peft_model(model, config, adapter_name=name)

    return make


@pytest.fixture
def dataset(tokenizer):
    pairs = [pair for pair in zip(ENGLISH, GERMAN, strict=True) if pair[0]]
    return [dict(tokenizer(source, text_target=target)) for source, target in pairs]


@pytest.fixture
def make_trainer(tokenizer, dataset, tmp_path):
    def make(model, model_init=None, **settings):
        quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True}
        steps = {"max_steps": 2, "save_steps": 1, "learning_rate": 0.1}
        args = AxeTrainingArguments(tmp_path / "run", **quiet | steps | settings)
        data = {"train_dataset": dataset, "eval_dataset": dataset}
        return AxeTrainer(model, args, processing_class=tokenizer, model_init=model_init, **data)

    return make


@pytest.fixture
def axe_hf(capsys):
    """Runs a command in this process that ends with `code`: what it printed, or complained."""

    def run(*argv, code=0):
        capsys.readouterr()
        assert main([*map(str, argv)]) == code
        return capsys.readouterr()[bool(code)]

    return run


def texts(outputs):
    return [output["translation_text"] for output in outputs]


def test_an_adapted_model_translates_everywhere_as_when_merged(make_adapted, tokenizer):
    adapted = make_adapted()
    translations = translate(adapted, tokenizer, ENGLISH)
    with adapted.disable_adapter():
        assert translate(adapted, tokenizer, ENGLISH) != translations
    register_pipeline()
    adapted.eval()
    translator = pipeline("translation", model=adapted, tokenizer=tokenizer, device="cpu")
    assert texts(translator(ENGLISH, batch_size=2)) == translations
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "vocab_size": len(tokenizer)}
    rescoring = {"rescore_with": (MarianMTModel(MarianConfig(**sizes, **ids)), tokenizer)}
    rescoring["num_length_candidates"] = 3
    rescored = translate(adapted, tokenizer, ENGLISH, **rescoring)
    merged = adapted.merge_and_unload()
    assert type(merged) is CmlmForConditionalGeneration
    assert translate(merged, tokenizer, ENGLISH) == translations
    assert translate(merged, tokenizer, ENGLISH, **rescoring) == rescored


def test_a_trained_adapter_is_saved_and_loaded_by_each_of_the_usual_ways(
    make_adapted, make_trainer, tokenizer, base, tmp_path
):
    adapted = make_adapted(init_lora_weights=True, modules_to_save=["embed_lengths"])
    lengths = adapted.get_base_model().model.encoder.embed_lengths
    before = lengths.weight.clone()
    trainer = make_trainer(adapted, label_smoothing_factor=0.1, eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert adapted.config.label_smoothing == 0.1
    assert adapted.get_base_model().config.label_smoothing == 0.1
    assert not lengths.weight.equal(before)  # the length head learns what it is told to
    assert "eval_bleu" in trainer.evaluate()
    assert trainer.predict(trainer.eval_dataset).predictions.shape[0] == 4
    folder = tmp_path / "adapter"
    trainer.save_model(folder)
    assert "adapter_model.safetensors" in os.listdir(folder)
    assert "model.safetensors" not in os.listdir(folder)
    expected = translate(adapted, tokenizer, ENGLISH)
    onto_base = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(base), folder)
    for loaded in (
        onto_base,
        AutoPeftModelForSeq2SeqLM.from_pretrained(folder),
        AutoModelForSeq2SeqLM.from_pretrained(folder),
    ):
        assert translate(loaded, tokenizer, ENGLISH) == expected
    register_pipeline()
    translator = pipeline("translation", model=str(folder), device="cpu")
    assert texts(translator(ENGLISH)) == expected


@pytest.mark.parametrize(("ema_decay", "name"), [(None, "default"), (0.5, "default"), (0.5, "me")])
def test_training_of_an_adapter_resumes(make_adapted, make_trainer, tmp_path, ema_decay, name):
    settings = {"ema_decay": ema_decay, "max_steps": 3}
    whole = make_trainer(make_adapted(name), **settings)
    whole.train()
    resumed = make_trainer(make_adapted(name), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert resumed.state.global_step == 3
    weights = resumed.model.state_dict()
    assert all(weights[name].equal(value) for name, value in whole.model.state_dict().items())


@pytest.mark.parametrize(("num_iterations", "num_length_candidates"), [(3, 2), (1, 4)])
def test_a_generation_config_in_the_arguments_is_what_an_adapted_model_decodes_by(
    make_adapted, make_trainer, dataset, num_iterations, num_length_candidates
):
    settings = {"num_iterations": num_iterations, "num_length_candidates": num_length_candidates}
    adapted = make_adapted()
    expected = make_trainer(adapted).predict(dataset, **settings).predictions
    assert (make_trainer(adapted).predict(dataset).predictions != expected).any()
    given = MaskPredictGenerationConfig(**settings)
    trainer = make_trainer(adapted, generation_config=given)
    assert (trainer.predict(dataset).predictions == expected).all()
    made = make_trainer(
        None, model_init=lambda: make_adapted(), generation_config=given, max_steps=1
    )
    made.train()
    assert vars(made.model.get_base_model().generation_config).items() >= settings.items()


def test_the_stock_trainer_trains_an_adapter(make_adapted, dataset, tokenizer, tmp_path):
    adapted = make_adapted(init_lora_weights=True)
    before = translate(adapted, tokenizer, ENGLISH)
    quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no"}
    args = Seq2SeqTrainingArguments(
        tmp_path, max_steps=3, learning_rate=0.3, predict_with_generate=True, **quiet
    )
    data = {"train_dataset": dataset, "eval_dataset": dataset}
    collator = DataCollatorForCmlm(tokenizer)
    trainer = Seq2SeqTrainer(adapted, args, collator, processing_class=tokenizer, **data)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0
    assert translate(adapted, tokenizer, ENGLISH) != before


@pytest.mark.parametrize("how", ["target_modules", "modules_to_save"])
def test_the_loss_of_an_adapted_head_is_made_of_its_logits(make_adapted, monkeypatch, how):
    monkeypatch.setattr("axe_hf.cmlm.loss_cmlm.is_fusing_worthwhile", lambda *_: True)
    inputs = {"input_ids": torch.tensor([[7, 8, 9, 1]]), "labels": torch.tensor([[11, 12, 1]])}
    plain = make_adapted().train()
    assert plain(**inputs).logits is None  # an adapter elsewhere is no hindrance
    adapted = make_adapted(**{"target_modules": ["q_proj"], how: ["lm_head"]}).train()
    outputs = adapted(**inputs)
    assert outputs.logits is not None
    outputs.loss.backward()
    weights = dict(adapted.get_base_model().lm_head.named_parameters())
    assert all(w.grad is not None for w in weights.values() if w.requires_grad)
    adapted.config.fused_loss = "always"
    with pytest.raises(ValueError, match="`lm_head` is .* not a plain nn.Linear"):
        adapted(**inputs)


@pytest.mark.parametrize("kind", ["LORA", "IA3"])
def test_the_card_of_an_adapter_names_its_base_and_what_was_trained(
    base, make_trainer, tmp_path, kind
):
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    config = peft.IA3Config(**LORA, feedforward_modules=[]) if kind == "IA3" else LoraConfig(**LORA)
    adapted = get_peft_model(model, config)
    trainer = make_trainer(adapted)
    trainer.create_model_card(source_lang="en", target_lang="de")
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    num_trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert f"| trainable parameters | {num_trained:,} |" in card
    assert f"Fine-tuned from `{'/'.join(base.parts[-2:])}`, as an adapter ({kind})" in card
    assert "library_name: peft" in card and "pip install axe-hf peft" in card
    assert "trust_remote_code" not in card  # the code of the base would not load it
    trainer.create_model_card(finetuned_from="me/base-model")
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "base_model: me/base-model" in card


@pytest.mark.parametrize(
    "use",
    [
        lambda model, tokenizer, path: save_pretrained_with_code(model, tokenizer, path / "model"),
        lambda model, tokenizer, path: push_to_hub_with_code(model, tokenizer, "me/model"),
        lambda model, *_: quantize_int8(model),
        lambda model, *_: ExportableMaskPredict(model),
    ],
    ids=["save", "push", "int8", "export"],
)
def test_what_wants_a_whole_model_says_to_merge_the_adapter(make_adapted, tokenizer, tmp_path, use):
    with pytest.raises(TypeError, match=r"Merge its adapter first: model\.merge_and_unload\(\)"):
        use(make_adapted(), tokenizer, tmp_path)
    assert os.listdir(tmp_path) == []


def test_there_is_no_step_of_left_to_right_generation_to_prepare(make_adapted):
    adapted = make_adapted()
    for model in (adapted, adapted.get_base_model()):
        with pytest.raises(NotImplementedError, match="whole canvases: call model.generate"):
            model.prepare_inputs_for_generation(torch.tensor([[7, 1]]))


@pytest.mark.parametrize("others", [[], ["v_proj"]])
def test_an_adapter_of_the_lengths_learns(make_adapted, make_trainer, others):
    adapted = make_adapted(init_lora_weights=True, target_modules=["embed_lengths", *others])
    make_trainer(adapted).train()
    lengths = adapted.get_base_model().model.encoder.embed_lengths
    assert lengths.lora_embedding_A["default"].abs().max() > 0  # which begins with 0


WHOLE = {"target_modules": "all-linear", "modules_to_save": ["embed_lengths"]}


@pytest.fixture
def saved(make_adapted, make_trainer, tokenizer, tmp_path):
    """An adapter's folder as training leaves it, and the adapted model."""

    def save(folder="adapter", settings=None, **changes):
        adapted = make_adapted(**changes)
        trainer = make_trainer(adapted, **settings or {})
        trainer.save_model(tmp_path / folder)
        return tmp_path / folder, adapted.eval()

    return save


def logits_of(model, tokenizer):
    inputs = tokenizer(["one two", "four one two"], padding=True, return_tensors="pt")
    canvas = torch.full((2, 4), model.config.mask_token_id)
    with torch.no_grad():
        return model(**inputs, decoder_input_ids=canvas).logits


@pytest.mark.parametrize(
    "changes",
    [
        {},
        WHOLE,
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["embed_lengths"]},
        {"target_modules": ["q_proj", "embed_lengths"]},
    ],
    ids=["attention", "all linear, lengths", "tied head", "tied embeddings", "lengths", "both"],
)
def test_adapter_and_merged_model_are_one(saved, tokenizer, tmp_path, axe_hf, changes):
    folder, adapted = saved(**changes)
    model, own = load_merged(folder)
    assert type(model) is CmlmForConditionalGeneration and len(own) == len(tokenizer)
    expected = logits_of(adapted, tokenizer)
    with adapted.disable_adapter():
        assert (logits_of(adapted, tokenizer) - expected).abs().max() > 1e-2
    assert torch.allclose(logits_of(model, tokenizer), expected, atol=1e-5)
    save_pretrained_with_code(model, own, tmp_path / "whole")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "whole").eval()
    assert torch.allclose(logits_of(again, tokenizer), expected, atol=1e-5)
    translations = translate(adapted, tokenizer, ENGLISH)
    assert translate(again, tokenizer, ENGLISH) == translations
    (tmp_path / "in.txt").write_text("\n".join(ENGLISH) + "\n")
    for name in (folder, tmp_path / "whole"):
        out = axe_hf("translate", name, "--input", tmp_path / "in.txt", "--device", "cpu")
        assert out.splitlines() == translations


@pytest.mark.parametrize(
    "settings",
    [
        {"num_iterations": 3, "num_length_candidates": 2},
        {"masking": "full", "length_multiplier": 1.5},
    ],
)
def test_how_an_adapter_decodes_is_kept_with_it(saved, base, tokenizer, settings):
    folder, adapted = saved(settings=settings)
    expected = translate(adapted, tokenizer, ENGLISH)
    register_pipeline()
    translator = pipeline("translation", model=str(folder), device="cpu")
    merged, _ = load_merged(folder)
    for model in (AutoModelForSeq2SeqLM.from_pretrained(folder), merged, translator.model):
        kept = vars(model.config) | vars(model.generation_config)
        assert kept.items() >= settings.items()
        assert translate(model, tokenizer, ENGLISH) == expected
    assert CmlmConfig.from_pretrained(base).length_multiplier == 1  # which stays as it was


def test_what_adapts_something_else_or_is_not_there_is_named(
    saved, tokenizer, tmp_path, axe_hf, base
):
    folder, _ = saved()
    settings = json.loads((folder / "adapter_config.json").read_text())

    def fails(**changes):
        (folder / "adapter_config.json").write_text(json.dumps(settings | changes))
        return axe_hf("translate", folder, "x", code=1)

    named = fails(base_model_name_or_path=str(tmp_path / "gone"))
    assert f"MODEL: {folder} was trained on {tmp_path / 'gone'}" in named and "Put it back" in named
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    MarianConfig(vocab_size=9, **ids).save_pretrained(tmp_path / "marian")
    named = fails(base_model_name_or_path=str(tmp_path / "marian"))
    assert "must be an adapter of a CMLM, its base" in named and "'marian'" in named
    assert "does not say what it was trained on" in fails(base_model_name_or_path=None)
    with pytest.raises(ValueError, match="must hold an adapter: adapter_config.json"):
        load_merged(base)


def test_peft_is_named_where_it_is_missing(saved, monkeypatch, axe_hf):
    folder, _ = saved()
    monkeypatch.setattr("axe_hf.adapters.find_spec", lambda name: None)
    assert 'pip install "axe-hf[peft]"' in axe_hf("translate", folder, "x", code=1)


def test_a_model_loaded_with_an_adapter_is_not_taken_for_a_whole_one(saved, tokenizer, tmp_path):
    folder, _ = saved()
    loaded = AutoModelForSeq2SeqLM.from_pretrained(folder)
    for use in (
        lambda: save_pretrained_with_code(loaded, tokenizer, tmp_path / "whole"),
        lambda: quantize_int8(loaded),
    ):
        with pytest.raises(TypeError, match=r"axe_hf\.load_merged"):
            use()
