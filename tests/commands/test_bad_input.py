"""Every command refuses what is no good for it in one line that names the option, or the place.

A row of a table is the rest of a command line, of words between spaces, and what the line must
hold; {run}, {model}, {pairs} ... are files, whose paths the row may name too. The exit code is 2
for wrong usage and 1 for what only the run can find out. No traceback, and nothing written.
"""

import gzip
import json
import os

import pytest

TRAIN = "--source-lang en --target-lang de --output-dir {out} --use-cpu --max-steps 1 "
SIZES = "--d-model 16 --encoder-layers 1 --decoder-layers 1 --vocab-size 300 "
DEEP = "[" * 100_000
GOOD = '{"translation": {"en": "one", "de": "eins"}}\n'
FILES = {
    "pairs.tsv": "one two\teins zwei\nthree\tdrei\n" * 5,
    "three.tsv": "one\teins\none\teins\tuno\n",
    "one.tsv": "one\teins\ntwo\n",
    "half.tsv": "one\teins\n\tzwei\n",
    "empty.tsv": "",
    "latin.tsv": b"one\teins\nt\xfc\tzw\xf6lf\n",
    "utf16.tsv": "one\teins\n".encode("utf-16"),
    "broken.jsonl": GOOD + '{"translation": \n',
    "deep.jsonl": GOOD + DEEP + "\n",
    "deep.json": DEEP,
    "long_number.jsonl": GOOD + "1" * 5000 + "\n",
    "list.jsonl": GOOD + "[]\n",
    "french.jsonl": GOOD + '{"translation": {"fr": "un", "de": "eins"}}\n',
    "number.jsonl": GOOD + '{"translation": {"en": 5, "de": "eins"}}\n',
    "surrogate.jsonl": GOOD + '{"translation": {"en": "\\ud83d", "de": "eins"}}\n',
    "references.jsonl": GOOD + GOOD.strip()[:-1] + ', "references": ["\\ud83d"]}\n',
    "no_references.jsonl": GOOD + GOOD.strip()[:-1] + ', "references": []}\n',
    "no_gzip.tsv.gz": "one\teins\n",
    "cut.tsv.gz": gzip.compress(b"one\teins\n" * 99)[:-9],
    "table.csv": 'one,eins\n"two,zwei\n',
    "text.en": "one\ntwo\n",
    "text.de": "eins\n",
    "latin.txt": b"one\nt\xfc\n",
    "run.json": '{"source_lang": "en",\n "target_lang"}',
    "deep_run.json": DEEP,
    "deep_run.yaml": DEEP[:5000],
    "list.json": "[1]",
    "list.yaml": "- 1\n",
    "unclosed.yaml": "seed: 1\nmasking: [\n",
    "unknown.yaml": "learning_rat: 1\n",
    "number.yaml": "source_lang: en\nseed: first\n",
    "nothing.yaml": "seed:\n",
    "latin.yaml": b"run_name: t\xfc\n",
    "zero.yaml": "seed: \x00\n",
    "long_number.json": '{"seed": ' + "1" * 5000 + "}",
}


@pytest.fixture(scope="session")
def files(model, rescorer, tmp_path_factory):
    """The paths that rows name, by their names."""
    folder = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        content = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(content)
    (folder / "full").mkdir()
    (folder / "full" / "mine").write_text("mine")
    (folder / "none").mkdir()
    for name, config in {"cut": "{", "deep": DEEP, "kind": '{"model_type": "cmlmm"}'}.items():
        (folder / f"{name}_model").mkdir()
        (folder / f"{name}_model" / "config.json").write_text(config)
    broken = json.loads((model / "config.json").read_text()) | {"axe_delta": -1}
    (folder / "delta_model").mkdir()
    (folder / "delta_model" / "config.json").write_text(json.dumps(broken))
    (folder / "bare_model").mkdir()  # neither weights nor tokenizer
    (folder / "bare_model" / "config.json").write_text((model / "config.json").read_text())
    paths = {path.name.replace(".", "_"): path for path in folder.iterdir()}
    return paths | {"model": model, "rescorer": rescorer, "folder": folder}


def rows(*table):
    """Parametrises a test by rows of (words, what the line holds)."""
    return pytest.mark.parametrize(("words", "place"), table, ids=[words for words, _ in table])


@pytest.fixture
def refused(axe_hf, files, tmp_path, monkeypatch):
    """Runs a command that must fail, with a line that names the place, and leave nothing behind."""
    monkeypatch.chdir(tmp_path)

    def run(code, command, words, place):
        before = sorted(os.walk(files["folder"]))
        paths = {name: str(path) for name, path in files.items()} | {"out": str(tmp_path / "out")}
        argv = [word.format(**paths) for word in words.split()]
        found, _, err = axe_hf(command, *argv)
        assert found == code and "Traceback" not in err, err
        line = err.rstrip("\n").splitlines()[-1]
        assert line.startswith(f"axe-hf {command}: error: ") and place.format(**paths) in line
        assert "(to see where: " not in line  # as behind the name of a foreign error
        assert sorted(os.walk(files["folder"])) == before and not list(tmp_path.iterdir())

    return run


# A table is read by its rows.
ARGUMENTS = (
    ("--dataset-name owner/name", "dataset_name"),
    ("--validation-split test", "validation_split"),
    ("--test-split test", "test_split"),
    ("--seed 1 stray", "stray"),
    ("--learning-rat 1", "--learning-rat"),
    ("--learning-rate fast", "--learning-rate"),
    ("--learning-rate", "--learning-rate"),
    ("--learning-rate nan", "learning_rate"),
    ("--learning-rate -1", "learning_rate"),
    ("--d-model 0", "d_model"),
    ("--d-model wide", "--d-model"),
    ("--d-model 1.5", "--d-model"),
    ("--encoder-layers", "--encoder-layers"),
    ("--dropout 1", "dropout"),
    ("--dropout much", "--dropout"),
    ("--dropout nan", "dropout"),
    ("--axe-delta -1", "axe_delta"),
    ("--axe-delta nan", "axe_delta"),
    ("--axe-temperature inf", "axe_temperature"),
    ("--allow-repetition maybe", "--allow-repetition"),
    ("--axe-temperature 1 --training-loss cross_entropy", "axe_temperature"),
    ("--align-first 2", "align_first"),
    ("--align-first 0.6 --cross-entropy-first 0.5", "cross_entropy_first"),
    ("--freeze encoder heads", "freeze"),
    ("--num-iterations 0", "num_iterations"),
    ("--axe-delta high", "--axe-delta"),
    ("--label-smoothing 1", "label_smoothing"),
    ("--length-loss-weight nan", "length_loss_weight"),
    ("--training-loss ctc", "--training-loss"),
    ("--position-embedding-type rotary", "--position-embedding-type"),
    ("--normalize-before maybe", "--normalize-before"),
    ("--masking half", "--masking"),
    ("--length-multiplier 0", "length_multiplier"),
    ("--length-multiplier nan", "length_multiplier"),
    ("--length-multiplier inf --masking full", "length_multiplier"),
    ("--length-multiplier 1.4 --masking uniform", "length_multiplier"),
    ("--length-jitter 1", "length_jitter"),
    ("--length-jitter some", "--length-jitter"),
    ("--max-tokens-per-batch 0", "max_tokens_per_batch"),
    ("--max-tokens-per-batch nan", "--max-tokens-per-batch"),
    ("--train-minutes 0", "train_minutes"),
    ("--train-minutes nan", "train_minutes"),
    ("--train-minutes 1 --lr-scheduler-type polynomial", "lr_scheduler_type"),
    ("--ema-decay 1", "ema_decay"),
    ("--ema-decay nan", "ema_decay"),
    ("--label-smoothing-factor 1", "label_smoothing_factor"),
    ("--gradient-accumulation-steps 0", "gradient_accumulation_steps"),
    ("--per-device-train-batch-size 0", "per_device_train_batch_size"),
    ("--warmup-steps -1", "warmup_steps"),
    ("--optim magic", "magic is not a valid OptimizerNames"),
    ("--lr-scheduler-type magic", "magic is not a valid SchedulerType"),
    ("--eval-strategy often", "often is not a valid IntervalStrategy"),
    ("--lr-scheduler-kwargs {{min_lr:1}}", "{{min_lr:1}}"),
    ("--liger-kernel-config [1]", "--liger-kernel-config"),
    ("--log-level loud", "--log-level"),
    ("--bf16 maybe", "--bf16"),
    ("--seed first", "--seed"),
    ("--vocab-size many", "--vocab-size"),
    ("--max-source-length 1", "max_source_length"),
    ("--max-target-length 0", "max_target_length"),
    ("--tokenizer-algorithm words", "--tokenizer-algorithm"),
    ("--vocab-size 9 --tokenizer-name-or-path {model}", "vocab_size"),
)


@rows(*ARGUMENTS)
def test_wrong_arguments_of_train(refused, words, place):
    refused(2, "train", f"{TRAIN}--train-file x {words}", place)


@rows(
    ("", "--source-lang, --target-lang, --output-dir"),
    ("--source-lang en --output-dir {out} --train-file {pairs_tsv}", "--target-lang"),
    ("--source-lang", "--source-lang"),
    (TRAIN, "train_file"),
    (TRAIN + "--train-file", "--train-file"),
    ("{folder}/nowhere.yaml", "{folder}/nowhere.yaml"),
    ("{folder}", "{folder}"),
    ("{pairs_tsv}", "{pairs_tsv}"),
    ("{run_json}", "{run_json}, line 2"),
    ("{deep_run_json}", "{deep_run_json}"),
    ("{deep_run_yaml}", "{deep_run_yaml}"),
    ("{long_number_json}", "{long_number_json}"),
    ("{list_json}", "{list_json}"),
    ("{list_yaml}", "{list_yaml}"),
    ("{unclosed_yaml}", "{unclosed_yaml}, line 3"),
    ("{unknown_yaml}", "{unknown_yaml}: there is no setting 'learning_rat'"),
    ("{number_yaml}", "{number_yaml}: 'seed'"),
    ("{nothing_yaml}", "{nothing_yaml}: 'seed'"),
    ("{latin_yaml}", "{latin_yaml}"),
    ("{zero_yaml}", "{zero_yaml}"),
)
def test_wrong_usage_of_train(refused, words, place):
    refused(2, "train", words, place)


@rows(
    ("--train-file {folder}/nowhere.tsv", "`train_file`: `source` must name an existing"),
    ("--train-file {folder}/a.en,{folder}/a.de", "{folder}/a.en"),
    ("--train-file {table_csv}", "{table_csv}"),
    ("--train-file {empty_tsv}", "{empty_tsv}"),
    ("--train-file {three_tsv}", "{three_tsv}, line 2"),
    ("--train-file {one_tsv}", "{one_tsv}, line 2"),
    ("--train-file {half_tsv}", "{half_tsv}, line 2"),
    ("--train-file {latin_tsv}", "{latin_tsv}, line 2"),
    ("--train-file {utf16_tsv}", "{utf16_tsv}, line 1"),
    ("--train-file {broken_jsonl}", "{broken_jsonl}, line 2"),
    ("--train-file {deep_jsonl}", "{deep_jsonl}, line 2"),
    ("--train-file {deep_json}", "{deep_json}"),
    ("--train-file {long_number_jsonl}", "{long_number_jsonl}, line 2"),
    ("--train-file {list_jsonl}", "{list_jsonl}, line 2"),
    ("--train-file {french_jsonl}", "{french_jsonl}, line 2"),
    ("--train-file {number_jsonl}", "{number_jsonl}, line 2"),
    ("--train-file {surrogate_jsonl}", "{surrogate_jsonl}, line 2"),
    ("--train-file {references_jsonl}", "{references_jsonl}, line 2"),
    ("--train-file {no_gzip_tsv_gz}", "{no_gzip_tsv_gz}"),
    ("--train-file {cut_tsv_gz}", "{cut_tsv_gz}"),
    ("--train-file {text_en},{text_de}", "{text_en} and {text_de}"),
    ("--train-file {pairs_tsv} --validation-file {one_tsv}", "`validation_file`: {one_tsv}"),
    ("--train-file {pairs_tsv} --test-file {deep_jsonl}", "`test_file`: {deep_jsonl}, line 2"),
    ("--train-file {pairs_tsv} --vocab-size 9", "vocab_size"),
    ("--train-file {pairs_tsv} {sizes} --d-model 15", "d_model"),
    ("--train-file {pairs_tsv} {sizes} --activation-function none", "activation_function"),
    ("--train-file {pairs_tsv} --model-name-or-path {none}", "{none}"),
    ("--train-file {pairs_tsv} --model-name-or-path {folder}/no/model", "no/model"),
    ("--train-file {pairs_tsv} --model-name-or-path {model} --d-model 32", "d_model"),
    ("--train-file {pairs_tsv} --model-name-or-path {model} --max-source-length 99", "max_source"),
    ("--train-file {pairs_tsv} --model-name-or-path {model} --vocab-size 9", "vocab_size"),
    ("--train-file {pairs_tsv} --tokenizer-name-or-path {none}", "{none}"),
    ("--train-file {pairs_tsv} --resume-from-checkpoint last", "resume_from_checkpoint"),
    ("--train-file {pairs_tsv} --resume-from-checkpoint {none}", "resume_from_checkpoint"),
    ("--train-file {pairs_tsv} --output-dir {full}", "output_dir"),
    ("--train-file {pairs_tsv} --output-dir {pairs_tsv}", "output_dir"),
    ("--train-file {pairs_tsv} --target-lang en", "target_lang"),
)
def test_what_a_training_run_refuses(refused, words, place):
    refused(1, "train", TRAIN + words.replace("{sizes}", SIZES), place)


DECODING = (
    ("--num-iterations 0", "num_iterations"),
    ("--num-iterations four", "--num-iterations"),
    ("--num-iterations 1.5", "--num-iterations"),
    ("--num-iterations 1000000000", "num_iterations"),
    ("--num-iterations", "--num-iterations"),
    ("--num-length-candidates 0", "num_length_candidates"),
    ("--length-multiplier 0", "length_multiplier"),
    ("--length-multiplier nan", "length_multiplier"),
    ("--length-multiplier inf", "length_multiplier"),
    ("--length-score-weight nan", "length_score_weight"),
    ("--schedule fast", "schedule"),
    ("--confidence-threshold 2", "confidence_threshold"),
    ("--min-length -1", "min_length"),
    ("--max-length -1", "max_length"),
    ("--max-length ten", "--max-length"),
    ("--temperature 0", "temperature"),
    ("--temperature -inf", "temperature"),
    ("--batch-size 0", "--batch-size"),
    ("--batch-size many", "--batch-size"),
    ("--int8 --device cuda", "--device cuda"),
    ("--num-beams 5", "--num-beams"),
    ("--num-iteration 4", "--num-iteration"),
)


@rows(
    ("", "MODEL"),
    ("{model} one --input {text_en}", "--input"),
    ("{model} one --output", "--output"),
    ("{model} one --input", "--input"),
    *((f"{{model}} one {words}", place) for words, place in DECODING),
)
def test_wrong_usage_of_translate(refused, words, place):
    refused(2, "translate", words, place)


@rows(
    ("{folder}/no/model one", "MODEL"),
    ("{none} one", "MODEL"),
    ("{pairs_tsv} one", "MODEL"),
    ("{cut_model} one", "MODEL"),
    ("{deep_model} one", "MODEL"),
    ("{kind_model} one", "MODEL"),
    ("{delta_model} one", "MODEL"),
    ("{bare_model} one", "MODEL"),
    ("{rescorer} one", "MODEL"),
    ("{model} --input {folder}/nowhere.txt", "{folder}/nowhere.txt"),
    ("{model} --input {none}", "{none}"),
    ("{model} --input {latin_txt}", "{latin_txt}, line 2"),
    ("{model} --input {cut_tsv_gz}", "{cut_tsv_gz}"),
    ("{model} one --output {full}", "--output"),
    ("{model} one --output {pairs_tsv}", "--output"),
    ("{model} one --output {folder}/no/out.txt", "--output"),
    ("{model} --input {text_en} --output {text_en} --overwrite", "--output"),
    ("{model} one --device tpu", "--device"),
    ("{model} one --device cuda:99", "--device"),
    ("{model} one --rescore-with {none}", "--rescore-with"),
    ("{model} one --rescore-with {pairs_tsv}", "--rescore-with"),
    ("{model} one --rescore-with {deep_model}", "--rescore-with"),
    ("{model} one --rescore-with {model}", "must be autoregressive"),
    ("{model} one --min-length 99", "min_length"),
    ("{model} one --temperature 2", "temperature"),
)
def test_what_translate_refuses(refused, words, place):
    refused(1, "translate", words, place)


LANGUAGES = "--source-lang en --target-lang de "


@rows(
    ("", "MODEL"),
    ("{model}", "DATA"),
    ("{model} {pairs_tsv}", "--source-lang"),
    ("{model} {pairs_tsv} --source-lang en", "--target-lang"),
    ("--translations {text_en}", "--references"),
    ("--references {text_en}", "--translations"),
    ("--references", "--references"),
    ("{model} {pairs_tsv} --translations {text_en} --references {text_en}", "--translations"),
    ("--translations {text_en} --references {text_en} --int8", "--int8"),
    ("--translations {text_en} --references {text_en} --device cpu", "--device"),
    ("--translations {text_en} --references {text_en} --num-iterations 4", "--num-iterations"),
    *((f"{{model}} {{pairs_tsv}} {LANGUAGES}{words}", place) for words, place in DECODING),
)
def test_wrong_usage_of_evaluate(refused, words, place):
    refused(2, "evaluate", words, place)


@rows(
    ("{model} {folder}/nowhere.tsv " + LANGUAGES, "{folder}/nowhere.tsv"),
    ("{model} {table_csv} " + LANGUAGES, "{table_csv}"),
    ("{model} {empty_tsv} " + LANGUAGES, "{empty_tsv}"),
    ("{model} {one_tsv} " + LANGUAGES, "{one_tsv}, line 2"),
    ("{model} {latin_tsv} " + LANGUAGES, "{latin_tsv}, line 2"),
    ("{model} {broken_jsonl} " + LANGUAGES, "{broken_jsonl}, line 2"),
    ("{model} {deep_jsonl} " + LANGUAGES, "{deep_jsonl}, line 2"),
    ("{model} {references_jsonl} " + LANGUAGES, "{references_jsonl}, line 2"),
    ("{model} {no_references_jsonl} " + LANGUAGES, "{no_references_jsonl}, line 2"),
    ("{model} {french_jsonl} " + LANGUAGES, "{french_jsonl}, line 2"),
    ("{model} {text_en},{text_de} " + LANGUAGES, "{text_en} and {text_de}"),
    ("{model} {pairs_tsv} --source-lang en --target-lang en", "target_lang"),
    ("{model} {pairs_tsv} --output {full} " + LANGUAGES, "--output"),
    ("{none} {pairs_tsv} " + LANGUAGES, "MODEL"),
    ("{cut_model} {pairs_tsv} " + LANGUAGES, "MODEL"),
    ("{deep_model} {pairs_tsv} " + LANGUAGES, "MODEL"),
    ("{rescorer} {pairs_tsv} " + LANGUAGES, "MODEL"),
    ("{model} {pairs_tsv} --device tpu " + LANGUAGES, "--device"),
    ("{model} {pairs_tsv} --rescore-with {none} " + LANGUAGES, "--rescore-with"),
    ("--translations {folder}/nowhere --references {text_en}", "{folder}/nowhere"),
    ("--translations {text_en} --references {folder}/nowhere", "{folder}/nowhere"),
    ("--translations {text_en} --references {text_de}", "{text_de}"),
    ("--translations {text_en} --references {text_en} {text_de}", "{text_de}"),
    ("--translations {latin_txt} --references {text_en}", "{latin_txt}, line 2"),
    ("--translations {text_en} --references {latin_txt}", "{latin_txt}, line 2"),
    ("--translations {none} --references {text_en}", "{none}"),
    ("--translations {empty_tsv} --references {empty_tsv}", "nothing to score"),
    ("--translations {text_en} --references {text_en} --output {pairs_tsv}", "--output"),
    ("--translations {text_en} --references {text_en} --output {folder}/no/a.json", "--output"),
)
def test_what_evaluate_refuses(refused, words, place):
    refused(1, "evaluate", words, place)


DISTILL = "--source-lang en --target-lang de --output-dir {out} "


@rows(
    ("", "TEACHER, DATA"),
    ("{rescorer}", "DATA"),
    ("{rescorer} {pairs_tsv}", "--source-lang, --target-lang, --output-dir"),
    ("{rescorer} {pairs_tsv} --source-lang en --output-dir {out}", "--target-lang"),
    *(
        (f"{{rescorer}} {{pairs_tsv}} {DISTILL}{words}", place)
        for words, place in (
            ("--num-beam 4", "did you mean --num-beams"),
            ("--num-beams 0", "num_beams"),
            ("--num-beams many", "--num-beams"),
            ("--max-new-tokens 0", "max_new_tokens"),
            ("--length-penalty nan", "length_penalty"),
            ("--generation {{top_k:1}}", "--generation"),
            ("--seed -1", "seed"),
            ("--engine fast", "--engine"),
            ("--dtype float8", "--dtype"),
            ("--int8 --dtype bfloat16", "int8"),
            ("--max-tokens-per-batch 0", "max_tokens_per_batch"),
            ("--shard-size 0", "shard_size"),
            ("--max-length-ratio 0.5", "max_length_ratio"),
            ("--max-ngram 0", "max_ngram"),
            ("--drop-lowest 1", "drop_lowest"),
            ("--format csv", "--format"),
        )
    ),
)
def test_wrong_usage_of_distill(refused, words, place):
    refused(2, "distill", words, place)


@rows(
    ("{rescorer} {folder}/nowhere.tsv", "{folder}/nowhere.tsv"),
    ("{rescorer} {table_csv}", "{table_csv}"),
    ("{rescorer} {empty_tsv}", "{empty_tsv}"),
    ("{rescorer} {latin_txt}", "{latin_txt}, line 2"),
    ("{rescorer} {one_tsv}", "{one_tsv}, line 2"),
    ("{rescorer} {cut_tsv_gz}", "{cut_tsv_gz}"),
    ("{rescorer} {french_jsonl}", "{french_jsonl}, line 2"),
    ("{rescorer} {text_en} --keep-original", "keep_original"),
    ("{rescorer} {pairs_tsv} --source-lang de", "target_lang"),
    ("{rescorer} {pairs_tsv} --output-dir {full}", "output_dir"),
    ("{rescorer} {pairs_tsv} --output-dir {full} --overwrite", "output_dir"),
    ("{rescorer} {pairs_tsv} --output-dir {pairs_tsv}", "output_dir"),
    ("{rescorer} {pairs_tsv} --device tpu", "device"),
    ("{rescorer} {pairs_tsv} --tokenizer {none}", "tokenizer"),
    ("{rescorer} {pairs_tsv} --teacher-target-lang deu", "teacher_target_lang"),
    ("{rescorer} {pairs_tsv} --max-source-length 9999", "max_source_length"),
    ("{folder}/no/model {pairs_tsv}", "no/model"),
    ("{none} {pairs_tsv}", "teacher"),
    ("{pairs_tsv} {pairs_tsv}", "teacher"),
    ("{cut_model} {pairs_tsv}", "teacher"),
    ("{deep_model} {pairs_tsv}", "teacher"),
    ("{kind_model} {pairs_tsv}", "teacher"),
    ("{model} {pairs_tsv}", "must be autoregressive"),
)
def test_what_distill_refuses(refused, words, place):
    refused(1, "distill", DISTILL + words, place)  # of an option given twice the last counts


@rows(
    ("--minutes 0", "minutes"),
    ("--minutes -1", "minutes"),
    ("--minutes nan", "minutes"),
    ("--minutes inf", "minutes"),
    ("--minutes five", "--minutes"),
    ("--minutes", "--minutes"),
    ("--seed -1", "seed"),
    ("--seed 4294967296", "seed"),
    ("--seed 1.5", "--seed"),
    ("--output-dir=", "output_dir"),
    ("--output-dir", "--output-dir"),
    ("--minute 5", "--minute"),
    ("folder", "folder"),
)
def test_wrong_usage_of_quickstart(refused, words, place):
    refused(2, "quickstart", words, place)


@rows(
    ("--output-dir {full}", "output_dir"),
    ("--output-dir {pairs_tsv}", "output_dir"),
    ("--output-dir {pairs_tsv} --overwrite", "output_dir"),
)
def test_what_quickstart_refuses(refused, words, place):
    refused(1, "quickstart", words, place)


@pytest.mark.parametrize("argv", [["tran"], ["--nope"], ["--nope", "train"], [""], ["train.yaml"]])
def test_there_is_no_such_command(fails, argv):
    assert argv[0] in fails(2, *argv)
