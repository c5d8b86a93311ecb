"""`axe-hf export`."""

import argparse
import json
import re
from pathlib import Path

from ..output import check_new_folder
from . import models
from .options import CommandParser, UsageError, add_option

_DESCRIPTION = """\
Writes a model as ONNX graphs with its tokenizer: a folder that can be shared, that "axe-hf
translate" and "axe-hf evaluate" take for a MODEL, and that needs no PyTorch model.
"""
_EXAMPLES = """\
examples:
  axe-hf export my_model --output-dir my_model_int8 --int8
  axe-hf translate my_model_int8 "Where is the station?"
  axe-hf evaluate my_model_int8 test.tsv --source-lang en --target-lang de

It needs more packages: pip install "axe-hf[onnx]".
"""
_INT8 = "store and multiply integers: a quarter of the size, faster, slightly less exact"


def parse(argv: list[str]) -> argparse.Namespace:
    """What `argv` asks for, with the decoding settings in `generation`."""
    usage = "axe-hf export MODEL --output-dir DIR [OPTIONS]"
    parser = CommandParser(usage=usage, description=_DESCRIPTION, epilog=_EXAMPLES)
    text = "folder of a trained model, or its name on the Hub"
    parser.add_argument("model", metavar="MODEL", help=text)
    group = parser.add_argument_group("what to write, and where to")
    add_option(group, "output_dir", metavar="DIR", help="folder to make (required)")
    add_option(group, "int8", action="store_true", help=_INT8)
    parser.set_defaults(device="cpu")
    options = models.parse_with_decoding(parser, argv)
    if options.output_dir is None:
        raise UsageError("the following arguments are required: --output-dir")
    return options


def run(options: argparse.Namespace) -> None:
    """Export, and say what was written and what to do with it."""
    folder = check_new_folder(options.output_dir, "--output-dir")
    int8, options.int8 = options.int8, False  # the model that is loaded is not to be
    model, tokenizer = models.load_model(options)
    if models.is_of_graphs(model):
        raise ValueError(f"MODEL: {options.model} is exported already. Export what it was made of.")
    from .. import export_model

    print(f"Exporting {options.model}: about a minute for 6 + 6 layers ...", flush=True)
    card = models.model_card_of(options.model)
    card = card and _card_of_graphs(card, options.model, folder, int8)
    asked = {"tokenizer": tokenizer, "model_card": card}
    export_model(model.float(), folder, int8=int8, **asked, **options.generation)
    print(_report(folder))


def _card_of_graphs(card: str, model: str, folder: Path, is_int8: bool) -> str:
    """The model's card without how to load that, and with its name if others can find it."""
    card = re.sub("^## Use$.*?(?=^## )", "", card, count=1, flags=re.MULTILINE | re.DOTALL)
    card += _section(folder.resolve().name, is_int8)
    if Path(model).exists():
        return card
    from huggingface_hub import ModelCard

    changed = ModelCard(card)
    changed.data.base_model = model
    if is_int8:
        changed.data.base_model_relation = "quantized"
    return str(changed)


def _section(name: str, is_int8: bool) -> str:
    """What the card says of the exported folder."""
    kind = "in int8" if is_int8 else "in float32"
    return (
        f"\n## This folder\n\nThe model as ONNX graphs, {kind}, written by `axe-hf export`. "
        'Its scores may differ from those above.\n\n```bash\npip install "axe-hf[onnx]"\n'
        f'axe-hf translate {json.dumps(name)} "..."\n```\n'
    )


def _report(folder: Path) -> str:
    sizes = {path.name: path.stat().st_size / 2**20 for path in sorted(folder.iterdir())}
    lines = [f"{size:8.1f} MiB  {name}" for name, size in sizes.items()]
    lines += [f"{sum(sizes.values()):8.1f} MiB  in all", f"Try: axe-hf translate {folder} < FILE"]
    return "\n".join(lines)


def after_interrupt(options: argparse.Namespace) -> str:
    """What to say after Ctrl-C."""
    return f"Nothing was written to {options.output_dir}."
