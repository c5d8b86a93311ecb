"""Train, fine-tune, score and predict, called as Transformers' script of this name is.

What it does: what `axe-hf train` does, by the same `run_training`, from options, from a JSON or
YAML file of them, or from both, where options win: a CMLM from random weights, from a teacher's
(--init_from) or to fine-tune (--model_name_or_path), whole or by an adapter (--use_peft).
Takes 10 minutes on two CPU cores with this command, and a GPU if there is one. For two processes
write `python -m torch.distributed.run --nproc_per_node 2` in place of `python`, and on CPUs
--use_cpu.

    python examples/run_translation.py examples/recipes/small_cpu.yaml --do_train --do_predict \
        --source_lang en --target_lang de --train_file train.jsonl --test_file test.jsonl \
        --output_dir my_model
    python examples/run_translation.py --model_name_or_path my_model --do_predict \
        --source_lang en --target_lang de --test_file more.jsonl --output_dir predictions
Expected output: the losses, BLEU and chrF; in --output_dir the model, all_results.json and, with
--do_predict, generated_predictions.txt. Without any --do_... all is done that the data allow.
Other than with that script: --num_beams becomes --num_length_candidates. As there, a run goes on
from the last checkpoint in --output_dir, and scores of --do_predict are named predict_*, too.
"""

import json
import sys
from pathlib import Path

import yaml
from transformers import HfArgumentParser
from transformers.trainer_utils import get_last_checkpoint

from axe_hf import AxeTrainingArguments, DataArguments, ModelArguments, run_training
from axe_hf.training import ScriptArguments


def words_of(path: str) -> list[str]:
    """The options that a JSON or YAML file stands for; null of JSON is what is not given."""
    text, words = Path(path).read_text(encoding="utf-8"), []
    settings = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    if not isinstance(settings, dict) or None in settings.values() and path[-5:] != ".json":
        raise ValueError("must hold settings by name, each with a value.")
    for name, value in settings.items():
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words += [f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"]
    return words


# 1. Arguments of the model, the data and the training; and what that script calls otherwise.
KINDS = (ModelArguments, DataArguments, AxeTrainingArguments, ScriptArguments)
usage = "run_translation.py [ARGUMENTS.json | ARGUMENTS.yaml] [OPTIONS]"
parser = HfArgumentParser(KINDS, usage=usage, description="see the head of this file")
words = sys.argv[1:]
if words and words[0].endswith((".json", ".yaml", ".yml")):
    try:
        words = words_of(words[0]) + words[1:]
    except (OSError, ValueError, yaml.YAMLError) as error:
        parser.error(f"{words[0]}: {error}")
try:
    *arguments, script = parser.parse_args_into_dataclasses(words, look_for_args_file=False)
    *arguments, args = script.applied_to(*arguments)
except (OSError, ValueError) as error:
    parser.error(str(error))
last = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
if last is not None and args.do_train and args.resume_from_checkpoint is None:
    if args.process_index == 0:
        print(f"{last} is there: going on from it. Choose another --output_dir to start anew.")
    args.resume_from_checkpoint = "last"

# 2. The run.
try:
    result = run_training(*arguments, args)
except (ImportError, OSError, ValueError) as error:
    sys.exit(f"run_translation.py: error: {error}")
if args.do_predict:
    scores = {name: value for name, value in result.metrics.items() if name.startswith("test_")}
    predicted = {f"predict_{name.removeprefix('test_')}": scores[name] for name in scores}
    result.trainer.save_metrics("predict", predicted)
if result.trainer.is_world_process_zero():
    for name, value in result.metrics.items():
        print(f"{name}: {value}")
