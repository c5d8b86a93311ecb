"""Export a trained model to ONNX and translate with onnxruntime, without PyTorch.

What it does: writes encoder, decoder step and the whole of Mask-Predict as ONNX files, the
tokenizer beside them, translates with the last one, and compares tokens, log-probabilities and time
with `model.generate`. Takes a minute on any CPU for a quick start model. Any folder that `axe-hf
quickstart` or `axe-hf train` left will do:

    pip install "axe-hf[onnx]"
    axe-hf quickstart
    python examples/export_onnx.py axe_hf_quickstart/axe exported "Where is the station?" "Hello!"

Expected output: the files with their sizes; a translation of each sentence; "tokens: equal", a
difference of log-probabilities of the order of 1e-6 nats, and the milliseconds of both for the
batch.
"""

import argparse
import time

import onnxruntime
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from axe_hf import export_onnx

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", help="folder of a trained model, or its name on the Hub")
parser.add_argument("folder", help="where to write the ONNX files")
parser.add_argument("texts", nargs="*", default=["Where is the station?", "I am hungry."])
parser.add_argument("--num_iterations", type=int, default=4, help="T of Mask-Predict")
parser.add_argument("--max_length", type=int, default=32, help="longest canvas, in positions")
parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier export")
options = parser.parse_args()
decoding = {"num_iterations": options.num_iterations, "max_length": options.max_length}

# 1. The model and its tokenizer.
model = AutoModelForSeq2SeqLM.from_pretrained(options.model).eval()
tokenizer = AutoTokenizer.from_pretrained(options.model)

# 2. Export. The settings are fixed in the graph; it tries one length.
decoding |= {"num_length_candidates": 1}
paths = export_onnx(
    model, options.folder, tokenizer=tokenizer, overwrite=options.overwrite, **decoding
)
for path in paths.values():
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")

# 3. Translate. From here on only onnxruntime and the tokenizer are needed.
session = onnxruntime.InferenceSession(paths["mask_predict"])
batch = tokenizer(options.texts, padding=True, return_tensors="np")
inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
tokens, log_probs, lengths = session.run(["tokens", "log_probs", "lengths"], inputs)
translations = tokenizer.batch_decode(tokens, skip_special_tokens=True)
for text in translations:
    print(f"  {text}")

# 4. Compare with model.generate.
kept = {"output_history": True, "return_dict_in_generate": True}
tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
output = model.generate(**tensors, **decoding, **kept)
expected = output.history["log_probs"][-1].numpy()  # (batch, longest canvas of this batch)
is_equal = translations == tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
difference = abs(log_probs[:, : expected.shape[1]] - expected).max()
print(f"tokens: {'equal' if is_equal else 'different'}")
print(f"largest difference of a log-probability: {difference:.1e} nats")

# 5. Time, the best of five.
runs = {"onnxruntime": lambda: session.run(None, inputs)}
runs["generate"] = lambda: model.generate(**tensors, **decoding)
for name, decode in runs.items():
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        decode()
        seconds.append(time.perf_counter() - start)
    print(f"{name}: {1000 * min(seconds):.1f} ms for {len(options.texts)} sentences")
