"""A teacher's own tokenizer, with the two symbols that a CMLM has and its teacher has not.

To an ordinary text it gives the very ids that it gave the teacher. What spells a special symbol is
read as ordinary characters: `split_special_tokens`, which the tokenizer's configuration keeps.
"""

import copy
from difflib import get_close_matches
from os import PathLike
from typing import Any

from tokenizers import Regex, models, pre_tokenizers
from transformers import (
    AddedToken,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ..data.tokenizer import (
    BLANK,
    LANGUAGES,
    MASK,
    CmlmTokenizer,
    check_special_tokens,
    check_text_format,
    check_tokenizer,
    load_tokenizer,
)


def student_tokenizer(
    name_or_tokenizer: str | PathLike | PreTrainedTokenizerBase,
    *,
    source_lang: str | None = None,
    target_lang: str | None = None,
) -> PreTrainedTokenizerBase:
    """Make a student's tokenizer: a copy of its teacher's with a mask and a blank.

    Args:
        name_or_tokenizer: a tokenizer of Transformers, or the folder or Hub name of one.
        source_lang, target_lang: the languages of the student, by the codes of a tokenizer that
            has some (mBART: "en_XX", NLLB: "eng_Latn", M2M100: "en"); by default as it is set.

    Returns:
        The tokenizer as `add_cmlm_symbols` leaves it. Its `src_lang` and `tgt_lang`, if it has
        languages, are saved and loaded with it.

    Raises:
        TypeError, ValueError: as of `add_cmlm_symbols`, or the tokenizer has no such language.

    Example:
        >>> from axe_hf import student_tokenizer, train_tokenizer
        >>> teachers = train_tokenizer(["A dog barks.", "Ein Hund bellt."] * 5, vocab_size=300)
        >>> tokenizer = student_tokenizer(teachers)
        >>> tokenizer.mask_token, tokenizer.blank_token
        ('<mask>', '<blank>')
        >>> student_tokenizer("Helsinki-NLP/opus-mt-en-de").blank_token_id  # doctest: +SKIP
        58102
    """
    if isinstance(name_or_tokenizer, PreTrainedTokenizerBase):
        tokenizer = _copy_of(name_or_tokenizer)
    else:
        advice = "Pass a tokenizer, or a folder or name that has one, as `name_or_tokenizer`."
        tokenizer = load_tokenizer(name_or_tokenizer, advice)
    for argument, code in {"source_lang": source_lang, "target_lang": target_lang}.items():
        if code is not None:
            _set_language(tokenizer, argument, code)
    add_cmlm_symbols(tokenizer)
    return tokenizer


def add_cmlm_symbols(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a teacher's tokenizer, in place, a mask and a blank, and let no text spell a symbol.

    A mask that it has is kept, such as BART's; else `<mask>` is added. `<blank>` is always added:
    it is the tokenizer's `blank_token`, with a `blank_token_id`. What is new gets the ids behind
    those in use, `len(tokenizer)` and the next: size a model by the largest id + 1, or keep the
    rows of a teacher that has more than its tokenizer. Both are there after `save_pretrained` and
    `AutoTokenizer.from_pretrained`, without this package, too. Calling it again changes nothing.

    A tokenizer of one file, `tokenizer.json`, becomes a `CmlmTokenizer`: its own class would build
    it anew when it is loaded, without what was added. It stays set to the source language that it
    has then. Others, of Python and sentencepiece (Marian, M2M100), keep their class.

    Args:
        tokenizer: of an encoder-decoder, with one vocabulary for both sides.

    Raises:
        TypeError: it is no tokenizer of Transformers.
        ValueError: it has no `<pad>` or `</s>`, appends no `</s>`, or has two vocabularies.

    Example:
        >>> from axe_hf import add_cmlm_symbols
        >>> from transformers import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("facebook/bart-base")  # doctest: +SKIP
        >>> add_cmlm_symbols(tokenizer)  # doctest: +SKIP
        >>> tokenizer.mask_token_id, tokenizer.blank_token_id  # doctest: +SKIP
        (50264, 50265)
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        kind = type(tokenizer).__name__
        raise TypeError(f"`tokenizer` must be a tokenizer of Transformers, got {kind}.")
    if isinstance(tokenizer, CmlmTokenizer):
        return check_tokenizer(tokenizer)
    check_special_tokens(tokenizer, ["pad_token", "eos_token"])
    check_text_format(tokenizer)
    used = {*tokenizer.get_vocab().values()}
    has_mask, has_blank = tokenizer.mask_token is not None, hasattr(tokenizer, "blank_token")
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        _become_cmlm_tokenizer(tokenizer)
    else:
        _extend_python_tokenizer(tokenizer)
    new = {} if has_mask else {"mask_token_id": tokenizer.mask_token_id}
    new |= {} if has_blank else {"blank_token_id": tokenizer.blank_token_id}
    if taken := {name: i for name, i in new.items() if i in used}:
        raise ValueError(f"`tokenizer` leaves out ids, so that {taken} collide with others.")
    check_tokenizer(tokenizer)


def _copy_of(tokenizer: Any) -> Any:
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        return copy.deepcopy(tokenizer)
    # The copy of a sentencepiece model would need its file, which may be gone.
    own, state = object.__new__(type(tokenizer)), vars(tokenizer)
    for name, value in state.items():
        is_data = isinstance(value, dict | list) or name == "tokens_trie"
        vars(own)[name] = copy.deepcopy(value) if is_data else value
    return own


def _set_language(tokenizer: Any, argument: str, code: str) -> None:
    name = LANGUAGES[argument]
    if (set_to := getattr(tokenizer, name, None)) == code:
        return
    if isinstance(tokenizer, CmlmTokenizer) or not hasattr(tokenizer, name):
        made_for = "knows no languages" if set_to is None else f"is set to {set_to!r} for good"
        advice = "Leave it out, or take a teacher's tokenizer that knows it."
        raise ValueError(f"`{argument}` is {code!r}, but the tokenizer {made_for}. {advice}")
    extra = {*tokenizer.extra_special_tokens} - {*tokenizer.special_tokens_map.values()}
    known = sorted(getattr(tokenizer, "lang_code_to_id", extra))
    if code not in known:
        near = get_close_matches(code, known, n=5, cutoff=0.4) or known[:5]
        raise ValueError(f"`{argument}` must be one of its codes, such as {near}, got {code!r}.")
    setattr(tokenizer, name, code)
    # Only what a tokenizer was made with is saved, in slow ones the languages too.
    tokenizer.init_kwargs[name] = code


def _become_cmlm_tokenizer(tokenizer: Any) -> None:
    """Turn a fast tokenizer into one whose file says all there is to it."""
    if hasattr(tokenizer, "_switch_to_input_mode"):
        tokenizer._switch_to_input_mode()
    backend, special = tokenizer.backend_tokenizer, tokenizer.all_special_tokens
    named = {name: token for name, token in tokenizer._special_tokens_map.items() if token}
    for name, symbol in {"mask_token": MASK, "blank_token": BLANK}.items():
        named.setdefault(name, AddedToken(symbol, special=True, normalized=False))
    languages = {name: getattr(tokenizer, name, None) for name in LANGUAGES.values()}
    backend.no_padding()
    backend.no_truncation()
    is_special = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    ordinary = [token for token in special if not is_special.get(token)]
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ordinary])
    extended = CmlmTokenizer(
        tokenizer_object=_never_spelling(backend, special),
        extra_special_tokens=list(tokenizer._extra_special_tokens),
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
        padding_side="right",
        truncation_side="right",
        split_special_tokens=True,
        **named,
        **{name: code for name, code in languages.items() if code is not None},
    )
    extended.name_or_path = tokenizer.name_or_path
    tokenizer.__class__ = CmlmTokenizer
    vars(tokenizer).clear()
    vars(tokenizer).update(vars(extended))


def _never_spelling(backend: Any, special: list[str]) -> Any:
    """The backend, which cuts texts that would spell a special token of a Unigram model.

    These are pieces of the model (T5, mBART, Pegasus) with the best score there is, so that it
    takes them for each "</s>" or "de_DE" of a text, whatever `split_special_tokens` says. Cutting
    behind their first character, in front of the model, leaves everything else as it is.
    """
    pieces = backend.model
    if isinstance(pieces, models.BPE):  # which makes pieces by merging, and none of these
        return backend
    rests: dict[str, list[str]] = {}
    for token in special:
        if pieces.token_to_id(token) is not None:
            rests.setdefault(token[0], []).append(_literally(token[1:]))
    if rests:
        pattern = "|".join(f"{_literally(c)}(?={'|'.join(rest)})" for c, rest in rests.items())
        cut = pre_tokenizers.Split(Regex(pattern), "merged_with_previous")
        before = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
        backend.pre_tokenizer = pre_tokenizers.Sequence([*before, cut])
    return backend


def _literally(text: str) -> str:
    """`text` as a regular expression of Oniguruma."""
    return "".join(f"\\x{{{ord(char):X}}}" for char in text)


def _extend_python_tokenizer(tokenizer: Any) -> None:
    """Add symbols to a tokenizer of Python, whose configuration keeps them with their ids."""
    # M2M100 counts its languages behind the vocabulary, known to it as tokens or not.
    codes = getattr(tokenizer, "lang_token_to_id", {})
    extra = sorted({*codes} - {*tokenizer.get_vocab()}, key=lambda token: codes[token])
    tokenizer.add_special_tokens({"extra_special_tokens": extra}, False)
    if not hasattr(tokenizer, "blank_token"):
        names = [*tokenizer.SPECIAL_TOKENS_ATTRIBUTES, "blank_token"]
        tokenizer.SPECIAL_TOKENS_ATTRIBUTES = names
    tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
    for name, symbol in {"mask_token": MASK, "blank_token": BLANK}.items():
        if getattr(tokenizer, name) is None:
            tokenizer.add_special_tokens({name: _unspelt(tokenizer, symbol)})


def _unspelt(tokenizer: Any, symbol: str) -> str:
    """`symbol`, with a space in it, as no piece has, if the tokenizer would make it of a text.

    Sentencepiece makes one piece of characters next to each other of which it knows none.
    """
    spelt = [*tokenizer.tokenize(symbol)]
    if hasattr(tokenizer, "spm_target"):  # Marian's
        spelt += tokenizer.spm_target.encode(symbol, out_type=str)
    return f"{symbol[0]} {symbol[1:]}" if symbol in spelt else symbol
