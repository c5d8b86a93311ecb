"""Share a trained model on the Hugging Face Hub, with the code it needs.

What it does: puts weights, tokenizer, decoding settings, model card and code into one repository.
Others then load it with trust_remote_code=True, without installing this package.
Takes seconds, and the upload. Log in first (`hf auth login`), then:

    python examples/04_push_to_hub.py axe_hf_quickstart/axe your-name/en-de-axe

Expected output: the address of the repository. With --folder the same files go to a new folder
instead, and nothing is uploaded:

    python examples/04_push_to_hub.py axe_hf_quickstart/axe your-name/en-de-axe --folder upload
"""

import argparse
from pathlib import Path

from transformers import AutoTokenizer

from axe_hf import CmlmForConditionalGeneration
from axe_hf.hub import push_to_hub_with_code, save_pretrained_with_code

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", help="folder of a trained model")
parser.add_argument("repo_id", help="name on the Hub, owner/name")
parser.add_argument("--folder", help="write here, and upload nothing")
parser.add_argument("--private", action="store_true", help="make the repository private")
options = parser.parse_args()

# 1. The model, its tokenizer, and the card that training wrote.
model = CmlmForConditionalGeneration.from_pretrained(options.model)
tokenizer = AutoTokenizer.from_pretrained(options.model)
card_file = Path(options.model) / "README.md"
card = card_file.read_text(encoding="utf-8") if card_file.is_file() else None

# 2. Upload, or only write what would be uploaded.
if options.folder is not None:
    save_pretrained_with_code(model, tokenizer, options.folder, model_card=card)
    print(f"Wrote {len(list(Path(options.folder).iterdir()))} files to {options.folder}.")
    print(
        f"Others: AutoModelForSeq2SeqLM.from_pretrained({options.repo_id!r}, "
        "trust_remote_code=True)"
    )
else:
    private = options.private or None  # None: as the owner's account has it
    print(
        push_to_hub_with_code(model, tokenizer, options.repo_id, private=private, model_card=card)
    )
