"""Translate with the folder of `axe-hf export MODEL --output-dir FOLDER [--int8]`, without PyTorch.

What it does: Mask-Predict around its three graphs. Copy it. Takes milliseconds a sentence:

    python examples/onnx_translate.py FOLDER "Where is the station?" "I am hungry."
Expected output: a line a sentence, the same as of `axe-hf translate FOLDER --batch-size 1`.
"""

import json
import sys
from pathlib import Path
from unicodedata import category

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

# 1. Settings, tokenizer and graphs.
folder, texts = Path(sys.argv[1]), sys.argv[2:] or (line.rstrip("\r\n") for line in sys.stdin)
if not (folder / "tokenizer.json").is_file():
    sys.exit(f"{folder} has no tokenizer.json: only `axe-hf translate` reads its tokenizer.")
files = (folder / f"{name}.json" for name in ("config", "generation_config", "tokenizer_config"))
config, settings, of_tokenizer = (json.loads(file.read_bytes()) for file in files)
others = ("early_stop", "confidence_threshold", "do_sample")
if settings["schedule"] != "linear" or any(map(settings.get, others)):
    sys.exit(f"{folder} decodes by a schedule or {', '.join(others)}. Export it without.")
prefix, ids_of = config.get("source_prefix") or "", ("pad", "eos", "mask", "blank")
pad, eos, mask, blank = (config[f"{name}_token_id"] for name in ids_of)
tags = {f">>{d.rpartition(':' if ':' in d else '-')[2]}<<" for d in config.get("directions") or ()}
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.encode_special_tokens = of_tokenizer.get("split_special_tokens", False)
tokenizer.enable_truncation(config["max_source_length"])
around = tokenizer.encode(" ".join(tags) if len(tags) > 1 else "").ids  # what says nothing
run = {n: InferenceSession(folder / f"{n}.onnx").run for n in ("encoder", "decoder", "head")}


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


# 2. Canvases of the most probable lengths, filled in pass by pass; the best of them is returned.
def mask_predict(source):  # (1, source)
    known, best = {"attention_mask": np.ones_like(source)}, {}
    known["source_key_values"], logits = run["encoder"](None, known | {"input_ids": source})
    for number, score in enumerate(log_softmax(logits[0])[1:], start=1):
        length = max(round(number * settings["length_multiplier"]), settings["min_length"])
        length = min(length, settings["max_length"])
        best[length] = max(score, best.get(length, score))
    ranked = sorted(best, key=lambda n: (-best[n], n))[: settings["num_length_candidates"]]
    lengths, total = np.array(ranked)[:, None], settings["num_iterations"]
    is_inside = np.arange(max(ranked)) < lengths  # (candidates, canvas)
    tokens, scores = np.where(is_inside, mask, pad), np.zeros(is_inside.shape, np.float32)
    for t in range(total):  # all positions in the first pass, then the least probable again
        counts = np.maximum(1, lengths * (total - t) // total)
        order = np.where(is_inside, scores, np.inf).argsort(1, kind="stable")[:, : counts.max()]
        rows, columns = np.nonzero(np.arange(counts.max()) < counts)
        tokens[where := (rows, order[rows, columns])] = mask
        inputs = known | {"canvas": tokens[None], "query_positions": order[None]}
        states = run["decoder"](None, inputs)[0][0, rows, columns]  # (masked, d_model)
        size = max(1, 2**21 // config["vocab_size"])  # as axe_hf: in int8 these share a scale
        parts = np.split(states, range(size, len(states), size))
        logits = np.concatenate([run["head"](None, {"states": part})[0] for part in parts])
        logits[:, [pad, mask, *(settings.get("suppress_tokens") or ())]] = -np.inf
        tokens[where], scores[where] = logits.argmax(1), log_softmax(logits).max(1)
    bonus = settings["length_score_weight"] * np.array([best[n] for n in ranked])
    return tokens[(scores.sum(1) / lengths[:, 0] + bonus).argmax()]


for text in texts:
    is_visible = any(not c.isspace() and category(c) not in ("Cc", "Cf") for c in text)
    tag = next((t for t in tags if len(tags) > 1 and text.lstrip().startswith(t)), "")
    if is_visible and len(tags) > 1 and not tag:
        sys.exit(f"Begin each text with one of {sorted(tags)}: into which is it to be translated?")
    head, said = (f"{tag} ", text.lstrip()[len(tag) :].lstrip()) if tag else ("", text * is_visible)
    bare, ids = (tokenizer.encode(head + prefix + s).ids for s in ("", said.removeprefix(prefix)))
    tokens = mask_predict(np.array([ids])) if {*ids} - {*around} and ids != bare else np.array([])
    is_kept = np.diff(tokens, prepend=-1) != 0 if settings["collapse_repeats"] else tokens >= 0
    print(tokenizer.decode(tokens[is_kept & ~np.isin(tokens, (pad, eos, blank))].tolist()))
