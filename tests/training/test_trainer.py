import copy
import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import processors
from torch.utils.data import DataLoader, Subset
from torch.utils.data import Dataset as TorchDataset
from transformers import GenerationConfig, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from axe_hf import (
    AxeTrainer,
    AxeTrainingArguments,
    CmlmForConditionalGeneration,
    EmaCallback,
    MaskPredictGenerationConfig,
)
from axe_hf.data import DataCollatorForCmlm
from axe_hf.data.lengths import target_sizes


class KeepGradients(TrainerCallback):
    """Keeps the gradients of the first step, before they are clipped or used."""

    def __init__(self):
        self.gradients = None

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if self.gradients is None:
            self.gradients = {name: p.grad.clone() for name, p in model.named_parameters()}


def one_step_gradients(make_trainer, model, data, accumulation):
    keep = KeepGradients()
    trainer = make_trainer(
        model,
        train_dataset=data,
        callbacks=[keep],
        max_steps=1,
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        masking="full",  # so that the canvas does not hang on how sentences meet in a batch
        max_grad_norm=0.0,
    )
    trainer.train()
    return keep.gradients, trainer.state.log_history[-1]["train_loss"]


@pytest.mark.parametrize("training_loss", ["axe", "cross_entropy"])
def test_gradient_accumulation_is_exact_with_the_length_loss(
    make_trainer, make_model, dataset, training_loss
):
    data = dataset.select(range(8))
    results = [
        one_step_gradients(
            make_trainer,
            make_model(training_loss=training_loss, label_smoothing=0.1, length_loss_weight=0.5),
            data,
            accumulation,
        )
        for accumulation in (1, 4, 8)
    ]
    whole, loss = results[0]
    assert whole["model.encoder.embed_lengths.weight"].abs().sum() > 0
    for gradients, split_loss in results[1:]:
        assert split_loss == pytest.approx(loss, rel=1e-6)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, whole[name], rtol=0, atol=1e-6, msg=name)


def test_the_first_gradient_is_that_of_the_loss_written_out(make_trainer, make_model, dataset):
    data = dataset.select(range(8))
    gradients, _ = one_step_gradients(make_trainer, make_model(), data, 4)
    model = make_model()
    batch = DataCollatorForCmlm(make_trainer().processing_class, masking="full")(list(data))
    outputs = model.train()(**batch)
    num_labels = sum(len(row["labels"]) for row in data)
    torch.testing.assert_close(
        outputs.loss.detach(), (outputs.token_loss + 0.1 * outputs.length_loss) / num_labels
    )
    outputs.loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-6, msg=name)


def test_the_stock_trainer_trains_the_model_with_no_code_of_ours(
    make_model, dataset, tokenizer, tmp_path
):
    trainer = Trainer(
        make_model(),
        TrainingArguments(
            str(tmp_path),
            max_steps=40,
            learning_rate=3e-3,
            per_device_train_batch_size=20,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=dataset,
        eval_dataset=dataset,
        data_collator=DataCollatorForCmlm(tokenizer),
    )
    trainer.train()
    losses = [logs["loss"] for logs in trainer.state.log_history if "loss" in logs]
    assert losses[-1] < 0.7 * losses[0]
    assert trainer.evaluate()["eval_loss"] < losses[0]


def test_it_learns_a_toy_language(make_model, make_trainer):
    trainer = make_trainer(
        make_model(d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=128, normalize_before=True),
        max_steps=160,
        learning_rate=4e-3,
        per_device_train_batch_size=30,
        masking="full",
        adam_epsilon=1e-8,
    )
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_bleu"] > 95
    assert metrics["eval_bleu_signature"].startswith("nrefs:1|")
    assert metrics["eval_repetition_rate"] < 0.2


def test_logs_have_the_parts_of_the_loss_and_the_speed(make_trainer):
    trainer = make_trainer(logging_steps=2, eval_strategy="steps", eval_steps=4)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 2
    for entry in logs:
        assert {"token_loss", "length_loss", "skipped_target_rate", "skipped_prediction_rate"} <= (
            entry.keys()
        )
        assert entry["tokens_per_second"] > 0 and entry["elapsed_minutes"] > 0
        assert 0 <= entry["skipped_target_rate"] <= 1
    evaluation = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
    assert {"eval_token_loss", "eval_length_loss", "eval_skipped_target_rate", "eval_bleu"} <= (
        evaluation.keys()
    )
    json.dumps(trainer.state.log_history)


def test_cross_entropy_has_no_skip_rates(make_trainer, make_model):
    metrics = make_trainer(make_model(training_loss="cross_entropy")).evaluate()
    assert "eval_token_loss" in metrics and "eval_skipped_target_rate" not in metrics


def test_training_without_logits_trains_alike(make_trainer, make_model):
    logs, weights = [], []
    for fused_loss in ("always", "never"):
        trainer = make_trainer(make_model(fused_loss=fused_loss), logging_steps=1)
        trainer.train()
        logs.append([entry for entry in trainer.state.log_history if "token_loss" in entry])
        weights.append(dict(trainer.model.named_parameters()))
        assert trainer.evaluate()["eval_loss"] > 0
    for name in ("loss", "token_loss", "skipped_target_rate", "grad_norm"):
        fused, plain = ([entry[name] for entry in each] for each in logs)
        assert fused == pytest.approx(plain, rel=1e-4), name
    torch.testing.assert_close(*weights, rtol=1e-2, atol=1e-4)


def test_logged_token_loss_is_a_mean_over_labels(make_trainer, make_model, dataset, tokenizer):
    data = dataset.select(range(8))
    trainer = make_trainer(
        make_model(), train_dataset=data, max_steps=1, masking="full", logging_steps=1
    )
    trainer.train()
    outputs = make_model().train()(**DataCollatorForCmlm(tokenizer, masking="full")(list(data)))
    num_labels = sum(len(row["labels"]) for row in data)
    logs = trainer.state.log_history[0]
    assert logs["token_loss"] == pytest.approx(outputs.token_loss.item() / num_labels, rel=1e-5)
    assert logs["length_loss"] == pytest.approx(outputs.length_loss.item() / 8, rel=1e-5)
    assert logs["loss"] == pytest.approx(
        logs["token_loss"] + 0.1 * outputs.length_loss.item() / num_labels, rel=1e-5
    )


def test_label_smoothing_goes_into_axe_and_not_around_it(make_trainer, make_model):
    model = make_model()
    trainer = make_trainer(model, label_smoothing_factor=0.2, max_steps=1, logging_steps=1)
    assert model.config.label_smoothing == 0.2
    assert trainer.label_smoother is None
    trainer.train()
    assert "skipped_target_rate" in trainer.state.log_history[0]  # the loss is AXE
    assert model.model.encoder.embed_lengths.weight.grad is None  # zeroed after the step, not lost
    assert trainer.state.log_history[0]["length_loss"] > 0


def test_token_budget_holds_and_every_sentence_comes_once(make_trainer, dataset):
    trainer = make_trainer(max_tokens_per_batch=40)
    loader = trainer.get_train_dataloader()
    assert isinstance(loader, DataLoader)
    orders = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert sum(len(batch["labels"]) for batch in batches) == len(dataset)
        for batch in batches:
            widest = max(batch["input_ids"].shape[1], batch["labels"].shape[1])
            assert len(batch["labels"]) * widest <= 40
        orders.append([batch["input_ids"].tolist() for batch in batches])
    assert orders[0] != orders[1]


def test_token_budget_trains_for_several_epochs_on_new_batches(make_trainer):
    trainer = make_trainer(max_tokens_per_batch=60, max_steps=-1, num_train_epochs=2)
    trainer.train()
    batches_per_epoch = len(trainer.get_train_dataloader())
    assert trainer.state.global_step == 2 * batches_per_epoch


def test_plain_lists_of_features_are_fine(make_trainer, dataset):
    rows = [dict(row) for row in dataset]
    trainer = make_trainer(train_dataset=rows, eval_dataset=rows[:5], max_tokens_per_batch=40)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0


def test_tokenizer_is_taken_from_the_collator(make_model, dataset, tokenizer, tmp_path):
    args = AxeTrainingArguments(str(tmp_path), max_steps=1, save_strategy="no", use_cpu=True)
    trainer = AxeTrainer(
        make_model(), args, DataCollatorForCmlm(tokenizer), dataset, eval_dataset=dataset
    )
    assert trainer.processing_class is tokenizer


def test_model_init_models_get_the_label_smoothing_too(make_model, dataset, tokenizer, tmp_path):
    args = AxeTrainingArguments(
        str(tmp_path), max_steps=1, save_strategy="no", use_cpu=True, label_smoothing_factor=0.3
    )
    trainer = AxeTrainer(
        args=args,
        model_init=lambda: make_model(),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    trainer.train()
    assert trainer.model.config.label_smoothing == 0.3


class TestEvaluation:
    """Losses on masked canvases, and translations against references."""

    def test_evaluation_counts_every_example_once(self, make_trainer, make_model, dataset):
        model = make_model()
        metrics = [
            make_trainer(model, per_device_eval_batch_size=size).evaluate() for size in (60, 7, 1)
        ]
        for other in metrics[1:]:
            for name in (
                "eval_loss",
                "eval_token_loss",
                "eval_length_loss",
                "eval_skipped_target_rate",
            ):
                assert other[name] == pytest.approx(metrics[0][name], rel=1e-5), name
            assert other["eval_bleu"] == pytest.approx(metrics[0]["eval_bleu"])
        predictions = make_trainer(model, per_device_eval_batch_size=7).predict(dataset)
        assert len(predictions.predictions) == len(dataset)

    def test_evaluation_masks_everything_whatever_the_collator_does(self, make_trainer, make_model):
        model = make_model()
        losses = [
            make_trainer(model, masking=m).evaluate()["eval_loss"] for m in ("uniform", "full")
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)

    def test_evaluation_leaves_the_generation_config_alone(self, make_trainer, tmp_path):
        trainer = make_trainer()
        before = trainer.model.generation_config.to_dict()
        trainer.evaluate()
        trainer.predict(trainer.eval_dataset, num_iterations=3)
        assert trainer.model.generation_config.to_dict() == before
        trainer.save_model(tmp_path / "saved")
        reloaded = CmlmForConditionalGeneration.from_pretrained(tmp_path / "saved")
        assert reloaded.generation_config.to_dict() == before

    def test_settings_of_generation_reach_the_decoder(self, make_trainer, monkeypatch):
        trainer = make_trainer()
        seen = []
        generate = trainer.model.generate
        monkeypatch.setattr(
            trainer.model, "generate", lambda **given: seen.append(given) or generate(**given)
        )
        trainer.evaluate(num_iterations=2, num_length_candidates=3)
        assert seen[0]["num_iterations"] == 2 and seen[0]["num_length_candidates"] == 3

    @pytest.mark.parametrize("is_path", [False, True])
    def test_a_generation_config_in_the_arguments_becomes_the_models(
        self, make_trainer, tmp_path, dataset, is_path
    ):
        config = MaskPredictGenerationConfig(num_iterations=3, num_length_candidates=2)
        config.save_pretrained(tmp_path / "generation")
        given = str(tmp_path / "generation") if is_path else config
        trainer = make_trainer(eval_dataset=dataset.select(range(3)), generation_config=given)
        trainer.evaluate()
        trainer.save_model(tmp_path / "saved")
        reloaded = CmlmForConditionalGeneration.from_pretrained(
            tmp_path / "saved"
        ).generation_config
        assert isinstance(reloaded, MaskPredictGenerationConfig)
        assert (reloaded.num_iterations, reloaded.num_length_candidates) == (3, 2)

    def test_references_column_is_what_translations_are_scored_against(
        self, make_trainer, dataset, pairs
    ):
        trainer = make_trainer()
        guessed = trainer.predict(dataset).predictions
        texts = trainer.processing_class.batch_decode(guessed.clip(min=0), skip_special_tokens=True)
        with_references = dataset.add_column(
            "references", [["never", text + " x"] for text in texts]
        )
        alone = trainer.evaluate(dataset)["eval_chrf"]
        helped = trainer.evaluate(with_references)
        assert helped["eval_chrf"] > alone + 40
        assert helped["eval_bleu_signature"].startswith("nrefs:2")

    def test_several_evaluation_sets_each_have_their_references(self, make_trainer, dataset):
        named = {
            "plain": dataset.select(range(5)),
            "double": dataset.select(range(7)).add_column("references", [["a", "b"]] * 7),
        }
        metrics = make_trainer(eval_dataset=named).evaluate()
        assert metrics["eval_plain_bleu_signature"].startswith("nrefs:1")
        assert metrics["eval_double_bleu_signature"].startswith("nrefs:2")

    def test_settings_for_several_results_do_not_shift_the_rows(self, make_trainer, dataset):
        trainer = make_trainer(eval_dataset=dataset.select(range(3)))
        plain = trainer.predict(dataset.select(range(3))).predictions
        settings = trainer.model.generation_config
        settings.num_length_candidates = settings.num_return_sequences = 3
        settings.length_score_weight = 1e6  # the first candidate is the one that stood alone
        settings.return_dict_in_generate = settings.output_history = True
        assert (trainer.predict(dataset.select(range(3))).predictions == plain).all()

    @pytest.mark.parametrize("size", [7, 60])
    def test_batch_eval_metrics_scores_what_a_whole_evaluation_scores(
        self, make_trainer, make_model, dataset, size
    ):
        texts = [["x" * (number % 5 + 1), "never"] for number in range(len(dataset))]
        for data in (dataset, dataset.add_column("references", texts)):
            whole, by_batch = (
                make_trainer(
                    make_model(init_std=0.5),
                    eval_dataset=data,
                    per_device_eval_batch_size=size,
                    batch_eval_metrics=is_by_batch,
                ).evaluate()
                for is_by_batch in (False, True)
            )
            timed = {name for name in whole if name.endswith(("_second", "runtime", "time"))}
            assert {n: by_batch[n] for n in whole.keys() - timed} == {
                n: whole[n] for n in whole.keys() - timed
            }

    @pytest.mark.parametrize(
        "settings",
        [{"eval_do_concat_batches": False}, {"dataloader_drop_last": True}],
        ids=lambda settings: next(iter(settings)),
    )
    def test_no_setting_of_batches_changes_the_scores(
        self, make_trainer, make_model, dataset, settings
    ):
        data = dataset.add_column("references", [["x", "never"]] * len(dataset))
        model, options = make_model(init_std=0.5), {"per_device_eval_batch_size": 7}
        scores = [
            make_trainer(model, eval_dataset=data, **options, **each).evaluate()
            for each in ({}, settings)
        ]
        for name in ("eval_bleu", "eval_chrf", "eval_loss", "eval_length_ratio"):
            assert scores[0][name] == scores[1][name], name

    @pytest.mark.parametrize("kind", ["list", "torch", "subset", "stream", "mapped stream"])
    def test_references_are_honoured_in_every_kind_of_data_set(self, make_trainer, dataset, kind):
        trainer = make_trainer()
        guessed = trainer.predict(dataset).predictions
        texts = trainer.processing_class.batch_decode(guessed.clip(min=0), skip_special_tokens=True)
        with_references = dataset.add_column("references", [["never", f"{t} x"] for t in texts])
        rows = [dict(row) for row in with_references]

        class Rows(TorchDataset):
            def __len__(self):
                return len(rows)

            def __getitem__(self, number):
                return rows[number % len(rows)]  # never an IndexError

        stream = with_references.to_iterable_dataset()
        data = {"list": rows, "torch": Rows(), "subset": Subset(rows, range(50, 60))}
        data |= {"stream": stream, "mapped stream": stream.map(lambda row: row | {"other": 1})}
        metrics = trainer.evaluate(data[kind])
        assert metrics["eval_bleu_signature"].startswith("nrefs:2")
        if kind != "subset":
            assert metrics["eval_chrf"] == trainer.evaluate(with_references)["eval_chrf"]
        assert metrics["eval_chrf"] > trainer.evaluate(dataset)["eval_chrf"] + 40

    @pytest.mark.parametrize("has_references", [False, True])
    def test_predict_translates_a_set_without_labels(self, make_trainer, dataset, has_references):
        trainer = make_trainer()
        with_labels = trainer.predict(dataset)
        assert {"test_loss", "test_bleu"} <= with_labels.metrics.keys()
        sources = dataset.select_columns("input_ids")
        if has_references:
            sources = sources.add_column("references", [["x"]] * len(sources))
        for data in (sources, list(sources), sources.to_iterable_dataset()):
            output = trainer.predict(data)
            assert (output.predictions == with_labels.predictions).all()
            assert output.label_ids is None
            assert not {"test_loss", "test_bleu"} & output.metrics.keys()
        with pytest.raises(ValueError, match="feature 0 must have 'labels'"):
            trainer.evaluate(sources)

    def test_translations_are_scored_by_the_tokenizer_asked_for(self, make_trainer, dataset):
        for name in ("char", "intl"):
            metrics = make_trainer(bleu_tokenize=name).evaluate()
            assert f"|tok:{name}|" in metrics["eval_bleu_signature"]


class TestStretchedCanvases:
    """Training on canvases longer than the target, and decoding with the same."""

    def test_the_model_is_decoded_with_the_multiplier_it_was_trained_with(
        self, make_trainer, make_model
    ):
        trainer = make_trainer(make_model(), masking="full", length_multiplier=1.5)
        assert trainer.model.generation_config.length_multiplier == 1.5
        batch = next(iter(trainer.get_train_dataloader()))
        num_masks = (batch["decoder_input_ids"] == trainer.model.config.mask_token_id).sum(1)
        target_lengths = (batch["labels"] != -100).sum(1)
        assert torch.equal(num_masks, (target_lengths * 1.5).round().long().clamp(max=12))

    def test_the_multiplier_is_saved_with_the_model(self, make_trainer, make_model, tmp_path):
        trainer = make_trainer(make_model(), masking="full", length_multiplier=1.5)
        trainer.save_model(tmp_path / "model")
        loaded = type(trainer.model).from_pretrained(tmp_path / "model")
        assert loaded.generation_config.length_multiplier == 1.5

    def test_evaluation_loss_is_that_of_stretched_canvases(self, make_trainer, make_model):
        model = make_model()
        plain = make_trainer(model, masking="full").evaluate()["eval_token_loss"]
        stretched = make_trainer(model, masking="full", length_multiplier=1.5)
        assert stretched.evaluate()["eval_token_loss"] > plain

    def test_jitter_reaches_the_canvases_of_training_only(self, make_trainer, make_model):
        trainer = make_trainer(make_model(), masking="full", length_jitter=0.5)
        batch = next(iter(trainer.get_train_dataloader()))
        num_masks = (batch["decoder_input_ids"] == trainer.model.config.mask_token_id).sum(1)
        assert (num_masks != (batch["labels"] != -100).sum(1)).any()
        plain = make_trainer(trainer.model, masking="full")
        assert trainer.evaluate()["eval_token_loss"] == plain.evaluate()["eval_token_loss"]

    def test_it_is_refused_where_it_cannot_work(self, make_trainer, make_model, tmp_path):
        with pytest.raises(ValueError, match="`length_multiplier` is 1.5.*masking='full'"):
            AxeTrainingArguments(tmp_path, masking="uniform", length_multiplier=1.5)
        with pytest.raises(ValueError, match="`length_multiplier` is 1.5.*masking='full'"):
            make_trainer(make_model(), length_multiplier=1.5)
        with pytest.raises(ValueError, match="`length_jitter` 0.2, but.*masking='full'"):
            AxeTrainingArguments(tmp_path, masking="uniform", length_jitter=0.2)
        with pytest.raises(ValueError, match="`length_jitter` 0.2, but.*masking='full'"):
            make_trainer(make_model(), length_jitter=0.2)
        with pytest.raises(ValueError, match="`length_jitter` must be in"):
            AxeTrainingArguments(tmp_path, masking="full", length_jitter=1.0)
        with pytest.raises(ValueError, match="`length_multiplier` must be > 0"):
            AxeTrainingArguments(tmp_path, masking="full", length_multiplier=0.0)
        with pytest.raises(ValueError, match="cross entropy needs a label .* Got 1.5 and 0"):
            make_trainer(
                make_model(training_loss="cross_entropy"), masking="full", length_multiplier=1.5
            )


RECIPE = {"masking": "full", "length_multiplier": 1.5, "length_jitter": 0.3}


class TestRecipeOfTheCanvas:
    """Masking, multiplier and jitter belong to the model: saved, inherited, changed on request."""

    @pytest.fixture
    def saved(self, make_trainer, make_model, tmp_path):
        """The folder of a model trained with RECIPE."""
        trainer = make_trainer(make_model(), output_dir=str(tmp_path / "first"), **RECIPE)
        trainer.save_model(tmp_path / "saved")
        return tmp_path / "saved"

    @pytest.fixture
    def logged(self, caplog, monkeypatch):
        """What the package logs, as a function that gives it."""
        monkeypatch.setattr(logging.get_logger("axe_hf"), "propagate", True)
        return lambda: [r.message for r in caplog.records if r.name.startswith("axe_hf.training")]

    def load(self, folder):
        return CmlmForConditionalGeneration.from_pretrained(folder)

    @staticmethod
    def recipe_of(holder):
        return {name: getattr(holder, name) for name in RECIPE}

    @pytest.mark.parametrize("is_saved_again", [False, True])
    def test_fine_tuning_keeps_the_recipe(self, make_trainer, saved, tmp_path, is_saved_again):
        trainer = make_trainer(self.load(saved), max_steps=1)
        if is_saved_again:
            trainer.train()
            trainer.save_model(tmp_path / "again")
            trainer = make_trainer(self.load(tmp_path / "again"))
        model = trainer.model
        assert self.recipe_of(model.config) == self.recipe_of(trainer.data_collator) == RECIPE
        assert model.generation_config.length_multiplier == 1.5
        assert self.recipe_of(trainer.args) == dict.fromkeys(RECIPE)

    def test_evaluation_loss_is_that_of_the_models_canvases(self, make_trainer, saved):
        inherited = make_trainer(self.load(saved)).evaluate()
        given = make_trainer(self.load(saved), **RECIPE).evaluate()
        assert inherited["eval_loss"] == given["eval_loss"]
        assert inherited["eval_bleu"] == given["eval_bleu"]

    @pytest.mark.parametrize(
        ("given", "changed"),
        [
            ({}, {}),
            ({"length_multiplier": 1.2}, {"length_multiplier": 1.2}),
            ({"length_jitter": 0.0, "length_multiplier": 1.5}, {"length_jitter": 0.0}),
            (
                {"masking": "uniform", "length_multiplier": 1, "length_jitter": 0},
                {"masking": "uniform", "length_multiplier": 1, "length_jitter": 0},
            ),
        ],
    )
    def test_what_is_changed_is_named_and_decoded_by(
        self, make_trainer, saved, logged, given, changed
    ):
        model = self.load(saved)
        trainer = make_trainer(model, **given)
        assert self.recipe_of(model.config) == RECIPE | changed
        assert self.recipe_of(trainer.data_collator) == RECIPE | changed
        assert model.generation_config.length_multiplier == (RECIPE | changed)["length_multiplier"]
        assert [line.split("`")[1] for line in logged()] == [n for n in RECIPE if n in changed]

    def test_a_new_model_gets_its_first_recipe_without_a_word(self, make_trainer, logged):
        make_trainer(**RECIPE)
        assert not logged()

    def test_a_setting_of_decoding_that_differs_from_the_recipe_stays(self, make_trainer, saved):
        model = self.load(saved)
        model.generation_config.length_multiplier = 1.3
        assert make_trainer(model).model.generation_config.length_multiplier == 1.3
        assert model.config.length_multiplier == 1.5

    def test_one_part_that_does_not_go_with_the_models_others_is_refused(self, make_trainer, saved):
        with pytest.raises(ValueError, match="`length_multiplier` is 1.5 .*tokens are observed"):
            make_trainer(self.load(saved), masking="uniform")
        model = self.load(saved)
        model.config.training_loss = "cross_entropy"
        with pytest.raises(ValueError, match="cross entropy needs a label .* Got 1.5 and 0.3"):
            make_trainer(model)

    @pytest.mark.parametrize("multiplier", [1.4, 0.8])
    def test_models_saved_before_there_was_a_recipe_tell_it_by_their_decoding(
        self, make_trainer, make_model, tmp_path, logged, multiplier
    ):
        model = make_model()
        model.generation_config.length_multiplier = multiplier
        model.save_pretrained(tmp_path / "old")
        config = json.loads((tmp_path / "old" / "config.json").read_text())
        config = {name: value for name, value in config.items() if name not in RECIPE}
        (tmp_path / "old" / "config.json").write_text(json.dumps(config))
        model = make_trainer(self.load(tmp_path / "old")).model
        assert (model.config.masking, model.config.length_multiplier) == ("full", multiplier)
        assert model.generation_config.length_multiplier == multiplier
        assert [line.split("`")[1] for line in logged()] == ["masking", "length_multiplier"]
        model = make_trainer(self.load(tmp_path / "old"), masking="uniform").model
        assert (model.config.masking, model.config.length_multiplier) == ("uniform", 1.0)
        assert model.generation_config.length_multiplier == multiplier

    @pytest.mark.parametrize("multiplier", [1.4, 0.8])
    def test_a_change_of_decoding_alone_is_named(
        self, make_trainer, make_model, dataset, tokenizer, tmp_path, logged, multiplier
    ):
        model = make_model()
        model.generation_config.length_multiplier = multiplier
        model.save_pretrained(tmp_path / "old")
        args = make_trainer().args
        loaded, collator = self.load(tmp_path / "old"), DataCollatorForCmlm(tokenizer)
        AxeTrainer(loaded, args, collator, dataset, processing_class=tokenizer)
        assert loaded.generation_config.length_multiplier == 1.0
        (line,) = logged()
        assert f"`length_multiplier` is 1.0 from now on; the model had {multiplier}" in line

    @pytest.mark.parametrize("family", [{"allow_repetition": True}, {"axe_delta": math.inf}])
    @pytest.mark.parametrize("is_own", [False, True])
    def test_the_collator_makes_room_where_the_loss_needs_it(
        self, make_trainer, make_model, dataset, tokenizer, family, is_own
    ):
        args, model = make_trainer(masking="full").args, make_model(**family)
        collator = DataCollatorForCmlm(tokenizer, masking="full") if is_own else None
        trainer = AxeTrainer(model, args, collator, dataset, processing_class=tokenizer)
        assert trainer.data_collator.allow_repetition
        assert not make_trainer(masking="full").data_collator.allow_repetition

    @pytest.mark.parametrize("length", [7, 11])
    @pytest.mark.parametrize("is_of_datasets", [False, True])
    def test_targets_without_room_are_refused_at_the_start(
        self, make_trainer, make_model, dataset, length, is_of_datasets
    ):
        rows = [dict(row) for row in dataset] + [
            {"input_ids": [9, 1], "labels": [9] * length + [1]}
        ]
        short = [dict(row) for row in dataset] + [{"input_ids": [9, 1], "labels": [9] * 6 + [1]}]
        make = Dataset.from_list if is_of_datasets else list
        rows, short = make(rows), make(short)
        how = {"masking": "full", "length_multiplier": 1.5}
        for name in ("train_dataset", "eval_dataset"):
            with pytest.raises(
                ValueError, match=f"'labels' of `{name}`, row 60 need {2 * length} po"
            ):
                make_trainer(make_model(allow_repetition=True), **how, **{name: rows})
            make_trainer(make_model(allow_repetition=True), **how, **{name: short})
            make_trainer(make_model(), **how, **{name: rows})

    def test_canvases_that_are_cut_short_are_told_of_at_the_start(
        self, make_trainer, make_model, dataset, logged
    ):
        make_trainer(masking="full", length_multiplier=1.5)
        assert not logged()
        num_long = sum(len(row["labels"]) > 6 for row in dataset)
        longest = 2 * max(len(row["labels"]) for row in dataset)
        make_trainer(masking="full", length_multiplier=2.0, eval_dataset=None)
        (line,) = logged()
        assert f"`train_dataset`: {num_long} of 60 targets get a canvas of 12 positions" in line
        assert f"asks for up to {longest}" in line and "--max-target-length" in line

    def test_targets_made_by_a_transform_have_a_size_too(self):
        def tokenize(rows):
            return {"labels": [[7] * number + [1] for number in rows["number"]]}

        lengths, needed = target_sizes(
            Dataset.from_dict({"number": [1, 3]}).with_transform(tokenize)
        )
        assert (lengths.tolist(), needed.tolist()) == ([2, 4], [2, 6])

    def test_repetition_and_infinite_delta_need_whole_canvases(self, make_trainer, make_model):
        family = {"allow_repetition": True, "axe_delta": math.inf}
        with pytest.raises(ValueError, match="with uniform masks between tokens that are shown"):
            make_trainer(make_model(**family))
        make_trainer(make_model(**family), masking="full")
        make_trainer(make_model(allow_repetition=True))
        for name, value in (("allow_repetition", True), ("axe_temperature", 0.5)):
            model = make_model(training_loss="cross_entropy")
            setattr(model.config, name, value)
            with pytest.raises(ValueError, match=f"`{name}` is {value}, but cross entropy aligns"):
                make_trainer(model)

    def test_decoding_collapses_what_training_allowed_to_repeat(
        self, make_trainer, make_model, logged
    ):
        for was in (None, True, False):
            model = make_model(allow_repetition=True)
            model.generation_config.collapse_repeats = was
            make_trainer(model, masking="full")
            assert model.generation_config.collapse_repeats == (was or None)
        assert [line.split("`")[1] for line in logged()] == ["collapse_repeats"]
        for was in (None, True, False):
            model = make_model()
            model.generation_config.collapse_repeats = was
            assert make_trainer(model).model.generation_config.collapse_repeats is was

    def test_a_collator_of_ours_says_the_recipe_too(self, make_model, dataset, tokenizer, tmp_path):
        def trainer(collator, **given):
            args = AxeTrainingArguments(str(tmp_path / "out"), max_steps=1, use_cpu=True, **given)
            return AxeTrainer(make_model(), args, collator, dataset, processing_class=tokenizer)

        for recipe in (RECIPE, {"masking": "full", "length_multiplier": 2.0, "length_jitter": 0}):
            collator = DataCollatorForCmlm(tokenizer, **recipe)
            model = trainer(collator).model
            assert self.recipe_of(model.config) == recipe
            assert model.generation_config.length_multiplier == recipe["length_multiplier"]
            assert trainer(collator, length_multiplier=recipe["length_multiplier"]).train()
            with pytest.raises(ValueError, match="`data_collator` has .* leave one out"):
                trainer(collator, length_multiplier=1.1)
        collator = DataCollatorForCmlm(tokenizer, masking="full")
        foreign = trainer(lambda features: collator(features), masking="full")
        foreign.train()
        assert foreign.model.config.masking == "full"
        assert not isinstance(foreign.data_collator, DataCollatorForCmlm)

    def test_the_model_card_tells_the_recipe_of_the_model(self, make_trainer, saved, tmp_path):
        trainer = make_trainer(self.load(saved))
        trainer.create_model_card()
        text = (tmp_path / "run" / "README.md").read_text()
        assert (
            "| canvases in training | full masking, 1.5 positions per token, jitter 0.3 |" in text
        )

    @pytest.mark.parametrize("factor", [0.1, 0.3])
    def test_a_stock_trainer_that_smooths_takes_the_labels_out_and_is_warned_of_it(
        self, make_model, dataset, tokenizer, tmp_path, caplog, monkeypatch, factor
    ):
        monkeypatch.setattr(logging.get_logger("axe_hf"), "propagate", True)
        settings = {"max_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True}
        for multiplier in (1.0, 1.5):  # with which there is an error of shapes, after the warning
            logging.get_logger().warning_once.cache_clear()
            caplog.clear()
            trainer = Trainer(
                make_model(),
                TrainingArguments(str(tmp_path), label_smoothing_factor=factor, **settings),
                train_dataset=dataset,
                data_collator=DataCollatorForCmlm(
                    tokenizer, masking="full", length_multiplier=multiplier
                ),
            )
            with nullcontext() if multiplier == 1 else pytest.raises(RuntimeError):
                trainer.train()
            assert sum("`config.label_smoothing`" in r.message for r in caplog.records) == 1


class TestModelInit:
    """Models that `model_init` makes are held to what a given model is held to."""

    def make(self, model_init, tokenizer, dataset, tmp_path, **settings):
        settings = {"max_steps": 1, "save_strategy": "no", "disable_tqdm": True} | settings
        return AxeTrainer(
            args=AxeTrainingArguments(str(tmp_path / "out"), use_cpu=True, **settings),
            model_init=model_init,
            train_dataset=dataset,
            eval_dataset=dataset.select(range(4)),
            processing_class=tokenizer,
        )

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"vocab_size": 100}, "resize_token_embeddings"),
            ({"mask_token_id": 5}, "`mask_token_id` is 3, the model's config has 5"),
        ],
    )
    def test_they_must_fit_the_tokenizer(
        self, make_model, tokenizer, dataset, tmp_path, changes, message
    ):
        with pytest.raises(ValueError, match=message):
            self.make(lambda: make_model(**changes), tokenizer, dataset, tmp_path)
        with pytest.raises(TypeError, match="must be a CmlmForConditionalGeneration"):
            self.make(lambda: torch.nn.Linear(1, 1), tokenizer, dataset, tmp_path)

    @pytest.mark.parametrize("limit", [8, 12])
    def test_canvases_keep_within_the_limit_of_the_model_made(
        self, make_model, tokenizer, dataset, tmp_path, limit
    ):
        dataset = dataset.filter(lambda row: len(row["labels"]) <= 8)
        trainer = self.make(
            lambda: make_model(max_target_length=limit),
            *(tokenizer, dataset, tmp_path),
            masking="full",
            length_multiplier=3.0,
        )
        assert trainer.data_collator.max_canvas_length == limit
        trainer.train()
        widths = {batch["decoder_input_ids"].shape[1] for batch in trainer.get_train_dataloader()}
        assert max(widths) == limit

    def test_they_do_not_share_the_config_that_model_init_builds_them_on(
        self, make_model, tokenizer, dataset, tmp_path
    ):
        config = make_model().config
        settings = RECIPE | {"label_smoothing_factor": 0.2}
        trainer = self.make(
            lambda: CmlmForConditionalGeneration(config), tokenizer, dataset, tmp_path, **settings
        )
        trainer.train()
        assert trainer.model.config.length_multiplier == 1.5
        assert trainer.model.model.decoder.config is trainer.model.config
        assert (config.masking, config.length_multiplier) == ("uniform", 1.0)
        assert config.label_smoothing == 0.0

    def test_each_gets_the_generation_config_of_the_arguments(
        self, make_model, tokenizer, dataset, tmp_path
    ):
        settings = {"generation_config": MaskPredictGenerationConfig(num_iterations=3)}
        trainer = self.make(
            lambda: make_model(), tokenizer, dataset, tmp_path, **settings, **RECIPE
        )
        trainer.train()
        assert trainer.model.generation_config.num_iterations == 3
        assert trainer.model.generation_config.length_multiplier == 1.5

    def test_arguments_changed_between_two_trainings_count(
        self, make_model, tokenizer, dataset, tmp_path
    ):
        trainer = self.make(lambda: make_model(), tokenizer, dataset, tmp_path)
        for recipe in (RECIPE, RECIPE | {"length_multiplier": 1.2}):
            vars(trainer.args).update(recipe)
            trainer.train()
            assert trainer.model.config.length_multiplier == recipe["length_multiplier"]
            assert trainer.data_collator.length_multiplier == recipe["length_multiplier"]
        trainer.args.length_multiplier = float("inf")
        with pytest.raises(ValueError, match="`length_multiplier` must be a finite number"):
            trainer.train()


class TestHyperparameterSearch:
    @pytest.fixture
    def search(self, make_model, tokenizer, dataset, tmp_path):
        """Runs a search over spaces in turn; keywords go to the arguments. Gives what was seen."""

        def run(spaces, options=None, eval_dataset=None, **settings):
            settings = {"max_steps": 1, "save_strategy": "no", "disable_tqdm": True} | settings
            config, seen = make_model().config, []

            class Watch(TrainerCallback):
                def on_train_begin(self, args, state, control, model=None, **kwargs):
                    collator, ema = trainer.data_collator, trainer._ema
                    recipe = {name: getattr(collator, name) for name in RECIPE}
                    assert recipe == {name: getattr(model.config, name) for name in RECIPE}
                    multiplier = model.generation_config.length_multiplier
                    assert multiplier == recipe["length_multiplier"]
                    smoothing = model.config.label_smoothing
                    decay = None if ema is None else ema.decay
                    callbacks = trainer.callback_handler.callbacks
                    assert sum(isinstance(c, EmaCallback) for c in callbacks) == (ema is not None)
                    seen.append((*recipe.values(), smoothing, decay))

            trainer = AxeTrainer(
                args=AxeTrainingArguments(str(tmp_path / "out"), use_cpu=True, **settings),
                model_init=lambda: CmlmForConditionalGeneration(config),
                train_dataset=dataset.select(range(8)),
                eval_dataset=eval_dataset or dataset.select(range(4)),
                processing_class=tokenizer,
                callbacks=[Watch()],
            )
            before = trainer.args.to_dict()
            best = trainer.hyperparameter_search(
                hp_space=lambda trial: {
                    name: trial.suggest_categorical(f"{name}{trial.number}", [value])
                    for name, value in spaces[trial.number].items()
                },
                n_trials=len(spaces),
                backend="optuna",
                **options or {},
            )
            assert trainer.args.to_dict() == before
            return seen, best, trainer

        return run

    def test_each_trial_has_its_own_values(self, search):
        full = {"masking": "full", "length_multiplier": 1.2, "length_jitter": 0.1}
        seen, _, _ = search(
            [
                full | {"label_smoothing_factor": 0.1, "ema_decay": 0.9},
                full | {"length_multiplier": 1.6, "ema_decay": 0.99},
                {"masking": "uniform", "label_smoothing_factor": 0.2, "ema_decay": None},
                {"masking": "full", "length_multiplier": 1.4},
            ]
        )
        assert seen == [
            ("full", 1.2, 0.1, 0.1, 0.9),
            ("full", 1.6, 0.1, 0.0, 0.99),
            ("uniform", 1.0, 0.0, 0.2, None),
            ("full", 1.4, 0.0, 0.0, None),
        ]

    def test_the_objective_is_bleu_and_is_maximized(self, search):
        _, best, trainer = search([{"learning_rate": 1e-4}, {"learning_rate": 1e-2}], max_steps=3)
        assert trainer.compute_objective({"eval_bleu": 7.0, "eval_loss": 2.0}) == 7.0
        assert 0 <= best.objective <= 100
        with pytest.raises(ValueError, match="`direction` must be 'maximize' for bleu, got 'minim"):
            search([{}], {"direction": "minimize"})

    def test_the_objective_is_the_loss_where_nothing_is_translated(self, search):
        _, best, _ = search(
            [{"learning_rate": 1e-9}, {"learning_rate": 1e-2}],
            predict_with_generate=False,
            max_steps=4,
        )
        assert best.run_id == "1"  # the one that learns
        with pytest.raises(ValueError, match="`direction` must be 'minimize' for loss, got 'maxim"):
            search([{}], {"direction": "maximize"}, predict_with_generate=False)

    def test_several_evaluation_sets_count_alike(self, search, dataset):
        sets = {"a": dataset.select(range(2)), "b": dataset.select(range(3))}
        _, _, trainer = search([{"masking": "full"}], eval_dataset=sets)
        assert trainer.compute_objective({"eval_a_bleu": 4.0, "eval_b_bleu": 8.0}) == 6.0

    @pytest.mark.parametrize("size", [None, 4])
    def test_the_last_trials_batches_are_not_those_of_the_next_training(self, search, size):
        _, _, trainer = search([{"per_device_train_batch_size": 2}], max_steps=-1)
        if size is not None:
            trainer.args.per_device_train_batch_size = size
        trainer.train()
        assert trainer.state.global_step == 3 * -(-8 // (size or 64))  # 3 epochs of 8 sentences

    def test_an_objective_of_ones_own_keeps_its_direction(self, search):
        objective = {"compute_objective": lambda metrics: metrics["eval_chrf"]}
        for direction in ("maximize", "minimize"):
            _, best, _ = search([{"seed": 3}], objective | {"direction": direction})
            assert best.objective >= 0

    @pytest.mark.parametrize(
        ("space", "message"),
        [
            ({"length_multiplier": 1.4}, "where tokens are observed no canvas can be stretched"),
            ({"masking": "full", "length_multiplier": float("inf")}, "`length_multiplier` must be"),
            ({"ema_decay": 1.5}, "`ema_decay` must be between 0 and 1"),
        ],
    )
    def test_values_out_of_range_are_refused(self, search, space, message):
        with pytest.raises(ValueError, match=message):
            search([space])


class TestResume:
    def settings(self):
        return {"max_steps": 10, "save_strategy": "steps", "save_steps": 4, "learning_rate": 3e-3}

    @pytest.mark.parametrize(
        "extra", [{}, {"ema_decay": 0.9, "max_tokens_per_batch": 50}], ids=["plain", "ema, tokens"]
    )
    def test_a_resumed_run_ends_bit_by_bit_as_an_unbroken_one(
        self, make_trainer, make_model, tmp_path, extra
    ):
        settings = self.settings() | extra
        whole = make_trainer(make_model(dropout=0.2), output_dir=str(tmp_path / "a"), **settings)
        whole.train()
        resumed = make_trainer(make_model(dropout=0.2), output_dir=str(tmp_path / "b"), **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
        assert resumed.state.global_step == 10
        torch.testing.assert_close(
            dict(resumed.model.named_parameters()),
            dict(whole.model.named_parameters()),
            rtol=0,
            atol=0,
        )

    def test_true_takes_the_last_checkpoint(self, make_trainer, make_model):
        make_trainer(**self.settings() | {"max_steps": 5}).train()
        trainer = make_trainer(**self.settings())
        trainer.train(resume_from_checkpoint=True)
        assert trainer.state.global_step == 10


class TestBadInput:
    def test_model_of_another_kind(self, tokenizer):
        with pytest.raises(TypeError, match="`model` must be a CmlmForConditionalGeneration"):
            AxeTrainer(torch.nn.Linear(1, 1), processing_class=tokenizer)

    def test_arguments_of_another_kind(self, make_model, tokenizer, tmp_path):
        with pytest.raises(TypeError, match="`args` must be AxeTrainingArguments"):
            AxeTrainer(make_model(), TrainingArguments(str(tmp_path)), processing_class=tokenizer)

    def test_no_tokenizer(self, make_model, tmp_path):
        with pytest.raises(ValueError, match="`processing_class` is missing"):
            AxeTrainer(make_model(), AxeTrainingArguments(str(tmp_path)))

    def test_vocabulary_that_is_too_small(self, make_model, make_trainer, tokenizer):
        with pytest.raises(ValueError, match="resize_token_embeddings"):
            make_trainer(make_model(vocab_size=len(tokenizer) - 1))

    def test_special_tokens_that_differ(self, make_model, make_trainer):
        with pytest.raises(ValueError, match="`mask_token_id` is 3, the model's config has 5"):
            make_trainer(make_model(mask_token_id=5))

    def test_training_data_without_columns(self, make_trainer):
        trainer = make_trainer(
            train_dataset=Dataset.from_dict({"text": ["a"]}), max_tokens_per_batch=9
        )
        with pytest.raises(ValueError, match="`train_dataset` lacks the columns"):
            trainer.train()

    def test_resuming_from_nowhere(self, make_trainer, tmp_path):
        with pytest.raises(ValueError, match="holds no checkpoint.* leave it out"):
            make_trainer().train(resume_from_checkpoint=True)
        with pytest.raises(ValueError, match="holds no trainer_state.json"):
            make_trainer().train(resume_from_checkpoint=str(tmp_path / "nowhere"))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"generation_num_beams": 5}, "`generation_num_beams`.*use `num_length_candidates`"),
            ({"generation_max_length": 0}, "`generation_max_length`.*`min_length` 1 is over"),
            ({"generation_max_length": -1}, "`generation_max_length`.*must be >= 0, got -1"),
            (
                {"generation_config": GenerationConfig(num_beams=2)},
                "`generation_config`.*num_beams",
            ),
            (
                {"generation_config": GenerationConfig(do_sample=True, top_k=5)},
                "`generation_config`.*`top_k`",
            ),
            ({"bleu_tokenize": "14a"}, "`tokenize` must be one of 13a, char.*got '14a'"),
        ],
    )
    def test_what_only_evaluation_reads_is_checked_before_step_1(
        self, make_trainer, settings, message
    ):
        with pytest.raises(ValueError, match=message):
            make_trainer(eval_strategy="steps", **settings)

    @pytest.mark.parametrize("longest", [13, 200])
    def test_an_upper_bound_that_is_too_high_is_clamped(self, make_trainer, longest, dataset):
        expected = make_trainer().predict(dataset).predictions
        trainer = make_trainer(generation_max_length=longest, generation_num_beams=1)
        assert (trainer.predict(dataset).predictions == expected).all()
        config = GenerationConfig(max_length=longest, pad_token_id=0, eos_token_id=1)
        trainer = make_trainer(generation_config=config)
        assert (trainer.predict(dataset).predictions == expected).all()

    @pytest.mark.parametrize("metric", ["bleu", "eval_token_loss"])
    def test_a_metric_that_exists_chooses_the_best_model(self, make_trainer, metric):
        best = {"metric_for_best_model": metric, "load_best_model_at_end": True}
        steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
        trainer = make_trainer(**steps, **best, save_steps=2)
        trainer.train()
        assert trainer.state.best_model_checkpoint is not None

    @pytest.mark.parametrize("labels", [[7, 8], [7, 1, 8], []])
    def test_labels_without_an_end(self, make_trainer, labels):
        data = [{"input_ids": [7, 1], "labels": labels}]
        with pytest.raises(ValueError, match=r"must end in </s>, id 1, got \[8?\] in row 0"):
            make_trainer(train_dataset=data)

    @pytest.mark.parametrize("row", [("eins", "one"), {"text": "eins"}])
    def test_rows_for_a_collator_of_ones_own_are_not_looked_into(
        self, make_model, tokenizer, tmp_path, row
    ):
        args = AxeTrainingArguments(str(tmp_path), use_cpu=True)
        AxeTrainer(make_model(), args, list, [row], processing_class=tokenizer)

    def test_tokenizer_that_does_not_end_a_text(self, make_model, tokenizer, tmp_path):
        without = copy.deepcopy(tokenizer)
        without.backend_tokenizer.post_processor = processors.TemplateProcessing("$A")
        args = AxeTrainingArguments(str(tmp_path), use_cpu=True)
        with pytest.raises(ValueError, match="must append its eos_token '</s>'"):
            AxeTrainer(make_model(), args, processing_class=without)

    @pytest.mark.parametrize(
        ("setting", "value", "message"),
        [
            ("per_device_eval_batch_size", 0, "`per_device_eval_batch_size` must be at least 1"),
            ("eval_accumulation_steps", 0, "`eval_accumulation_steps` must be at least 1"),
            ("max_tokens_per_batch", 0, "`max_tokens_per_batch` must be at least 1"),
            ("masking", "some", "`masking` must be 'uniform' or 'full'"),
            ("ema_decay", 1.0, "`ema_decay` must be between 0 and 1"),
            ("label_smoothing_factor", 1.0, r"must be in \[0, 1\)"),
            ("train_minutes", 0, "`train_minutes` must be positive"),
        ],
    )
    def test_arguments_out_of_range(self, tmp_path, setting, value, message):
        with pytest.raises(ValueError, match=message):
            AxeTrainingArguments(str(tmp_path), **{setting: value})

    FLOATS = ["length_multiplier", "length_jitter", "train_minutes", "ema_decay", "learning_rate"]
    FLOATS += ["num_train_epochs", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2"]
    FLOATS += ["adam_epsilon", "label_smoothing_factor", "max_grad_norm", "logging_steps"]
    FLOATS += ["eval_steps", "save_steps", "eval_delay", "neftune_noise_alpha"]
    COUNTS = ["max_tokens_per_batch", "per_device_train_batch_size", "per_device_eval_batch_size"]
    COUNTS += ["gradient_accumulation_steps", "eval_accumulation_steps", "ddp_timeout"]
    COUNTS += ["dataloader_prefetch_factor"]

    @pytest.mark.parametrize("setting", [*FLOATS, *COUNTS, "max_steps", "seed", "save_total_limit"])
    def test_no_number_is_nan_infinite_or_negative(self, tmp_path, setting):
        for value in (math.nan, math.inf, -math.inf, -2):
            with pytest.raises(ValueError, match=f"`{setting}` must be .*, got {value}"):
                AxeTrainingArguments(str(tmp_path), **{setting: value})

    @pytest.mark.parametrize("setting", [*COUNTS, "max_steps", "num_train_epochs"])
    def test_no_number_is_zero_that_counts_something(self, tmp_path, setting):
        with pytest.raises(ValueError, match=f"`{setting}` must be .*, got 0"):
            AxeTrainingArguments(str(tmp_path), **{setting: 0})
        if setting != "num_train_epochs":
            with pytest.raises(ValueError, match=f"`{setting}` must be .*, got 1.5"):
                AxeTrainingArguments(str(tmp_path), **{setting: 1.5})

    def test_numbers_of_numpy_are_numbers(self, tmp_path):
        given = {"learning_rate": np.float32(1e-3), "max_steps": np.int64(3), "data_seed": -5}
        assert AxeTrainingArguments(str(tmp_path), use_cpu=True, **given).max_steps == 3

    def test_time_budget_with_a_schedule_it_cannot_follow(self, tmp_path):
        with pytest.raises(ValueError, match="`lr_scheduler_type` must be one of"):
            AxeTrainingArguments(
                str(tmp_path), train_minutes=1, lr_scheduler_type="constant", use_cpu=True
            )
        with pytest.raises(ValueError, match="`save_steps` must be a number of steps"):
            AxeTrainingArguments(str(tmp_path), train_minutes=1, save_steps=0.1, use_cpu=True)
