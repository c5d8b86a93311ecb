import pytest

from axe_hf import CmlmForConditionalGeneration, MaskPredictGenerationConfig


def test_evaluation_counts_every_example_once(make_trainer, make_model, dataset):
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


def test_evaluation_masks_everything_whatever_the_collator_does(make_trainer, make_model):
    model = make_model()
    losses = [make_trainer(model, masking=m).evaluate()["eval_loss"] for m in ("uniform", "full")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_evaluation_leaves_the_generation_config_alone(make_trainer, tmp_path):
    trainer = make_trainer()
    before = trainer.model.generation_config.to_dict()
    trainer.evaluate()
    trainer.predict(trainer.eval_dataset, num_iterations=3)
    assert trainer.model.generation_config.to_dict() == before
    trainer.save_model(tmp_path / "saved")
    reloaded = CmlmForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert reloaded.generation_config.to_dict() == before


def test_settings_of_generation_reach_the_decoder(make_trainer, monkeypatch):
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
    make_trainer, tmp_path, dataset, is_path
):
    config = MaskPredictGenerationConfig(num_iterations=3, num_length_candidates=2)
    config.save_pretrained(tmp_path / "generation")
    given = str(tmp_path / "generation") if is_path else config
    trainer = make_trainer(eval_dataset=dataset.select(range(3)), generation_config=given)
    trainer.evaluate()
    trainer.save_model(tmp_path / "saved")
    reloaded = CmlmForConditionalGeneration.from_pretrained(tmp_path / "saved").generation_config
    assert isinstance(reloaded, MaskPredictGenerationConfig)
    assert (reloaded.num_iterations, reloaded.num_length_candidates) == (3, 2)


def test_references_column_is_what_translations_are_scored_against(make_trainer, dataset, pairs):
    trainer = make_trainer()
    guessed = trainer.predict(dataset).predictions
    texts = trainer.processing_class.batch_decode(guessed.clip(min=0), skip_special_tokens=True)
    with_references = dataset.add_column("references", [["never", text + " x"] for text in texts])
    alone = trainer.evaluate(dataset)["eval_chrf"]
    helped = trainer.evaluate(with_references)
    assert helped["eval_chrf"] > alone + 40
    assert helped["eval_bleu_signature"].startswith("nrefs:2")


def test_several_evaluation_sets_each_have_their_references(make_trainer, dataset):
    named = {
        "plain": dataset.select(range(5)),
        "double": dataset.select(range(7)).add_column("references", [["a", "b"]] * 7),
    }
    metrics = make_trainer(eval_dataset=named).evaluate()
    assert metrics["eval_plain_bleu_signature"].startswith("nrefs:1")
    assert metrics["eval_double_bleu_signature"].startswith("nrefs:2")


def test_settings_for_several_results_do_not_shift_the_rows(make_trainer, dataset):
    trainer = make_trainer(eval_dataset=dataset.select(range(3)))
    plain = trainer.predict(dataset.select(range(3))).predictions
    settings = trainer.model.generation_config
    settings.num_length_candidates = settings.num_return_sequences = 3
    settings.length_score_weight = 1e6  # the first candidate is the one that stood alone
    settings.return_dict_in_generate = settings.output_history = True
    assert (trainer.predict(dataset.select(range(3))).predictions == plain).all()
