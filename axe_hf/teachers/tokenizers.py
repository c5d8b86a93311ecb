"""A teacher's own tokenizer, with the two symbols that a CMLM has and its teacher has not.

Nothing that the teacher's tokenizer does to a text changes: an ordinary one gives the same ids.
"""

import copy
from difflib import get_close_matches
from os import PathLike
from typing import Any

from tokenizers import Regex, pre_tokenizers
from transformers import (
    AddedToken,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ..data.tokenizer import BLANK, MASK, CmlmTokenizer, check_special_tokens, check_tokenizer

_LANGUAGES = {"source_lang": "src_lang", "target_lang": "tgt_lang"}


def student_tokenizer(
    name_or_tokenizer: str | PathLike | PreTrainedTokenizerBase,
    *,
    source_lang: str | None = None,
    target_lang: str | None = None,
) -> PreTrainedTokenizerBase:
    """The tokenizer of a student: a copy of its teacher's, extended by `add_cmlm_symbols`."""
    if isinstance(name_or_tokenizer, PreTrainedTokenizerBase):
        tokenizer = copy.deepcopy(name_or_tokenizer)
    else:
        tokenizer = AutoTokenizer.from_pretrained(name_or_tokenizer)
    for argument, code in {"source_lang": source_lang, "target_lang": target_lang}.items():
        if code is not None:
            _set_language(tokenizer, argument, code)
    add_cmlm_symbols(tokenizer)
    return tokenizer


def add_cmlm_symbols(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a teacher's tokenizer a mask and a blank, in place, and let no text spell a symbol."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        kind = type(tokenizer).__name__
        raise TypeError(f"`tokenizer` must be a tokenizer of Transformers, got {kind}.")
    check_special_tokens(tokenizer, ["pad_token", "eos_token"])
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        if not isinstance(tokenizer, CmlmTokenizer):
            _become_cmlm_tokenizer(tokenizer)
    else:
        _extend_python_tokenizer(tokenizer)
    check_tokenizer(tokenizer)


def _set_language(tokenizer: Any, argument: str, code: str) -> None:
    name = _LANGUAGES[argument]
    if not hasattr(tokenizer, name):
        kind = type(tokenizer).__name__
        raise ValueError(
            f"`{argument}` is {code!r}, but a {kind} knows no languages. Leave it out."
        )
    known = list(getattr(tokenizer, "lang_code_to_id", None) or tokenizer.extra_special_tokens)
    if code not in known:
        near = get_close_matches(code, known, n=5, cutoff=0.3) or known[:5]
        raise ValueError(
            f"`{argument}` must be a code of the tokenizer, such as {near}, got {code!r}."
        )
    setattr(tokenizer, name, code)
    tokenizer.init_kwargs[name] = code


def _become_cmlm_tokenizer(tokenizer: Any) -> None:
    """Make a fast tokenizer one whose file says all there is to it.

    The classes of Transformers build theirs anew when they are loaded, and lose what was added.
    """
    if hasattr(tokenizer, "_switch_to_input_mode"):
        tokenizer._switch_to_input_mode()
    named = {name: token for name, token in tokenizer._special_tokens_map.items() if token}
    named.setdefault("mask_token", AddedToken(MASK, special=True, normalized=False))
    named.setdefault("blank_token", AddedToken(BLANK, special=True, normalized=False))
    languages = {
        name: code for name in _LANGUAGES.values() if (code := getattr(tokenizer, name, None))
    }
    extended = CmlmTokenizer(
        tokenizer_object=tokenizer.backend_tokenizer,
        extra_special_tokens=list(tokenizer._extra_special_tokens),
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
        padding_side="right",
        truncation_side="right",
        split_special_tokens=True,
        **named,
        **languages,
    )
    _never_spell(extended)
    tokenizer.__class__ = CmlmTokenizer
    vars(tokenizer).clear()
    vars(tokenizer).update(vars(extended))


def _never_spell(tokenizer: Any) -> None:
    """Let no text give a special token that is a piece of the model, too.

    Unigram would choose it: a special token's score is the best there is. So the text is cut
    behind the first character of each, in front of the model and behind everything else.
    """
    backend = tokenizer.backend_tokenizer
    pieces = backend.model
    special = [t for t in tokenizer.all_special_tokens if pieces.token_to_id(t) is not None]
    backend.encode_special_tokens = True
    if type(pieces).__name__ != "Unigram" or not special:
        return
    rest = "|".join(f"{_escaped(token[0])}(?={_escaped(token[1:])})" for token in special)
    cut = pre_tokenizers.Split(Regex(rest), "merged_with_previous")
    before = [backend.pre_tokenizer] if backend.pre_tokenizer is not None else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*before, cut])


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):X}}}" for c in text)


def _extend_python_tokenizer(tokenizer: Any) -> None:
    """Slow tokenizers: their class is kept, their configuration says the rest."""
    new = {}
    if tokenizer.mask_token is None:
        new["mask_token"] = MASK
    if getattr(tokenizer, "blank_token", None) is None:
        new["blank_token"] = BLANK
        tokenizer.SPECIAL_TOKENS_ATTRIBUTES = [*tokenizer.SPECIAL_TOKENS_ATTRIBUTES, "blank_token"]
    first = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))
    first = max(first, 1 + max(getattr(tokenizer, "lang_code_to_id", {"": -1}).values()))
    tokens = {
        first + i: AddedToken(text, special=True, normalized=False)
        for i, text in enumerate(new.values())
    }
    tokenizer.added_tokens_decoder = tokens
    for name, text in new.items():
        setattr(tokenizer, name, text)
    tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
