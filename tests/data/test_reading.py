import csv
import gzip
import io
import json
import re
import time

import pytest
from datasets import Dataset

from axe_hf.data import (
    PHRASEBOOK,
    load_translations,
    read_lines,
    tokenize_translations,
    train_tokenizer,
)

PAIRS = [("Good morning.", "Guten Morgen."), ("Where are you?", "Wo bist du?")]
ROWS = [{"translation": {"en": english, "de": german}} for english, german in PAIRS]


def load(source, source_lang="en", target_lang="de", **options):
    return load_translations(source, source_lang=source_lang, target_lang=target_lang, **options)


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def json_lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


CONTENTS = {
    "pairs.jsonl": json_lines(ROWS),
    "pairs.json": json.dumps(ROWS, indent=2),
    "lines.json": json_lines(ROWS),
    "pairs.tsv": "".join(f"{english}\t{german}\n" for english, german in PAIRS),
    "header.tsv": "de\ten\n" + "".join(f"{german}\t{english}\n" for english, german in PAIRS),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", CONTENTS)
def test_every_file_format_gives_the_same_pairs(tmp_path, name, suffix):
    path = write(tmp_path / (name + suffix), CONTENTS[name])
    assert load(path).to_list() == ROWS
    assert load(str(path)).to_list() == ROWS


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_two_text_files_are_read_line_by_line(tmp_path, suffix):
    english = write(tmp_path / f"train.en{suffix}", "Good morning.\nWhere are you?\n")
    german = write(tmp_path / f"train.de{suffix}", "Guten Morgen.\nWo bist du?\n")
    assert load((english, german)).to_list() == ROWS
    assert load(f"{english},{german}").to_list() == ROWS
    assert load(f"{english}, {german}").to_list() == ROWS


def test_suffixes_that_are_the_languages_decide_which_text_file_is_the_source(tmp_path):
    english = write(tmp_path / "train.en", "Good morning.\n")
    german = write(tmp_path / "train.de", "Guten Morgen.\n")
    swapped = load((english, german), source_lang="de", target_lang="en")
    assert swapped[0] == {"translation": {"de": "Guten Morgen.", "en": "Good morning."}}


def test_text_files_of_other_names_are_source_and_target_in_this_order(tmp_path):
    source = write(tmp_path / "source.txt", "Good morning.\n")
    target = write(tmp_path / "target.txt", "Guten Morgen.\n")
    assert load((source, target)).to_list() == ROWS[:1]


def test_only_the_two_languages_asked_for_are_kept(tmp_path):
    row = {"translation": {"en": "Yes.", "de": "Ja.", "fr": "Oui."}, "source": "me"}
    dataset = load(write(tmp_path / "pairs.jsonl", json_lines([row])), "fr", "de")
    assert dataset.to_list() == [{"translation": {"fr": "Oui.", "de": "Ja."}}]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_cells_of_a_csv_file_hold_commas_quotes_and_line_ends(tmp_path, suffix):
    text = '\ufeffid,German,en\r\n1,"Ja, ""gut"".","Yes,\r\nfine."\r\n\r\n2,Nein.,No.\r\n'
    dataset = load(write(tmp_path / f"a.csv{suffix}", text))
    pairs = [{"en": "Yes,\nfine.", "de": 'Ja, "gut".'}, {"en": "No.", "de": "Nein."}]
    assert dataset["translation"][:] == pairs
    swapped = write(tmp_path / f"b.csv{suffix}", "No.,Nein.\nde,en\nJa.,Yes.\n")
    assert [pair["en"] for pair in load(swapped)["translation"]] == ["No.", "Yes."]


def test_parquet_holds_pairs_in_one_column_or_in_two(tmp_path):
    nested = Dataset.from_list([row | {"references": ["x"], "id": 1} for row in ROWS])
    nested.to_parquet(tmp_path / "nested.parquet")
    assert load(tmp_path / "nested.parquet").to_list() == [r | {"references": ["x"]} for r in ROWS]
    columns = {"score": [1, 2], "target": [de for _, de in PAIRS], "src": [en for en, _ in PAIRS]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "flat.parquet")
    assert load(tmp_path / "flat.parquet").to_list() == ROWS
    Dataset.from_dict({"text": ["x"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other\.parquet: must have the column 'translation', or"):
        load(tmp_path / "other.parquet")


def test_several_files_a_glob_and_a_folder_are_read_one_after_the_other(tmp_path):
    files = [write(tmp_path / f"part-{i}.jsonl", json_lines([row])) for i, row in enumerate(ROWS)]
    for source in (files, list(map(str, files)), f"{tmp_path}/part-?.jsonl", tmp_path):
        assert load(source).to_list() == ROWS
    assert load(files[::-1]).to_list() == ROWS[::-1]
    for side, texts in zip(("en", "de"), zip(*PAIRS, strict=True), strict=True):
        for number, text in enumerate(texts):
            write(tmp_path / f"text-{number}.{side}", text)
    sides = f"{tmp_path}/text-*.en,{tmp_path}/text-*.de"
    assert load(sides).to_list() == ROWS
    assert load([files[0], sides]).to_list() == [ROWS[0], *ROWS]
    (tmp_path / "text-1.de").unlink()
    with pytest.raises(ValueError, match="must fit equally many, got 2 and 1"):
        load(sides)
    with pytest.raises(FileNotFoundError, match="must fit an existing file, got .*none"):
        load(f"{tmp_path}/none*.tsv")


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """Makes files of any size count as large, and returns the folder of the cache."""
    monkeypatch.setattr("axe_hf.data.reading.MOST_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "axe_hf"


@pytest.mark.parametrize("name", CONTENTS)
def test_pairs_of_large_files_are_the_same_and_stay_on_disk(on_disk, tmp_path, name):
    dataset = load(write(tmp_path / name, CONTENTS[name]))
    assert dataset.to_list() == ROWS
    assert [file["filename"] for file in dataset.cache_files] == list(map(str, on_disk.rglob("*w")))


def test_a_large_file_is_read_once_until_it_changes(on_disk, tmp_path, caplog, monkeypatch):
    rows = [row | {"references": ["x"]} for row in ROWS]
    path = write(tmp_path / "a.jsonl", json_lines([*rows, {"translation": {"en": "", "de": ""}}]))
    first = load(path).to_list()
    assert "left out 1 pairs" in caplog.text
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr("axe_hf.data.reading.read_rows", None)
        assert load(path).to_list() == first == rows
    assert "left out 1 pairs" in caplog.text  # also of the second reading
    write(path, json_lines(ROWS))
    assert load(path).to_list() == ROWS
    assert load(path, "de", "en").to_list() == ROWS
    write(path, json_lines(ROWS) + "{")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"a\.jsonl, line 3"):
            load(path)


def test_tokens_of_a_large_file_are_found_again_in_another_process(on_disk, tmp_path, monkeypatch):
    texts = sum(PAIRS, ()) * 9
    path = write(tmp_path / "a.jsonl", json_lines(ROWS))
    first = tokenize(load(path), train_tokenizer(texts, vocab_size=300))
    again = train_tokenizer(texts, vocab_size=300)  # equal, as one that is loaded anew
    with monkeypatch.context() as patch:
        patch.setattr("axe_hf.data.tokenizer.encode_targets", None)
        assert tokenize(load(path), again).to_list() == first.to_list()
    shorter = tokenize(load(path), again, max_source_length=4)
    assert len(shorter) < len(first)


def test_several_processes_tokenize_the_same(on_disk, tmp_path):
    tokenizer = train_tokenizer(sum(PAIRS, ()), vocab_size=300)
    dataset = Dataset.from_list(ROWS * 20)
    alone = tokenize(dataset, tokenizer)
    assert tokenize(dataset, tokenizer, num_workers=2).to_list() == alone.to_list()


def test_line_ends_of_windows_a_byte_order_mark_and_blank_lines_are_taken(tmp_path):
    text = "\ufeff" + json_lines(ROWS).replace("\n", "\r\n") + "\r\n"
    assert load(write(tmp_path / "pairs.jsonl", text)).to_list() == ROWS


def test_line_separators_inside_a_sentence_do_not_split_it(tmp_path):
    english = write(tmp_path / "a.en", "one\u2028two\x0bthree\n")
    german = write(tmp_path / "a.de", "eins\u2028zwei\x0bdrei\n")
    assert load((english, german))[0]["translation"]["de"] == "eins\u2028zwei\x0bdrei"


LINES = "\ufeffone\u2028two\r\n\nthree\x0bfour\n\ufefffive".encode()


@pytest.mark.parametrize("name", ["lines.txt", "lines.txt.gz"])
def test_lines_end_at_line_feeds_only_and_lose_byte_order_marks(tmp_path, name):
    path = write(tmp_path / name, LINES)
    assert read_lines(str(path)) == ["one\u2028two", "", "three\x0bfour", "five"]


def test_lines_of_standard_input_and_its_errors(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LINES)))
    assert read_lines(None) == ["one\u2028two", "", "three\x0bfour", "five"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"good\n\xff\n")))
    with pytest.raises(
        ValueError, match="standard input, line 2: must be UTF-8, got byte 0xff.*iconv"
    ):
        read_lines(None)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(LINES))))
    with pytest.raises(ValueError, match="standard input, line 1: .* Convert it with gunzip"):
        read_lines(None)


def test_byte_order_marks_where_two_files_were_joined_are_dropped(tmp_path):
    for name, text in (
        ("pairs.jsonl", json_lines(ROWS[:1])),
        ("pairs.tsv", "Good morning.\tGuten Morgen.\n"),
    ):
        path = write(tmp_path / name, ("\ufeff" + text) * 2)
        assert load(path).to_list() == ROWS[:1] * 2
    english = write(tmp_path / "a.en", "\ufeffone\n" * 2)
    german = write(tmp_path / "a.de", "eins\n\ufeffzw\ufeffei\n")
    assert [pair["de"] for pair in load((english, german))["translation"]] == ["eins", "zwei"]


HEADINGS = [
    ("DE\tEN", "de", "en"),
    (" De \teN", "de", "en"),
    ("German\tEnglish", "de", "en"),
    ("english\tGERMAN", "en", "de"),
    ('"de"\t"en"', "de", "en"),
    ("de_DE\ten-US", "de", "en"),
    ("source\ttarget", "en", "de"),
    ("Target\tSource", "de", "en"),
    ("tgt_text\tsrc_text", "de", "en"),
    ("source sentence\ttarget sentence", "en", "de"),
    ("en\ttarget", "en", "de"),
]


@pytest.mark.parametrize(("heading", "first", "second"), HEADINGS)
def test_headings_of_a_table_set_the_order_and_are_no_pair(
    tmp_path, heading, first, second, caplog
):
    rows = "".join(f"{pair[first]}\t{pair[second]}\n" for pair in (r["translation"] for r in ROWS))
    path = write(tmp_path / "pairs.tsv", f"\n{heading}\n{rows}")
    assert load(path).to_list() == ROWS
    assert heading not in caplog.text
    swapped = write(tmp_path / "joined.tsv", f"{heading}\n{rows}en\tde\n{CONTENTS['pairs.tsv']}")
    assert load(swapped).to_list() == ROWS * 2


@pytest.mark.parametrize(
    ("source_lang", "target_lang", "heading", "first"),
    [
        ("eng", "deu", "DEU\tEng", "deu"),
        ("zh-CN", "zh_TW", "zh_tw\tzh-cn", "zh_TW"),
        ("en-GB", "de", "German\tEnglish", "de"),
    ],
)
def test_headings_are_compared_with_any_kind_of_code(
    tmp_path, source_lang, target_lang, heading, first
):
    path = write(tmp_path / "pairs.tsv", f"{heading}\none\ttwo\n")
    assert load(path, source_lang, target_lang)[0]["translation"][first] == "one"


@pytest.mark.parametrize(
    "line",
    [
        "English\tFrench",
        "en\tfr",
        "sentence\ttranslation",
        "English\tEnglisch",
        "fr\tit",
        "deu\teng",
    ],
)
def test_what_may_be_a_heading_is_kept_as_a_pair_with_a_warning(tmp_path, line, caplog):
    path = write(tmp_path / "pairs.tsv", f"{line}\nYes.\tJa.\n")
    assert list(load(path)[0]["translation"].values()) == line.split("\t")
    assert f"line 1: {line!r} is read as a pair" in caplog.text and "'en\\tde'" in caplog.text


@pytest.mark.parametrize(
    ("source_lang", "target_lang", "line"),
    [
        ("en", "de", "Hi\tHallo"),
        ("en", "de", "Text\tText in German"),
        ("en", "es", "No\tNo."),
        ("de", "es", "es\tlo"),
        ("en", "de", "so\tso"),
        ("es", "de", "De nada\tEs ist gut"),
    ],
)
def test_a_first_sentence_pair_is_never_dropped(tmp_path, source_lang, target_lang, line):
    path = write(tmp_path / "pairs.tsv", f"{line}\nx\ty\n")
    pairs = load(path, source_lang, target_lang)["translation"]
    assert [list(pair.values()) for pair in pairs] == [line.split("\t"), ["x", "y"]]


def test_quotes_of_a_csv_file_are_a_warning_with_a_count_and_an_example(tmp_path, caplog):
    pandas = pytest.importorskip("pandas")
    pairs = [('She said "yes".', 'Sie sagte "ja".'), ('"Go!"', "„Geh!“"), ("No.", "Nein.")]
    path, columns = tmp_path / "pairs.tsv", ["en", "de"]
    pandas.DataFrame(pairs, columns=columns).to_csv(path, sep="\t", index=False)
    load(path)
    assert "3 of 6 texts are in the quotes of a CSV file, such as" in caplog.text
    assert '\'"She said ""yes""."\'' in caplog.text and "QUOTE_NONE" in caplog.text
    caplog.clear()
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, "excel-tab", quoting=csv.QUOTE_ALL).writerows([columns, pairs[2]])
    assert len(load(path)) == 1
    assert "2 of 2 texts" in caplog.text
    caplog.clear()
    write(path, '"Go!"\t"Geh!"\nA "big" one\tEin "großes"\n')
    load(path)
    assert not caplog.records


@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl", "a.json", "text"])
def test_pairs_that_are_empty_on_both_sides_are_left_out_and_counted(tmp_path, name, caplog):
    pairs = [PAIRS[0], ("", " "), ("\t" * (name == "a.jsonl"), ""), PAIRS[1]]
    rows = [{"translation": dict(zip(("en", "de"), pair, strict=True))} for pair in pairs]
    contents = {
        "a.tsv": "".join("\t".join(pair) + "\n" for pair in pairs[:2]) + "\n" + "\t".join(PAIRS[1]),
        "a.jsonl": json_lines(rows) + "\n",
        "a.json": json.dumps(rows).replace('" "', "null"),
    }
    if name == "text":
        source = [tmp_path / "a.en", tmp_path / "a.de"]
        for path, side in zip(source, zip(*pairs, strict=True), strict=True):
            write(path, "".join(f"{text}\n" for text in side))
    else:
        source = write(tmp_path / name, contents[name])
    assert load(source).to_list() == ROWS
    assert "left out 2 pairs of which both sides are empty" in caplog.text


@pytest.mark.parametrize("references", [[], [""]])
def test_a_border_of_documents_needs_no_references(tmp_path, references):
    border = {"translation": {"en": "", "de": None}, "references": references}
    pair = {"translation": dict(zip(("en", "de"), PAIRS[0], strict=True)), "references": ["x"]}
    assert load(write(tmp_path / "a.jsonl", json_lines([border, pair]))).to_list() == [pair]


@pytest.mark.parametrize("nothing", ["", " \t", None])
def test_pairs_of_a_hub_data_set_that_are_empty_on_both_sides_are_left_out_and_counted(
    monkeypatch, nothing, caplog
):
    empty = {"translation": {"en": nothing, "de": ""}}
    hub = Dataset.from_list([ROWS[0], empty, empty, ROWS[1]])
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: hub)
    assert load("owner/name").to_list() == ROWS
    assert "owner/name: left out 2 pairs of which both sides are empty" in caplog.text


def test_pairs_that_lack_a_side_are_all_named_in_one_error(tmp_path):
    english = write(tmp_path / "a.en", "one\n\nthree\n\n" + "five\n" * 4)
    german = write(tmp_path / "a.de", "\nzwei\n\n\n" + "\n" * 4)
    with pytest.raises(ValueError) as error:
        load((english, german))
    message = str(error.value)
    for place in ("a.de, line 1", "a.en, line 2", "a.de, line 3", "a.de, line 6"):
        assert f"{place}: the side " in message
    assert "line 4:" not in message and "; and 2 more. Remove" in message
    with pytest.raises(ValueError, match="line 1: .*'de'.*; .*line 3: .*'en'.*None. Remove"):
        load(
            write(
                tmp_path / "a.jsonl",
                json_lines(
                    {"translation": pair}
                    for pair in (
                        {"en": "x", "de": ""},
                        {"en": "x", "de": "y"},
                        {"en": None, "de": "y"},
                    )
                ),
            )
        )


def test_the_phrasebook_is_read_like_any_other_file():
    test = load(PHRASEBOOK / "test.jsonl.gz")
    assert len(test) == 500 and test.column_names == ["translation", "references"]
    for row in test:
        assert row["references"][0] == row["translation"]["de"]
    sizes = {
        split: len(load(PHRASEBOOK / f"{split}.jsonl.gz")) for split in ("train", "validation")
    }
    assert sizes == {"train": 50_000, "validation": 200}


def test_references_are_kept_when_every_row_has_them(tmp_path):
    rows = [row | {"references": ["Eins.", "Zwei."][: index + 1]} for index, row in enumerate(ROWS)]
    dataset = load(write(tmp_path / "pairs.jsonl", json_lines(rows)))
    assert dataset["references"] == [["Eins."], ["Eins.", "Zwei."]]


def test_references_of_some_rows_are_left_out_with_a_warning(tmp_path, caplog):
    rows = [ROWS[0], ROWS[1] | {"references": ["Wo bist du?"]}]
    dataset = load(write(tmp_path / "pairs.jsonl", json_lines(rows)))
    assert dataset.column_names == ["translation"]
    assert "only 1 of 2 rows have 'references'" in caplog.text


def test_reading_leaves_nothing_beside_the_file(tmp_path):
    path = write(tmp_path / "pairs.jsonl", json_lines(ROWS))
    tokenizer = train_tokenizer(sum(PAIRS, ()), vocab_size=300)
    tokenize(load(path), tokenizer)
    assert list(tmp_path.iterdir()) == [path]


def test_folder_is_loaded_by_datasets_and_split_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "corpus"
    folder.mkdir()
    write(folder / "train.jsonl", json_lines(ROWS))
    write(folder / "test.jsonl", json_lines(ROWS[:1]))
    assert load(folder).to_list() == ROWS
    assert load(str(folder), split="test").to_list() == ROWS[:1]
    with pytest.raises(ValueError, match="language 'fr', got .'de', 'en'.. Check source_lang"):
        load(folder, "fr", "de")


def test_hub_name_with_configuration_reaches_datasets(monkeypatch):
    calls = []

    def load_dataset(name, config, split):
        calls.append((name, config, split))
        return Dataset.from_list(ROWS)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert load("owner/name:de-en", split="validation").to_list() == ROWS
    load("owner/name")
    assert calls == [("owner/name", "de-en", "validation"), ("owner/name", None, "train")]


def test_hub_data_set_without_translations_is_an_error(monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: Dataset.from_dict({"text": [""]}))
    with pytest.raises(ValueError, match="owner/name: must have the column 'translation'"):
        load("owner/name")


def test_hub_data_set_that_cannot_be_loaded_is_an_error_that_keeps_the_reason(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no network here")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(ValueError, match="`source`.*'owner/name'.*no network here"):
        load("owner/name")


GOOD_LINE = json_lines(ROWS[:1])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", GOOD_LINE + "{not json}\n", r"a\.jsonl, line 2: must be valid JSON"),
        ("a.jsonl", GOOD_LINE + '{"en": "Yes."}\n', r"line 2: must be .*translation.*got \['en'\]"),
        ("a.jsonl", GOOD_LINE + '["Yes."]\n', "line 2: must be .*got list"),
        (
            "a.jsonl",
            '{"translation": {"en": "Yes.", "fr": "Oui."}}',
            r"line 1: must have the language 'de', got \['en', 'fr'\]",
        ),
        ("a.jsonl", '{"translation": {"en": "Yes.", "de": " "}}', "line 1: the side 'de'.*' '"),
        ("a.jsonl", '{"translation": {"en": null, "de": "Ja."}}', "line 1: the side 'en'.*None"),
        ("a.jsonl", '{"translation": {"en": "\\ud83d", "de": "x"}}', "line 1.*valid Unicode"),
        (
            "a.jsonl",
            '{"translation": {"en": "Yes.", "de": "Ja."}, "references": "Ja."}',
            "line 1: 'references' must be a list of sentences, got 'Ja.'",
        ),
        ("a.jsonl", "\n", r"a\.jsonl: must hold at least one sentence pair"),
        ("a.jsonl", GOOD_LINE.encode() + b"\xff\n", "line 2: must be UTF-8, got byte 0xff"),
        ("a.json", "[" + GOOD_LINE + ', {"en": "Yes."}]', r"a\.json, item 2: must be"),
        ("a.json", "[1, 2", r"a\.json: must be valid JSON"),
        ("a.tsv", "Yes.\tJa.\nNo.\n", r"a\.tsv, line 2: must have 2 columns, en and de.* got 1"),
        ("a.tsv", "Yes.\tJa.\tOui.\n", "line 1: must have 2 columns.* got 3"),
        ("a.tsv", "Yes.\t\n", "line 1: the side 'de'"),
        (
            "a.csv",
            "Yes.,Ja.\nYes,yes.,Ja.\n",
            "a.csv, line 2: must have 2 columns.* a comma.* got 3",
        ),
        ("a.csv", 'Yes.,Ja.\nYes,"Ja\n', "a.csv, line 2: must be a row of a CSV file"),
        ("a.xml", "<tu/>", r"`source` must end in \.jsonl, \.json, .* or \.parquet"),
    ],
)
def test_bad_file_is_an_error_that_names_file_and_line(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / name, text))


def test_gzip_file_that_is_cut_off_or_none_is_an_error_that_names_it(tmp_path):
    whole = gzip.compress(json_lines(ROWS * 50).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-20])
    (tmp_path / "plain.jsonl.gz").write_bytes(GOOD_LINE.encode())
    for name in ("cut", "plain"):
        with pytest.raises(ValueError, match=rf"{name}\.jsonl\.gz: must be a complete gzip"):
            load(tmp_path / f"{name}.jsonl.gz")


def test_text_files_of_unequal_length_are_an_error_with_both_counts(tmp_path):
    english = write(tmp_path / "a.en", "one\ntwo\n")
    german = write(tmp_path / "a.de", "eins\n")
    with pytest.raises(ValueError, match=r"a\.en and .*a\.de .* got 2 and 1"):
        load((english, german))


def test_empty_line_in_a_text_file_is_an_error_that_names_the_right_file(tmp_path):
    english = write(tmp_path / "a.en", "one\ntwo\n")
    german = write(tmp_path / "a.de", "eins\n\n")
    with pytest.raises(ValueError, match=r"a\.de, line 2: the side 'de' .* Remove the pair"):
        load((english, german))


@pytest.mark.parametrize("source", ["missing.jsonl", "missing.tsv.gz", "missing.en,missing.de"])
def test_file_that_does_not_exist_is_not_looked_for_on_the_hub(source):
    with pytest.raises(FileNotFoundError, match="`source` must name an existing file, got missing"):
        load(source)


def test_a_misspelt_path_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("axe_hf.data.reading.load_from_hub", lambda name, *_: asked.append(name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    write(tmp_path / "corpus" / "train.tsv", "one\teins\n")
    write(tmp_path / "pairs.jsonl", json_lines(ROWS))
    near = "Did you mean {}?"
    misspelt = {"corpus/trian.tsv": near.format("corpus/train.tsv")}
    misspelt |= {"corpus/trian": near.format("corpus/train.tsv"), "corpus/x": ":default"}
    misspelt |= {"pair.jsonl": near.format("pairs.jsonl"), "pairs.json": near.format("pairs.jsonl")}
    misspelt |= {"corpsu": near.format("corpus"), "a/b/c": "no file or folder a/b/c"}
    misspelt |= {"./x": "no file or folder ./x", "/no/such": "no file or folder /no/such"}
    for name, told in misspelt.items():
        with pytest.raises(FileNotFoundError, match=re.escape(told)):
            load(name)
    assert not asked
    for name in ("corpus/trian:default", "owner/name", "name"):
        with pytest.raises(TypeError):  # nothing was loaded
            load(name)
    assert asked == ["corpus/trian:default", "owner/name", "name"]


def test_a_word_too_many_behind_files_is_named(tmp_path):
    path = write(tmp_path / "a.tsv", "one\teins\n")
    stray = "got '?{}'?, (which is not there: |one of 2 sources; )is it a stray word"
    for word in ("stray", "stray.tsv"):
        with pytest.raises((ValueError, FileNotFoundError), match=stray.format(word)):
            load([str(path), word])


def test_bad_arguments_are_an_error_that_names_them(tmp_path):
    path = write(tmp_path / "pairs.jsonl", json_lines(ROWS))
    with pytest.raises(ValueError, match="`source_lang` and `target_lang` must differ"):
        load(path, "en", "en")
    with pytest.raises(
        ValueError, match="`split` must be None for files.* Give that split's own file"
    ):
        load(path, split="test")
    with pytest.raises(ValueError, match="`source` must be, if several, each a file.*; got 'a'"):
        load(("a", "b", "c"))
    for nothing in ("", None):
        with pytest.raises(ValueError, match="`source` must be a path"):
            load(nothing)


def tokenize(dataset, tokenizer, max_source_length=20, max_target_length=20, **options):
    options = {"source_lang": "en", "target_lang": "de"} | options
    return tokenize_translations(
        dataset,
        tokenizer,
        max_source_length=max_source_length,
        max_target_length=max_target_length,
        **options,
    )


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(sum(PAIRS, ()) * 9, vocab_size=300)


def test_tokenized_pairs_end_in_eos_and_decode_to_the_text(tokenizer):
    tokenized = tokenize(Dataset.from_list(ROWS), tokenizer)
    assert tokenized.column_names == ["input_ids", "labels"]
    for row, (english, german) in zip(tokenized, PAIRS, strict=True):
        assert row["input_ids"][-1] == row["labels"][-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row["input_ids"], skip_special_tokens=True) == english
        assert tokenizer.decode(row["labels"], skip_special_tokens=True) == german


def test_pair_of_exactly_the_maximum_length_is_kept_and_of_one_more_dropped(tokenizer, caplog):
    dataset = Dataset.from_list(ROWS)
    lengths = [[len(tokenizer(text).input_ids) for text in pair] for pair in PAIRS]
    longest_source, longest_target = (max(side) for side in zip(*lengths, strict=True))
    assert len(tokenize(dataset, tokenizer, longest_source, longest_target)) == 2
    assert not caplog.records
    assert len(tokenize(dataset, tokenizer, longest_source - 1, longest_target)) == 1
    assert len(tokenize(dataset, tokenizer, longest_source, longest_target - 1)) == 1


def test_empty_sides_are_dropped_and_counted_once(tokenizer, caplog):
    empty = [{"en": "", "de": "Ja."}, {"en": "Yes.", "de": None}, {"en": "\t", "de": " "}]
    dataset = Dataset.from_list(ROWS + [{"translation": pair} for pair in empty])
    assert len(tokenize(dataset, tokenizer)) == 2
    (record,) = caplog.records
    assert "Dropped 3 of 5 sentence pairs" in record.getMessage()


def test_nothing_left_is_an_error_that_names_the_limits(tokenizer):
    with pytest.raises(ValueError, match="`dataset`.*max_source_length=2.* got 2 pairs"):
        tokenize(Dataset.from_list(ROWS), tokenizer, max_source_length=2)


def test_wrong_language_or_column_is_an_error_that_names_it(tokenizer):
    with pytest.raises(ValueError, match="`target_lang`.*got 'fr'"):
        tokenize(Dataset.from_list(ROWS), tokenizer, target_lang="fr")
    with pytest.raises(ValueError, match="'translation', got .'text'."):
        tokenize(Dataset.from_dict({"text": ["Yes."]}), tokenizer)


@pytest.mark.slow
def test_a_hundred_and_sixty_thousand_pairs_are_read_in_seconds(translation_data):
    start = time.process_time()
    assert len(load(translation_data / "tatoeba.train.jsonl.gz")) == 159_485
    assert time.process_time() - start < 20
