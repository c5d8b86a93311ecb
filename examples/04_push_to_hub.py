"""Share a trained model on the Hugging Face Hub, with the code it needs.

What it does: puts weights, tokenizer, decoding settings, model card and code into one repository.
Others then load it with trust_remote_code=True, without installing this package.
Takes seconds, and the upload. Log in first (`hf auth login`), then:

    python examples/04_push_to_hub.py axe_hf_quickstart/axe your-name/en-de-axe

Expected output: the address of the repository. `axe-hf push` does the same, and more; of a model in
memory `axe_hf.push_to_hub_with_code` does, and `save_pretrained_with_code` writes it to a folder.
"""

import argparse

from axe_hf import push_folder_to_hub

# 1. What to share, and where.
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", help="folder of a trained model")
parser.add_argument("repo_id", help="name on the Hub, owner/name")
parser.add_argument("--private", action="store_true", help="make a new repository private")
options = parser.parse_args()

# 2. Upload it.
private = options.private or None  # None: as the owner's account has it
print(push_folder_to_hub(options.model, options.repo_id, private=private))
