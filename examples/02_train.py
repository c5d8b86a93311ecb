"""Train a translation model with `AxeTrainer`, on sentence pairs of your own or on the phrasebook.

What it does: reads pairs, trains a tokenizer and a small CMLM with AXE, scores it and saves it.
Takes 10 minutes on two CPU cores with this command; a GPU is used if there is one.

    python examples/02_train.py --output_dir my_model --train_minutes 10 --ours --masking full \
        --max_tokens_per_batch 256 --length_multiplier 2 --length_jitter 0.2 --learning_rate 1e-3
Every field of `AxeTrainingArguments` is an option, and so are the fields of `Task` below.
Expected output: the losses, and at the end BLEU, chrF and repetition rate on unseen sentences.
"""

from dataclasses import dataclass

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, HfArgumentParser, set_seed

from axe_hf import AxeTrainer, AxeTrainingArguments, CmlmConfig
from axe_hf.data import PHRASEBOOK, load_translations, tokenize_translations, train_tokenizer
from axe_hf.evaluation import TranslationMetric
from axe_hf.translation import translate


@dataclass
class Task:
    train_file: str | None = None  # what load_translations reads; without it, the phrasebook
    test_file: str | None = None
    max_train_pairs: int | None = None  # train on the first so many only
    source_lang: str = "en"
    target_lang: str = "de"
    model_name_or_path: str | None = None  # fine-tune this one instead of a new one
    ours: bool = False  # all alignments and repetition; else the paper's AXE (multiplier 1.4)
    d_model: int = 192
    num_layers: int = 2
    vocab_size: int = 2000


task, args = HfArgumentParser((Task, AxeTrainingArguments)).parse_args_into_dataclasses()
set_seed(args.seed)

# 1. Sentence pairs.
languages = {"source_lang": task.source_lang, "target_lang": task.target_lang}
book = {name: PHRASEBOOK / f"{name}.jsonl.gz" for name in ("train", "test")}
files = {"train": task.train_file, "test": task.test_file} if task.train_file else book
pairs = {name: load_translations(file, **languages) for name, file in files.items()}
pairs["train"] = pairs["train"].select(range(len(pairs["train"]))[: task.max_train_pairs])

# 2. A model and its tokenizer: both from a folder or the Hub, or both new.
if task.model_name_or_path is not None:
    tokenizer = AutoTokenizer.from_pretrained(task.model_name_or_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(task.model_name_or_path)
else:
    texts = (text for pair in pairs["train"]["translation"] for text in pair.values())
    tokenizer = train_tokenizer(texts, vocab_size=task.vocab_size)
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers"), task.num_layers)
    sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 4 * task.d_model)
    if task.ours:
        sizes |= {"allow_repetition": True, "axe_temperature": 1.0, "axe_delta": float("inf")}
    config = CmlmConfig(vocab_size=len(tokenizer), d_model=task.d_model, dropout=0.1, **sizes)
    model = AutoModelForSeq2SeqLM.from_config(config)

# 3. Token ids; the trainer's collator masks them.
limits = {n: min(128, getattr(model.config, n)) for n in ("max_source_length", "max_target_length")}
data = tokenize_translations(pairs["train"], tokenizer, **languages, **limits)

# 4. Train.
trainer = AxeTrainer(model, args, train_dataset=data, processing_class=tokenizer)
trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)

# 5. Score, against all right translations where the file has them.
test = pairs["test"]
references = [pair[task.target_lang] for pair in test["translation"]]
references = list(test["references"]) if "references" in test.column_names else references
translations = translate(model, tokenizer, [p[task.source_lang] for p in test["translation"]])
scores = TranslationMetric().compute(predictions=translations, references=references)
for name in ("bleu", "bleu_signature", "chrf", "repetition_rate"):
    print(f"{name}: {scores[name]}")

# 6. Save: the folder loads with AutoModelForSeq2SeqLM after `import axe_hf`.
trainer.save_model()
trainer.create_model_card(**languages, scores={"test": scores})
