"""`axe-hf push`."""

import argparse

from .options import CommandParser, add_option

_DESCRIPTION = """\
Uploads a trained or exported model to the Hugging Face Hub, as one commit: weights, tokenizer,
settings, card (README.md), and the code that others need to load it without this package.
Log in first: hf auth login.
"""
_EXAMPLES = """\
examples:
  axe-hf push axe_hf_quickstart/axe your-name/en-de-axe --license cc-by-4.0
  axe-hf push my_model your-name/my-model --revision v2 --create-pr
  axe-hf push my_model_int8 your-name/my-model-int8 --private
"""
_LICENSE = "identifier for the card, such as cc-by-4.0, which your data must allow"
_REVISION = "branch to write to, made if there is none (main)"


def parse(argv: list[str]) -> argparse.Namespace:
    """What `argv` asks for."""
    usage = "axe-hf push MODEL REPO [OPTIONS]"
    parser = CommandParser(usage=usage, description=_DESCRIPTION, epilog=_EXAMPLES)
    text = "folder that train, export or save_pretrained wrote"
    parser.add_argument("model", metavar="MODEL", help=text)
    parser.add_argument("repo", metavar="REPO", help="name on the Hub: name, or owner/name")
    group = parser.add_argument_group("how")
    visibility = {"action": argparse.BooleanOptionalAction, "default": None}
    text = "whether a new repository is private; by default as its owner has it"
    add_option(group, "private", **visibility, help=text)
    add_option(group, "revision", metavar="BRANCH", help=_REVISION)
    text = "open a pull request to the branch, which must be there then"
    add_option(group, "create_pr", action="store_true", help=text)
    text = "access token; by default that of hf auth login, or HF_TOKEN"
    add_option(group, "token", help=text)
    text = "title of the commit (Upload model, tokenizer and code)"
    add_option(group, "commit_message", metavar="TEXT", help=text)
    add_option(group, "license", metavar="ID", help=_LICENSE)
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> None:
    """Upload, and print the address."""
    from .. import push_folder_to_hub

    names = ("private", "revision", "create_pr", "token", "commit_message", "license")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    print(push_folder_to_hub(options.model, options.repo, **given))


def after_interrupt(options: argparse.Namespace) -> str:
    """What to say after Ctrl-C."""
    return f"Nothing was written to {options.repo}; the same command uploads what is missing."
