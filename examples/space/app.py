"""A Hugging Face Space that shows a translation model of axe_hf.

The Space's variables say what it shows (Settings, "Variables and secrets"):

- MODEL_ID: the model's name on the Hub, as it was trained or as `axe-hf export` wrote it;
- TEACHER_ID, which may be left out: an autoregressive model to compare speed and text with.

Here: `MODEL_ID=my_model python examples/space/app.py` (pip install "axe-hf[demo]").
"""

import os
import sys

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from axe_hf import create_demo, load_exported
from axe_hf.export import is_exported


def load(name):
    """A model and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    if is_exported(name):
        return load_exported(name), tokenizer
    return AutoModelForSeq2SeqLM.from_pretrained(name), tokenizer


model_id, teacher_id = os.environ.get("MODEL_ID"), os.environ.get("TEACHER_ID")
if not model_id:
    sys.exit("Set the variable MODEL_ID to the name of a model on the Hub, or to a folder.")
teacher = load(teacher_id) if teacher_id else None
demo = create_demo(*load(model_id), teacher=teacher, title=model_id)

if __name__ == "__main__":
    demo.launch()
