"""A teacher's tokenizer stays what it was, and gets two symbols that no text can spell."""

import inspect
import json
import random
import shutil
import subprocess
import sys
import threading

import pytest
from transformers import AutoTokenizer

from axe_hf import add_cmlm_symbols, student_tokenizer, train_tokenizer
from axe_hf.data.tokenizer import CmlmTokenizer, check_tokenizer, encode_targets
from axe_hf.history import readable_tokens

LANGUAGES = {"m2m100", "mbart", "mbart50", "nllb"}
KINDS = ["marian", "t5", "pegasus", "bart", *sorted(LANGUAGES)]
CHARACTERS = "abcdeXYZ <>/_{}|&.,!?\t\n▁é½…ß中文日😀\u0301\u200b\ufeff\u00a0"
SPELT = "Er <mask> sagte </s> und<blank>, de_DE __de__ eng_Latn <pad><unk> ><mask>< <extra_id_0>"


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def teachers(kind, teachers_tokenizer):
    return teachers_tokenizer(kind)


@pytest.fixture(scope="module")
def student(teachers):
    return student_tokenizer(teachers)


@pytest.fixture(scope="module")
def texts(sentences, teachers):
    """Ordinary ones, and some that nobody writes."""
    draw = random.Random(0)
    noise = ["".join(draw.choices(CHARACTERS, k=draw.randrange(30))) for _ in range(500)]
    noise = [text for text in noise if not any(t in text for t in teachers.all_special_tokens)]
    return ["", " ", *sentences["en"][:100], *sentences["de"][:100], *noise]


def spelt(tokenizer):
    return [SPELT, *(f"a{token} b" for token in tokenizer.all_special_tokens)]


def special_in(tokenizer, token_ids):
    """The special tokens among the ids, apart from that of what is not known."""
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    return tokenizer.convert_ids_to_tokens([i for i in token_ids if i in special])


def test_texts_get_the_ids_that_they_had(teachers, student, texts):
    assert student(texts).input_ids == teachers(texts).input_ids
    assert encode_targets(student, texts) == encode_targets(teachers, texts)


def test_ids_are_read_as_they_were(teachers, student, texts):
    ids, options = teachers(texts).input_ids, {"skip_special_tokens": True}
    for side in ({}, {"use_source_tokenizer": False}, {"use_source_tokenizer": True}):
        expected = teachers.batch_decode(ids, **options, **side)
        assert student.batch_decode(ids, **options, **side) == expected


def test_mask_and_blank_are_symbols_behind_all_others(teachers, student):
    check_tokenizer(student)
    used = {*teachers.get_vocab().values(), *getattr(teachers, "lang_code_to_id", {}).values()}
    new = [] if teachers.mask_token else [student.mask_token_id]
    new.append(student.blank_token_id)
    assert new == [*range(max(used) + 1, max(used) + 1 + len(new))]
    assert teachers.mask_token in (None, student.mask_token)
    assert (student.mask_token or "").startswith("<mask") and student.blank_token == "<blank>"
    assert student.mask_token_id in used or teachers.mask_token is None
    assert len(student) == max(used) + 1 + len(new)


def test_no_text_gives_the_id_of_a_symbol(student):
    texts = spelt(student)
    for ids in student(texts, add_special_tokens=False).input_ids:
        assert special_in(student, ids) == []
    for ids in encode_targets(student, texts):
        assert special_in(student, ids) == [student.eos_token]


def test_what_a_text_spells_is_no_unknown_token_if_its_characters_are_known(teachers_tokenizer):
    student = student_tokenizer(teachers_tokenizer("bart"))
    assert student.decode(student("a <unk> b").input_ids, skip_special_tokens=True) == "a <unk> b"


def test_pieces_of_bytes_are_shown_as_characters(teachers_tokenizer):
    student = student_tokenizer(teachers_tokenizer("bart"))
    shown = readable_tokens(student, student("Ich weiß, dass").input_ids)
    # A word's first piece bears no sign, those that go on in it a point; none shows its "Ġ".
    assert "".join(shown).replace("·", "") == "<s>Ichweiß,dass</s>"
    assert "das" in shown and "·das" not in shown


def test_decoding_drops_symbols_and_codes(student, sentences):
    ids = encode_targets(student, [sentences["de"][0]])[0]
    options = {"skip_special_tokens": True, "use_source_tokenizer": False}
    noisy = [student.mask_token_id, *student.all_special_ids, *ids, student.blank_token_id]
    assert student.decode(noisy, **options).strip() == student.decode(ids, **options).strip()


def test_a_source_holds_what_the_teacher_reads_and_a_target_only_pieces(kind, student, sentences):
    around = student.convert_ids_to_tokens(student("").input_ids)
    assert around == {
        "bart": ["<s>", "</s>"],
        "m2m100": ["__en__", "</s>"],
        "mbart": ["</s>", "en_XX"],
        "mbart50": ["en_XX", "</s>"],
        "nllb": ["eng_Latn", "</s>"],
    }.get(kind, ["</s>"])
    assert encode_targets(student, [""]) == [[student.eos_token_id]]
    target = encode_targets(student, sentences["de"][:1])[0]
    assert special_in(student, target) == ["</s>"]


def told_by(tokenizer, texts):
    """What must be the same wherever it is loaded."""
    targets = tokenizer(text_target=texts, add_special_tokens=False).input_ids
    return {
        "sources": tokenizer(texts).input_ids,
        "targets": targets,
        "special": {t: tokenizer.convert_tokens_to_ids(t) for t in tokenizer.all_special_tokens},
        "decoded": tokenizer.batch_decode(
            targets, skip_special_tokens=True, use_source_tokenizer=False
        ),
        "ids": [tokenizer.mask_token_id, tokenizer.blank_token_id, len(tokenizer)],
    }


def test_it_is_saved_and_loaded(student, texts, tmp_path):
    texts = [*texts, *spelt(student)]
    student.save_pretrained(tmp_path / "first")
    again = AutoTokenizer.from_pretrained(tmp_path / "first")
    assert type(again) is type(student) and told_by(again, texts) == told_by(student, texts)
    again.save_pretrained(tmp_path / "second")  # as a Trainer does with what it has loaded
    again = AutoTokenizer.from_pretrained(tmp_path / "second")
    assert told_by(again, texts) == told_by(student, texts)


STRANGER = """
import importlib.util, json, pathlib, sys
from transformers import AutoTokenizer
assert importlib.util.find_spec("axe_hf") is None
{told_by}
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = json.loads((folder / "told.json").read_text())
    found = told_by(tokenizer, expected.pop("texts"))
    assert found == expected, [folder.name, *(n for n in found if found[n] != expected[n])]
    print(folder.name, type(tokenizer).__module__.split(".")[0])
"""


@pytest.mark.slow
def test_a_process_without_the_package_loads_the_same(teachers_tokenizer, sentences, tmp_path):
    for kind in KINDS:
        student = student_tokenizer(teachers_tokenizer(kind))
        student.save_pretrained(tmp_path / "first")
        loaded = AutoTokenizer.from_pretrained(tmp_path / "first")
        loaded.save_pretrained(tmp_path / "all" / kind)
        shutil.rmtree(tmp_path / "first")
        texts = [*sentences["de"][:20], *spelt(student)]
        told = told_by(student, texts) | {"texts": texts}
        (tmp_path / "all" / kind / "told.json").write_text(json.dumps(told))
    program = STRANGER.format(told_by=inspect.getsource(told_by))
    # Isolated mode leaves out PYTHONPATH and the working directory; this, an installed package.
    hide = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)];"
    hide += "sys.path[:] = [p for p in sys.path if not __import__('os').path.isdir(p + '/axe_hf')]"
    command = [sys.executable, "-I", "-W", "ignore", "-c", f"{hide}\n{program}"]
    done = subprocess.run(
        [*command, tmp_path / "all"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{kind} transformers" for kind in sorted(KINDS)]


def test_the_files_are_those_of_a_second_save(student, tmp_path):
    student.save_pretrained(tmp_path / "first")
    AutoTokenizer.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    for file in (tmp_path / "first").iterdir():
        second = (tmp_path / "second" / file.name).read_bytes()
        if file.name != "tokenizer_config.json":  # which also says where it was loaded from
            assert file.read_bytes() == second, file.name


def test_doing_it_again_changes_nothing(student, texts, tmp_path):
    student.save_pretrained(tmp_path)
    for again in (student_tokenizer(student), student_tokenizer(tmp_path)):
        assert again(texts).input_ids == student(texts).input_ids
        assert len(again) == len(student) and again.blank_token_id == student.blank_token_id
        assert type(again) is type(student)


def test_it_is_a_copy_and_the_other_one_works_in_place(kind, teachers_tokenizer, texts):
    tokenizer = teachers_tokenizer(kind)
    before, size = tokenizer(texts).input_ids, len(tokenizer)
    student = student_tokenizer(tokenizer)
    assert len(tokenizer) == size and not hasattr(tokenizer, "blank_token")
    assert not tokenizer.split_special_tokens
    assert add_cmlm_symbols(tokenizer) is None
    assert tokenizer.blank_token_id == student.blank_token_id
    assert tokenizer(texts).input_ids == before


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_a_tokenizer_of_our_own_is_left_as_it_is(sentences, algorithm):
    own = train_tokenizer(sentences["en"], vocab_size=300, algorithm=algorithm)
    before = own.backend_tokenizer.to_str()
    add_cmlm_symbols(own)
    assert own.backend_tokenizer.to_str() == before
    assert student_tokenizer(own).backend_tokenizer.to_str() == before


@pytest.mark.parametrize(
    "kind, source, target",
    [
        ("mbart", "fr_XX", "ro_RO"),
        ("mbart50", "fr_XX", "pt_XX"),
        ("nllb", "fra_Latn", "eng_Latn"),
        ("m2m100", "fr", "ro"),
    ],
)
def test_languages_are_set_and_kept(teachers_tokenizer, kind, source, target, tmp_path):
    teachers = teachers_tokenizer(kind)
    student = student_tokenizer(teachers, source_lang=source, target_lang=target)
    assert teachers.src_lang != source  # its own languages are left to it
    student.save_pretrained(tmp_path)
    teachers.src_lang = source
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (config["src_lang"], config["tgt_lang"]) == (source, target)
    for tokenizer in (student, AutoTokenizer.from_pretrained(tmp_path)):
        assert (tokenizer.src_lang, tokenizer.tgt_lang) == (source, target)
        assert tokenizer("ein").input_ids == teachers("ein").input_ids


def test_a_language_that_the_tokenizer_has_not_is_refused(teachers_tokenizer):
    with pytest.raises(ValueError, match="`source_lang` must be .*'en_XX'.*, got 'en_DE'"):
        student_tokenizer(teachers_tokenizer("mbart"), source_lang="en_DE")
    with pytest.raises(ValueError, match="`target_lang` must be .*'deu_Latn'.*, got 'deu_Lat'"):
        student_tokenizer(teachers_tokenizer("nllb"), target_lang="deu_Lat")
    with pytest.raises(ValueError, match="`source_lang` is 'en', but .* knows no languages"):
        student_tokenizer(teachers_tokenizer("t5"), source_lang="en")
    with pytest.raises(ValueError, match="`target_lang` is 'deu', but .* knows no languages"):
        student_tokenizer(teachers_tokenizer("marian"), target_lang="deu")
    student = student_tokenizer(teachers_tokenizer("mbart"))
    assert student_tokenizer(student, source_lang="en_XX").src_lang == "en_XX"
    with pytest.raises(
        ValueError, match="`source_lang` is 'fr_XX', but .* set to 'en_XX' for good"
    ):
        student_tokenizer(student, source_lang="fr_XX")
    with pytest.raises(AttributeError):
        student.src_lang = "fr_XX"


def test_languages_that_m2m100_does_not_list_keep_their_ids(teachers_tokenizer):
    """Its checkpoints do; a tokenizer made by hand would give a new token the id of "af"."""
    teachers = teachers_tokenizer("m2m100", src_lang="en", tgt_lang="de")
    assert teachers.lang_code_to_id["af"] == len(teachers)
    student = student_tokenizer(teachers)
    assert student.lang_code_to_id == teachers.lang_code_to_id
    assert student.mask_token_id == max(teachers.lang_code_to_id.values()) + 1
    assert len(student) == student.blank_token_id + 1
    assert student("ein").input_ids == teachers("ein").input_ids


def test_m2m100_without_a_target_language_still_reads_targets(teachers_tokenizer):
    student = student_tokenizer(teachers_tokenizer("m2m100", src_lang="de"))
    assert student.tgt_lang is None
    assert encode_targets(student, ["ein"]) == [student("ein").input_ids[1:]]
    assert student.tgt_lang is None


def test_marians_target_languages_are_still_said_in_front_of_a_source(teachers_tokenizer):
    student = student_tokenizer(teachers_tokenizer("marian"))
    tokens = student.convert_ids_to_tokens(student(">>deu<< a house").input_ids)
    assert tokens[0] == ">>deu<<" and "<unk>" not in tokens


def test_a_model_that_knows_no_letter_of_a_symbol_does_not_read_it(teachers_tokenizer, tmp_path):
    """Sentencepiece makes one piece of it, which would be the symbol's name."""
    texts = ["ты идёшь домой сегодня", "мы едим хлеб и пьём чай"] * 20
    teachers = teachers_tokenizer("marian", source=texts, size=40)
    assert "<mask>" in teachers.tokenize("a <mask> b")
    student = student_tokenizer(teachers)
    for name in ("<mask>", "<blank>", student.mask_token, student.blank_token):
        ids = student(name).input_ids + encode_targets(student, [name])[0]
        assert student.mask_token_id not in ids and student.blank_token_id not in ids
    student.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).blank_token_id == student.blank_token_id


def test_a_copy_does_not_need_files_that_are_gone(teachers_tokenizer):
    teachers = teachers_tokenizer("marian")
    teachers.spm_files = ["gone.spm", "gone.spm"]
    assert student_tokenizer(teachers)("a house").input_ids == teachers("a house").input_ids


def test_two_threads_read_both_languages_at_once(teachers_tokenizer, sentences):
    student = student_tokenizer(teachers_tokenizer("marian"))
    expected = student(sentences["en"]).input_ids
    wrong, is_over = [], threading.Event()

    def read_targets():
        while not is_over.is_set():
            encode_targets(student, sentences["de"][:20])

    thread = threading.Thread(target=read_targets)
    thread.start()
    try:
        wrong = [i for i in range(20) if student(sentences["en"]).input_ids != expected]
    finally:
        is_over.set()
        thread.join()
    assert wrong == []


def test_what_cannot_be_a_students_tokenizer_is_refused_untouched(teachers_tokenizer, sentences):
    with pytest.raises(TypeError, match="`tokenizer` must be a tokenizer .*, got str"):
        add_cmlm_symbols("bart")
    for name, kind in (("pad_token", "t5"), ("eos_token", "marian")):
        tokenizer = teachers_tokenizer(kind)
        setattr(tokenizer, name, None)
        size = len(tokenizer)
        with pytest.raises(ValueError, match=f"`tokenizer` must have a[n]? {name}"):
            add_cmlm_symbols(tokenizer)
        assert len(tokenizer) == size and not isinstance(tokenizer, CmlmTokenizer)
    tokenizer = teachers_tokenizer("marian")
    tokenizer.separate_vocabs = True
    tokenizer.target_encoder = tokenizer.encoder
    with pytest.raises(ValueError, match="separate_vocabs"):
        add_cmlm_symbols(tokenizer)
    tokenizer = teachers_tokenizer("t5")
    tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(ValueError, match="must append its eos_token"):
        add_cmlm_symbols(tokenizer)
    assert not hasattr(tokenizer, "blank_token")
