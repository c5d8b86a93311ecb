"""Translate with a trained model: many sentences, one with its steps, and through a pipeline.

What it does: loads a model through Transformers' Auto classes and uses it in three ways.
Takes seconds on any CPU. Any folder that `axe-hf quickstart` or `axe-hf train` left will do:

    axe-hf quickstart
    python examples/03_translate.py axe_hf_quickstart/axe "Where is the station?" "I am hungry."

Expected output: a translation of each sentence; then, for the first one, the canvas after each
iteration, where "_" is what the next iteration predicts again.
"""

import argparse

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import axe_hf  # noqa: F401 (makes the model known to the Auto classes)
from axe_hf.history import format_history
from axe_hf.pipeline import CmlmTranslationPipeline
from axe_hf.translation import translate

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", help="folder of a trained model, or its name on the Hub")
parser.add_argument("texts", nargs="*", default=["Where is the station?", "I am hungry."])
options = parser.parse_args()

# 1. The model and its tokenizer.
model = AutoModelForSeq2SeqLM.from_pretrained(options.model).eval()
tokenizer = AutoTokenizer.from_pretrained(options.model)

# 2. Many sentences: sorted by length and batched inside, returned in their order.
print("In one pass of the decoder:")
for translation in translate(model, tokenizer, options.texts, num_iterations=1):
    print(f"  {translation}")

# 3. One sentence, step by step, with its score.
inputs = tokenizer(options.texts[:1], return_tensors="pt")
output = model.generate(
    **inputs, num_iterations=4, output_history=True, return_dict_in_generate=True
)
print(f"\nIn four passes ({output.sequences_scores[0]:.3f} nats per position):")
print(format_history(output, tokenizer))

# 4. As a pipeline, with three lengths tried for each sentence.
translator = CmlmTranslationPipeline(model=model, tokenizer=tokenizer, num_length_candidates=3)
print("\nWith three candidates of the length:")
for found in translator(options.texts):
    print(f"  {found['translation_text']}")
