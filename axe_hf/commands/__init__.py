"""The commands of `axe-hf`, a module each: `parse(argv)`, `run(options)`, `after_interrupt(options)`."""

from .parsing import CommandParser, UsageError

__all__ = ["COMMANDS", "CommandParser", "UsageError"]

COMMANDS = {
    "quickstart": "train two small models in minutes, on the built-in data, and compare them",
    "train": "train a model on your sentence pairs, or fine-tune one",
    "translate": "translate text with a trained model",
    "evaluate": "score a model, or translations that you have, with BLEU and chrF",
}
