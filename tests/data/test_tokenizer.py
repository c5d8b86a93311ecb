import copy
import json
import pickle
import random
import time

import pytest
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from axe_hf.data import tokenize_translations, train_tokenizer
from axe_hf.data.tokenizer import encode_targets

PAD, EOS, UNK, MASK, BLANK = range(5)
WORDS = [
    "der",
    "die",
    "das",
    "Hund",
    "Katze",
    "sieht",
    "hört",
    "the",
    "dog",
    "cat",
    "sees",
    "hears",
    "nicht",
    "not",
    "in",
    "Haus",
    "house",
]


def random_texts(num_texts=400, seed=0):
    draw = random.Random(seed)
    return [
        " ".join(draw.choices(WORDS, k=draw.randint(2, 8))).capitalize() + draw.choice(".?!")
        for _ in range(num_texts)
    ]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request):
    texts = [*random_texts(), 'Don\'t "say" it: 3,5 % (or 12)! …', "Äpfel, Öl und größere Übel."]
    return train_tokenizer(texts * 2, vocab_size=400, algorithm=request.param)


def restored(tokenizer, text):
    return tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)


def test_special_tokens_have_the_fixed_ids(tokenizer):
    assert tokenizer.convert_ids_to_tokens(range(5)) == [
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        "<blank>",
    ]
    assert tokenizer.pad_token_id == PAD
    assert tokenizer.eos_token_id == EOS
    assert tokenizer.unk_token_id == UNK
    assert tokenizer.mask_token_id == MASK
    assert tokenizer.blank_token_id == BLANK
    assert {PAD, EOS, UNK, MASK, BLANK} <= set(tokenizer.all_special_ids)


def test_end_of_sentence_is_appended_to_sources_and_targets(tokenizer):
    encoded = tokenizer("Der Hund.", text_target="The dog.")
    assert set(encoded) == {"input_ids", "attention_mask", "labels"}
    assert encoded["input_ids"][-1] == encoded["labels"][-1] == EOS
    assert encoded["input_ids"].count(EOS) == encoded["labels"].count(EOS) == 1


@pytest.mark.parametrize("text", ["", "   ", "\n", "\x00"])
def test_text_of_nothing_is_a_bare_end_of_sentence(tokenizer, text):
    assert tokenizer(text).input_ids == [EOS]


def test_truncation_keeps_the_end_of_sentence(tokenizer):
    ids = tokenizer("The dog sees the cat in the house.", truncation=True, max_length=4).input_ids
    assert len(ids) == 4
    assert ids[-1] == EOS


@pytest.mark.parametrize(
    "text",
    [
        "The dog sees the cat.",
        'Don\'t "say" it: 3,5 % (or 12)!',
        "„Größere Äpfel“, sagte er … l’eau, rock 'n' roll -- T-Shirt/Hose",
        "Łódź, Ελλάδα, 日本語, 한국어, العربية, 😀👩‍👧 x² ½ ﬁ",
        "snake_case a+b=c <b>#1</b> ... .. !? <0x41> user@example.org C:\\temp",
        "e\u0301te\u0301 na\u0131\u0308ve \u00ad soft",
        "x" * 500,
        "2018 1234567890",
    ],
)
def test_decoding_restores_the_text(tokenizer, text):
    import unicodedata

    assert restored(tokenizer, text) == unicodedata.normalize("NFC", text)


def test_random_unicode_is_restored_without_unknown_tokens(tokenizer):
    draw = random.Random(1)
    ranges = [(0x21, 0x7F), (0xA1, 0x250), (0x400, 0x460), (0x4E00, 0x4F00), (0x1F600, 0x1F640)]
    for _ in range(200):
        text = "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(20))
        assert UNK not in tokenizer(text).input_ids
        assert restored(tokenizer, text) == text


def test_white_space_is_folded_and_control_characters_are_dropped(tokenizer):
    assert (
        restored(tokenizer, "  The\t dog\u00a0sees\r\nthe\u2003cat\x07. ")
        == "The dog sees the cat."
    )
    assert restored(tokenizer, "a \x00 b\ufeff") == "a b"


def test_the_mark_of_spaces_in_a_text_is_a_space(tokenizer):
    for text in ("the▁dog", "▁the▁ ▁dog▁", "the \u2581dog"):
        assert tokenizer.tokenize(text) == ["▁the", "▁dog"]
        assert restored(tokenizer, text) == "the dog"
    assert "U+2581" in train_tokenizer.__doc__


def test_punctuation_and_digits_are_pieces_of_their_own(tokenizer):
    pieces = tokenizer.tokenize("The dog, 12. House?")
    assert [piece for piece in pieces if not piece.strip("▁").isalpha()] == [
        ",",
        "▁1",
        "2",
        ".",
        "?",
    ]


def test_frequent_words_are_one_piece(tokenizer):
    assert tokenizer.tokenize("the dog sees the Katze") == [
        "▁the",
        "▁dog",
        "▁sees",
        "▁the",
        "▁Katze",
    ]


def test_special_tokens_spelt_out_in_a_text_are_ordinary_characters(tokenizer):
    for token in ("<pad>", "</s>", "<unk>", "<mask>", "<blank>"):
        text = f"The {token} dog"
        assert not set(range(5)) & set(tokenizer(text, add_special_tokens=False).input_ids)
        assert restored(tokenizer, text) == text


def test_canvas_with_masks_can_be_written_on_request(tokenizer):
    ids = tokenizer("the <mask> sees<mask>", split_special_tokens=False).input_ids
    assert ids.count(MASK) == 2
    assert tokenizer("the <mask>").input_ids.count(MASK) == 0  # the next call is not affected


def test_a_tokenizer_with_added_tokens_is_the_same_in_another_process(tokenizer):
    tagged = copy.deepcopy(tokenizer)
    tagged.add_special_tokens(TAGS)
    assert tagged.add_tokens(["None"]) == 1
    assert tagged.tokenize("None") == ["None"]
    other = pickle.loads(pickle.dumps(tagged))
    for text in ("<2de> the dog", "[en] None <mask>"):
        assert other(text).input_ids == tagged(text).input_ids
    assert other.blank_token_id == BLANK and type(other) is type(tagged)


TAGS = {"extra_special_tokens": ["<2de>", "[en]"]}


@pytest.mark.parametrize("saved", ["not", "with axe_hf", "without"])
def test_language_tags_that_were_added_stay_whole_and_a_typed_mask_does_not(
    tokenizer, tmp_path, saved
):
    tagged = copy.deepcopy(tokenizer)
    assert tagged.add_special_tokens(TAGS) == 2 and tagged.add_tokens(["<it>", "<fr>"]) == 2
    assert tagged.add_tokens([AddedToken("<nl>", special=True)]) == 1
    if saved != "not":
        tagged.save_pretrained(tmp_path)
        # Where the package is missing Transformers falls back to its own class.
        auto = AutoTokenizer if saved == "with axe_hf" else PreTrainedTokenizerFast
        tagged = auto.from_pretrained(tmp_path)
    tags, text = ["<2de>", "[en]", "<it>", "<fr>", "<nl>"], "<2de> the dog[en]<it> cat <fr> <nl>"
    ids = tagged(f"{text} <mask> <blank><pad></s>").input_ids
    assert [token for token in tagged.convert_ids_to_tokens(ids) if token in tags] == tags
    assert set(ids) & {PAD, EOS, UNK, MASK, BLANK} == {EOS} and ids.count(EOS) == 1
    assert tagged("<mask>", split_special_tokens=False).input_ids == [MASK, EOS]
    assert set(TAGS["extra_special_tokens"]) < set(tagged.all_special_tokens)
    if saved != "without":
        decoded = tagged.decode(tagged("<2de> the dog").input_ids, skip_special_tokens=True)
        assert decoded == "the dog"
        rows = [tagged("the <it> dog").input_ids, tagged("[en] the cat").input_ids]
        assert tagged.batch_decode(rows, skip_special_tokens=True) == ["the <it> dog", "the cat"]
        assert tagged.add_special_tokens({"extra_special_tokens": ["<late>"]}) == 1
        assert tagged.tokenize("<late> the") == ["<late>", "▁the"]


def test_a_special_token_with_a_name_is_spelt_out_like_the_mask(tokenizer):
    named = copy.deepcopy(tokenizer)
    named.add_special_tokens({"bos_token": "<s>", "cls_token": "[CLS]"})
    assert not {named.bos_token_id, named.cls_token_id} & {*named("<s> the [CLS]").input_ids}


def test_tokenizers_saved_before_warn_where_they_would_spell_out_a_tag(tmp_path, caplog):
    old = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(random_texts(), vocab_size=300).backend_tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        mask_token="<mask>",
        extra_special_tokens={"blank_token": "<blank>"},
        split_special_tokens=True,
    )
    old.save_pretrained(tmp_path)
    old = AutoTokenizer.from_pretrained(tmp_path)
    assert MASK not in old("the <mask>").input_ids
    pairs = Dataset.from_list([{"translation": {"en": "<2de> dog", "de": "Hund"}}])
    limits = {"max_source_length": 20, "max_target_length": 20}
    tokenize_translations(pairs, old, source_lang="en", target_lang="de", **limits)
    assert not caplog.records
    old.add_special_tokens(TAGS)
    tokenize_translations(pairs, old, source_lang="en", target_lang="de", **limits)
    assert "spells out ['<2de>']. Add them by tokenizer.add_tokens" in caplog.text


def test_decoding_leaves_out_masks_and_blanks_but_no_bytes(tokenizer):
    ids = tokenizer("Ελλάδα").input_ids
    assert any(5 <= token_id < 120 for token_id in ids)
    assert (
        tokenizer.decode([MASK, *ids[:-1], BLANK, EOS, PAD], skip_special_tokens=True) == "Ελλάδα"
    )


def test_auto_tokenizer_gives_the_same_tokenizer_back(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    # Beside a model's configuration, whose type Transformers may not know.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "cmlm"}))
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    assert reloaded.get_vocab() == tokenizer.get_vocab()
    for name in ("pad", "eos", "unk", "mask", "blank"):
        token_id = f"{name}_token_id"
        assert getattr(reloaded, token_id) == getattr(tokenizer, token_id)
    assert reloaded.model_input_names == ["input_ids", "attention_mask"]
    text = "Der <mask> Hund, 12 日本!"
    assert reloaded(text, text_target=text) == tokenizer(text, text_target=text)
    assert restored(reloaded, text) == text


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_same_texts_give_the_same_tokenizer_again(algorithm):
    # The trainers' hash tables are seeded anew in every run, also within one process.
    draw = random.Random(0)
    texts = ["".join(draw.choices("abcdeäöü  .", k=30)) for _ in range(500)]
    saved = [
        train_tokenizer(texts, vocab_size=500, algorithm=algorithm).backend_tokenizer.to_str()
        for _ in range(3)
    ]
    assert saved[0] == saved[1] == saved[2]


def test_vocabulary_has_the_size_asked_for_if_the_texts_hold_it():
    texts = random_texts()
    assert len(train_tokenizer(texts, vocab_size=260)) == 260
    assert len(train_tokenizer(texts, vocab_size=260, algorithm="unigram")) == 260
    assert len(train_tokenizer(texts, vocab_size=5000)) < 5000


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_runs_without_end_are_cut_and_learnt_in_seconds(algorithm):
    texts, start = random_texts(), time.process_time()
    for run in ("a" * 300_000, "." * 50_000, "a'" * 50_000, "あ" * 50_000):
        tokenizer = train_tokenizer([run, *texts], vocab_size=300, algorithm=algorithm)
        assert max(map(len, tokenizer.get_vocab())) <= 1 + 10 * 101
        assert tokenizer.decode(tokenizer(run).input_ids, skip_special_tokens=True) == run
    assert time.process_time() - start < 60


def test_pairs_rarer_than_the_minimum_are_not_merged():
    texts = ["common common common rarely"]
    pieces = train_tokenizer(texts, vocab_size=1000, min_frequency=3).tokenize("common rarely")
    assert pieces[0] == "▁common"
    assert "▁rarely" not in pieces


def test_rare_characters_are_left_to_the_bytes():
    tokenizer = train_tokenizer([*random_texts(3000), "日本"], vocab_size=400)
    assert "日" not in tokenizer.get_vocab()
    assert "ö" in tokenizer.get_vocab()
    assert restored(tokenizer, "日本") == "日本"


def test_generator_of_texts_is_enough():
    texts = random_texts()
    from_list = train_tokenizer(texts, vocab_size=300)
    assert train_tokenizer(iter(texts), vocab_size=300).get_vocab() == from_list.get_vocab()


@pytest.mark.parametrize("texts", [[], [""], ["", "  \n"]])
def test_no_text_to_learn_from_is_an_error(texts):
    with pytest.raises(
        ValueError, match=f"`texts` must hold at least one .* got {len(texts)} text"
    ):
        train_tokenizer(texts)


def test_vocabulary_too_small_for_the_characters_is_an_error_that_says_how_many_it_takes():
    with pytest.raises(
        ValueError, match=r"`vocab_size` must be at least (\d+) .* got 100"
    ) as error:
        train_tokenizer(random_texts(), vocab_size=100)
    smallest = int(str(error.value).split("at least ")[1].split()[0])
    assert len(train_tokenizer(random_texts(), vocab_size=smallest)) == smallest
    with pytest.raises(ValueError, match=f"at least {smallest} "):
        train_tokenizer(random_texts(), vocab_size=smallest - 1)


def test_bad_arguments_are_an_error_that_names_them():
    with pytest.raises(ValueError, match="`algorithm` must be 'bpe' or 'unigram', got 'wordpiece'"):
        train_tokenizer(["a"], algorithm="wordpiece")
    with pytest.raises(TypeError, match="`texts` must be an iterable of sentences .*got 'one long"):
        train_tokenizer("one long string")
    with pytest.raises(TypeError, match="`texts` must yield strings, got int as number 1"):
        train_tokenizer(["a", 2])
    with pytest.raises(ValueError, match="`texts` must yield valid Unicode.* as number 1"):
        train_tokenizer(["a", "b\ud83d"])


def tokenized(tokenizer, *pairs, longest=99):
    rows = [{"translation": {"en": source, "de": target}} for source, target in pairs]
    return tokenize_translations(
        Dataset.from_list(rows),
        tokenizer,
        source_lang="en",
        target_lang="de",
        max_source_length=longest,
        max_target_length=longest,
    )


def test_targets_are_tokenized_as_targets_and_end_in_eos(foreign_tokenizer):
    (row,) = tokenized(foreign_tokenizer, ("two five", "zwei fünf"))
    pieces = foreign_tokenizer.convert_ids_to_tokens(row["labels"])
    assert pieces == ["▁zwei", "▁fünf", "</s>"]
    assert row["input_ids"] == foreign_tokenizer("two five").input_ids
    assert len(foreign_tokenizer("zwei fünf").input_ids) > 3  # as a source it would be this long


def test_a_target_is_cut_in_front_of_its_eos(foreign_tokenizer):
    for texts in (["zwei fünf acht", "eins"], ["", "drei drei"]):
        ids = encode_targets(foreign_tokenizer, texts, limit=2)
        pieces = [foreign_tokenizer.convert_ids_to_tokens(row) for row in ids]
        assert pieces == [[*(f"▁{word}" for word in text.split()[:1]), "</s>"] for text in texts]


def test_one_word_is_kept_and_no_word_is_dropped_whatever_stands_around(foreign_tokenizer):
    pairs = [("two", "zwei"), ("", "zwei"), ("two", ""), ("five", "fünf")]
    rows = tokenized(foreign_tokenizer, *pairs)
    assert [len(row["labels"]) for row in rows] == [2, 2]


def gpt2_like(**special):
    model = models.BPE(vocab={"<|end|>": 0, "a": 1, "b": 2}, merges=[])
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(model), eos_token="<|end|>", pad_token="<pad>", **special
    )


def bert_like(**special):
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "two", "zwei"]
    model = models.WordLevel({name: number for number, name in enumerate(names)}, "[UNK]")
    bare = Tokenizer(model)
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    around = [("[CLS]", 1), ("[SEP]", 2)]
    bare.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=around)
    return PreTrainedTokenizerFast(
        tokenizer_object=bare, pad_token="[PAD]", mask_token="[MASK]", sep_token="[SEP]", **special
    )


BLANK_TOKEN = {"extra_special_tokens": {"blank_token": "<blank>"}}


@pytest.mark.parametrize(
    ("make", "special", "complaint"),
    [
        (gpt2_like, {}, "`tokenizer` must have a mask_token. Load yours with from_pretrained"),
        (gpt2_like, {"mask_token": "<mask>"}, "must have a blank_token.*extra_special_tokens"),
        (
            gpt2_like,
            {"mask_token": "<mask>", **BLANK_TOKEN},
            r"append .*'<\|end\|>'.*post_processor",
        ),
        (bert_like, {}, "must have a eos_token.*eos_token='</s>'"),
        (bert_like, {"eos_token": "[SEP]"}, "must have a blank_token.*extra_special_tokens"),
        (
            bert_like,
            {"eos_token": "</s>", **BLANK_TOKEN},
            "append .*makes .'.CLS.', '.SEP.'. of nothing",
        ),
    ],
)
def test_a_tokenizer_that_cannot_serve_is_refused_with_advice(make, special, complaint):
    with pytest.raises(ValueError, match=complaint):
        tokenized(make(**special), ("a", "b"))


def test_the_advice_makes_them_serve():
    mended = gpt2_like(mask_token="<mask>", **BLANK_TOKEN)
    template = processors.TemplateProcessing("$A <|end|>", special_tokens=[("<|end|>", 0)])
    mended.backend_tokenizer.post_processor = template
    (row,) = tokenized(mended, ("a", "b"))
    assert row == {"input_ids": [1, 0], "labels": [2, 0]}
    (row,) = tokenized(bert_like(eos_token="[SEP]", **BLANK_TOKEN), ("two", "zwei"))
    assert row == {"input_ids": [1, 5, 2], "labels": [6, 2]}


def test_two_vocabularies_are_refused(marian_tokenizer, monkeypatch):
    monkeypatch.setattr(marian_tokenizer, "separate_vocabs", True)
    with pytest.raises(ValueError, match="separate_vocabs, but a CMLM has one vocabulary"):
        tokenized(marian_tokenizer, ("two", "zwei"))
