"""Trains on a stream in each of several processes, resumes in the middle, and writes what it saw.

python -m torch.distributed.run --nproc_per_node=2 tests/training/stream_of_two.py PAIRS FOLDER
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import set_seed

from axe_hf import AxeTrainer, AxeTrainingArguments, CmlmConfig, CmlmForConditionalGeneration
from axe_hf.data import PairStream, PairTokenizer, TranslationStream, train_tokenizer

source, folder = sys.argv[1:]
torch.set_num_threads(1)
languages = {"source_lang": "en", "target_lang": "de"}
pairs = PairStream(source, **languages)
lines = [json.loads(line)["translation"] for line in Path(source).read_text().splitlines()]
tokenizer = train_tokenizer([text for pair in lines for text in pair.values()], vocab_size=300)
stream = TranslationStream(pairs, PairTokenizer(tokenizer, "en", "de", 12, 12), shuffle_buffer=25)
sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.2}
sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32}
sizes |= {"decoder_ffn_dim": 32, "max_source_length": 12, "max_target_length": 12}


def train(checkpoint=None):
    set_seed(0)
    model = CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **sizes))
    args = AxeTrainingArguments(
        folder,
        max_steps=9,
        save_steps=4,
        max_tokens_per_batch=48,
        gradient_accumulation_steps=2,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = AxeTrainer(model, args, processing_class=tokenizer, train_dataset=stream)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


whole = train()
rank = whole.args.process_index
resumed = train(f"{folder}/checkpoint-4")
theirs = resumed.model.state_dict()
is_equal = all(torch.equal(w, theirs[name]) for name, w in whole.model.state_dict().items())
own, texts = [], [pair["en"] for pair in lines]
for batch in whole.get_train_dataloader().base_dataloader.dataset:
    own += tokenizer.batch_decode(
        [row["input_ids"] for row in batch.rows], skip_special_tokens=True
    )
    if batch.state["positions"][0]["epoch"]:
        break
told = {"steps": resumed.state.global_step, "is_equal": is_equal}
told["first_epoch"] = own
Path(folder).with_name(f"told_{rank}.json").write_text(json.dumps(told))
dist.destroy_process_group()
