import gzip
import json
from itertools import islice, pairwise

import pytest
from torch.utils.data import DataLoader

from axe_hf.data import PairStream, PairTokenizer, TranslationStream, train_tokenizer
from axe_hf.data.formats import Share
from axe_hf.data.sources import identity

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
LANGUAGES = {"source_lang": "en", "target_lang": "de"}


def make_pairs(count, first=0):
    """Pairs of one to four words that all differ."""
    numbers = [[int(digit) for digit in str(n)] for n in range(first, first + count)]
    texts = [" ".join(WORDS[digit] for digit in digits) for digits in numbers]
    return [{"en": text, "de": f"das {text}"} for text in texts]


def write(path, pairs):
    """The pairs in a file of the format that its name says; returns what to load."""
    rows = [{"translation": pair} for pair in pairs]
    separator = "," if ".csv" in path.name else "\t"
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow.parquet import write_table

        write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)
        return str(path)
    if path.suffix == ".text":
        for side in ("en", "de"):
            path.with_suffix(f".{side}").write_text("".join(f"{p[side]}\n" for p in pairs))
        return ",".join(str(path.with_suffix(f".{side}")) for side in ("en", "de"))
    if ".jsonl" in path.name:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif path.suffix == ".json":
        text = json.dumps(rows)
    else:
        lines = [("id", "de", "en"), *(("7", pair["de"], pair["en"]) for pair in pairs)]
        text = "".join(separator.join(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([" ".join([*WORDS, "das"])] * 50, vocab_size=300)


@pytest.fixture
def make_stream(tokenizer):
    """Makes a stream of what `source` names in windows of 10 pairs."""

    def make(source, shuffle_buffer=10, limit=6, **options):
        pairs = PairStream(source, **LANGUAGES, **options)
        tokenize = PairTokenizer(tokenizer, *LANGUAGES.values(), limit, limit)
        return TranslationStream(pairs, tokenize, shuffle_buffer=shuffle_buffer)

    return make


@pytest.fixture
def texts_of(tokenizer):
    """The source sentences of batches."""

    def of(batches):
        rows = [row["input_ids"] for batch in batches for row in batch.rows]
        return tokenizer.batch_decode(rows, skip_special_tokens=True)

    return of


def sources(pairs):
    return [pair["en"] for pair in pairs]


FORMATS = ["a.jsonl", "a.jsonl.gz", "a.json", "a.tsv", "a.csv", "a.csv.gz", "a.parquet", "a.text"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_goes_on_where_a_batch_left_it_as_if_it_had_not_been_left(
    name, make_stream, tmp_path
):
    stream = make_stream(write(tmp_path / name, make_pairs(33)))
    for share in (Share(), Share(1, 3)):
        whole = list(islice(stream.batches(max_tokens=24, share=share), 40))
        for made in range(1, 40, 3):
            state = json.loads(json.dumps(whole[made - 1].state))
            options = {"max_tokens": 24, "share": share, "num_passed": made}
            resumed = stream.batches(states=[state], **options)
            batches = list(islice(resumed, 40))
            assert all(batch.state is None and not batch.rows for batch in batches[:made])
            assert batches[made:] == whole[made:]


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.csv", "a.text"])
def test_a_resumed_stream_reads_nothing_in_front_of_its_window(name, make_stream, tmp_path):
    source = write(tmp_path / name, make_pairs(60))
    stream = make_stream(source)
    whole = list(islice(stream.batches(batch_size=5), 10))
    for path in tmp_path.iterdir():  # the first 20 of 60 pairs become noise
        content = bytearray(path.read_bytes())
        content[: len(content) // 4] = b"\xff" * (len(content) // 4)
        path.write_bytes(bytes(content))
    state = whole[4].state  # with the checksums of the files as they are now
    for position in state["positions"]:
        position["files"] = [*map(identity, sorted(tmp_path.iterdir(), reverse=True))]
    resumed = stream.batches(batch_size=5, states=[state], num_passed=5)
    assert [batch.rows for batch in islice(resumed, 10)][5:] == [b.rows for b in whole[5:]]
    with pytest.raises(ValueError, match="line 1: must be UTF-8"):
        next(iter(stream.batches(batch_size=5)))


@pytest.mark.parametrize("name", FORMATS)
def test_the_processes_share_the_pairs_of_an_epoch(name, make_stream, texts_of, tmp_path):
    pairs = make_pairs(50)
    stream, seen = make_stream(write(tmp_path / name, pairs)), []
    for index in range(3):
        batches = iter(stream.batches(max_tokens=24, share=Share(index, 3)))
        for batch in batches:
            seen += texts_of([batch])
            if batch.state["positions"][0]["epoch"] or batch.state["window"] == 2:
                break
    assert sorted(seen) == sorted(sources(pairs))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.text"])
def test_lines_that_are_empty_at_even_distances_leave_no_process_without_pairs(
    name, count, tmp_path
):
    pairs = make_pairs(90 * count)
    path = tmp_path / name
    source = write(path, pairs)
    for file in tmp_path.iterdir():
        text = file.read_text()
        file.write_text(text.replace("\n", "\n" * count))
    if name == "a.csv":  # an empty line there is none; a text has several
        header, *lines = text.splitlines()
        broken = "\n" * (count - 1)
        path.write_text("\n".join([header, *(f'"{broken}{line[0]}"{line[1:]}' for line in lines)]))
    stream, found = PairStream(source, **LANGUAGES), []
    for index in range(count):
        (reader,) = stream.readers(Share(index, count))
        own = [pair for pair in reader if pair["en"]]
        assert 60 < len(own) < 120
        found += own
    assert sorted(sources(found)) == sorted(sources(pairs))


def test_each_epoch_has_every_pair_of_all_files_once_in_an_order_of_its_own(
    make_stream, texts_of, tmp_path
):
    names = ["0.jsonl", "1.tsv", "2.parquet", "3.csv.gz"]
    files = [write(tmp_path / n, make_pairs(20, 20 * i)) for i, n in enumerate(names)]
    texts = texts_of(islice(make_stream(files).batches(batch_size=10), 16))
    epochs = texts[:80], texts[80:]
    for epoch in epochs:
        assert sorted(epoch) == sorted(sources(make_pairs(80)))
    assert epochs[0] != epochs[1]
    again = texts_of(islice(make_stream(files, seed=1).batches(batch_size=10), 16))
    assert again != texts and sorted(again) == sorted(texts)
    folder = make_stream(tmp_path).batches(batch_size=10)
    assert texts_of(islice(folder, 16)) == texts
    assert texts_of(islice(make_stream(f"{tmp_path}/[0-3].*").batches(batch_size=10), 16)) == texts


def test_batches_fill_the_budget_with_pairs_of_like_length(make_stream, tmp_path):
    stream = make_stream(write(tmp_path / "a.tsv", make_pairs(1000)), shuffle_buffer=500)
    batches, tokens, most = list(islice(stream.batches(max_tokens=60), 40)), 0, 0
    for batch in batches:
        sizes = [max(len(row["input_ids"]), len(row["labels"])) for row in batch.rows]
        assert len(sizes) * max(sizes) <= 60
        tokens, most = tokens + sum(sizes), most + len(sizes) * max(sizes)
    assert tokens > 0.95 * most
    assert len({len(batch.rows) for batch in batches}) > 1


def test_weights_say_how_often_a_file_is_drawn(make_stream, texts_of, tmp_path):
    few = write(tmp_path / "few.tsv", make_pairs(10))
    many = write(tmp_path / "many.jsonl", make_pairs(2000, 10))
    stream = make_stream([few, many], weights=[3, 1], shuffle_buffer=400)
    texts = texts_of(islice(stream.batches(batch_size=40), 30))
    of_few = [text for text in texts if text in sources(make_pairs(10))]
    assert 0.7 < len(of_few) / len(texts) < 0.8
    counts = [of_few.count(text) for text in sources(make_pairs(10))]
    assert max(counts) - min(counts) <= 1  # it starts over when it ends
    whole = list(islice(stream.batches(batch_size=40), 30))
    resumed = stream.batches(batch_size=40, states=[whole[16].state])
    assert list(islice(resumed, 13)) == whole[17:]


def test_a_data_set_that_datasets_streams_is_shared_and_resumed_too(
    make_stream, texts_of, tmp_path, monkeypatch
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    for part in range(2):
        write(folder / f"train-{part}.jsonl", make_pairs(12, 12 * part))
    stream, seen = make_stream(folder), []
    for index in range(2):
        share = Share(index, 2)
        whole = list(islice(stream.batches(batch_size=3, share=share), 9))
        seen += texts_of(whole[:5])
        state = json.loads(json.dumps(whole[4].state))
        resumed = stream.batches(batch_size=3, share=share, states=[state])
        assert list(islice(resumed, 4)) == whole[5:]
    assert sorted(seen) == sorted(sources(make_pairs(24)))


@pytest.mark.parametrize("workers", [0, 3])
def test_workers_divide_and_resume_a_data_set_that_datasets_streams(
    workers, make_stream, texts_of, tmp_path, monkeypatch
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    for part in range(2):  # fewer files than workers
        write(folder / f"train-{part}.jsonl", make_pairs(12, 12 * part))

    def load(number, **options):
        batches = make_stream(folder).batches(batch_size=2, **options)
        return list(islice(DataLoader(batches, batch_size=None, num_workers=workers), number))

    whole = load(20)
    assert sorted(texts_of(whole[:12])) == sorted(sources(make_pairs(24)))
    each = range(workers or 1)
    known, made = whole, 0
    for end in (7, 11):  # the second state is of a stream that was resumed itself
        own = [[b.state for b in known[made:end] if b.state["worker"] == w] for w in each]
        known, made = load(20, states=[states[-1] for states in own], num_passed=end), end
        assert [b.rows for b in known[end:]] == [b.rows for b in whole[end:]]


@pytest.mark.parametrize("name", [*FORMATS, "hub"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_first_pairs_of_a_stream_come_in_each_epoch(
    name, count, make_stream, texts_of, tmp_path, monkeypatch
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    is_hub, blank = name == "hub", {"en": "", "de": ""}  # which is no pair
    files = [
        write(folder / (f"train-{part}.jsonl" if is_hub else f"{part}{name}"), pairs)
        for part, pairs in enumerate([[*make_pairs(9), blank], [blank, *make_pairs(30, 9)]])
    ]
    stream, seen = make_stream(folder if is_hub else files, max_pairs=21), []
    for index in range(count):
        share = Share(index, count)
        number = 21 // count
        batches = stream.batches(batch_size=3, share=share)
        whole = list(islice(batches, 2 * (number // 10 * 4 + -(-(number % 10) // 3))))
        seen += texts_of(whole)
        for number in range(1, len(whole), 2):
            state = json.loads(json.dumps(whole[number - 1].state))
            resumed = stream.batches(batch_size=3, share=share, states=[state])
            assert list(islice(resumed, len(whole) - number)) == whole[number:]
    assert sorted(seen) == sorted(sources(make_pairs(21)) * 2)
    assert "of 21 pairs" in stream.description or is_hub


def test_a_window_is_read_while_the_batches_before_it_are_used(make_stream, tmp_path, monkeypatch):
    monkeypatch.setattr("axe_hf.data.streaming._PAIRS_AT_ONCE", 10)
    stream = make_stream(write(tmp_path / "a.tsv", make_pairs(400)), shuffle_buffer=100)
    calls, columns = [], PairTokenizer.columns

    def counted(self, pairs):
        calls.append(len(pairs))
        return columns(self, pairs)

    monkeypatch.setattr(PairTokenizer, "columns", counted)
    batches, made = stream.batches(batch_size=5), []
    for _ in islice(batches, 60):
        made.append(sum(calls))
    assert made[:4] == [100, 110, 110, 120]  # the first waits for a window, no other one does
    assert max(b - a for a, b in pairwise(made)) == 10


def test_workers_of_a_loader_divide_a_stream_and_resume_in_turn(make_stream, texts_of, tmp_path):
    stream = make_stream(write(tmp_path / "a.jsonl", make_pairs(40)))

    def load(number, **options):
        batches = stream.batches(batch_size=5, **options)
        return list(islice(DataLoader(batches, batch_size=None, num_workers=2), number))

    whole = load(14)
    assert sorted(texts_of(whole[:8])) == sorted(sources(make_pairs(40)))
    states = [[b.state for b in whole[:5] if b.state["worker"] == w][-1] for w in range(2)]
    assert load(14, states=states, num_passed=5)[5:] == whole[5:]


def test_what_is_too_long_or_empty_is_left_out_and_told(make_stream, texts_of, tmp_path, caplog):
    pairs = [*make_pairs(5), {"en": " ", "de": "das"}, {"en": "one " * 9, "de": "das"}]
    stream = make_stream(write(tmp_path / "a.tsv", pairs))
    (batch,) = islice(stream.batches(batch_size=10), 1)
    assert sorted(texts_of([batch])) == sorted(sources(make_pairs(5)))
    assert "Dropped 2 of the first 7 sentence pairs: empty, or over" in caplog.text
    assert "a.tsv, line 7: left out, since the side 'en' is empty" in caplog.text
    assert "read whole it is an error" in caplog.text
    halves = [{"en": "one", "de": ""}, *make_pairs(3), {"en": "two", "de": None}]
    write(tmp_path / "b.jsonl", halves)
    list(islice(make_stream(str(tmp_path / "b.jsonl")).batches(batch_size=3), 2))
    assert "b.jsonl, line 1: left out, since the side 'de' is empty" in caplog.text
    assert "Left out in epoch 0: 2 pairs of which one side is empty" in caplog.text


def test_a_json_list_is_said_to_be_parsed_whole(make_stream, tmp_path, caplog):
    make_stream(write(tmp_path / "b.jsonl", make_pairs(3)))
    assert not caplog.text
    make_stream(write(tmp_path / "a.json", make_pairs(3)))
    assert "a.json is one list, and parsed whole, again in each epoch" in caplog.text


def test_a_wrong_row_is_named_with_file_and_line(make_stream, tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, make_pairs(30))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:22], "{", *lines[22:]]))
    batches = iter(make_stream(str(path)).batches(batch_size=10))
    assert len([next(batches) for _ in range(2)]) == 2
    with pytest.raises(ValueError, match=r"a\.jsonl, line 23: must be valid JSON"):
        next(batches)


def test_a_stream_names_what_it_cannot_take(make_stream, tmp_path):
    source = write(tmp_path / "a.tsv", make_pairs(3))
    stream = make_stream(source)
    with pytest.raises(ValueError, match="either `max_tokens` or `batch_size`"):
        stream.batches()
    with pytest.raises(ValueError, match="`max_tokens` must hold every pair, got 5, .* 6 tokens"):
        stream.batches(max_tokens=5)
    with pytest.raises(ValueError, match="for each process, but process 0 of 5 gets none"):
        next(iter(stream.batches(batch_size=2, share=Share(0, 5))))
    with pytest.raises(ValueError, match="must have a pair within max_source_length=2"):
        next(iter(make_stream(write(tmp_path / "b.tsv", make_pairs(9, 100)), limit=2).batches(9)))
    with pytest.raises(ValueError, match="`weights` must be one for each source, got 1"):
        make_stream([source, source], weights=[1])
    with pytest.raises(FileNotFoundError, match="none.tsv"):
        make_stream(str(tmp_path / "none.tsv"))
    with pytest.raises(ValueError, match="`source` must name files if there are `weights`"):
        make_stream(["owner/name"], weights=[1])


def test_a_place_in_files_that_have_changed_is_given_up(tmp_path, caplog):
    source = write(tmp_path / "a.jsonl", make_pairs(9, 100))

    def read(*place):
        return PairStream(source, **LANGUAGES).readers(Share(), place)[0]

    reader = read()
    assert [*islice(reader, 4)] == make_pairs(4, 100)
    place = json.loads(json.dumps(reader.position))
    assert [*read(place)] == make_pairs(5, 104) and not caplog.text
    assert [*read(place | {"shard": 1})] == make_pairs(9, 100)  # there were more files
    caplog.clear()
    write(tmp_path / "a.jsonl", make_pairs(20, 10))
    assert [*read(place)] == make_pairs(20, 10)  # not from the middle of a line on
    told = "The files have changed since a.jsonl was read: epoch 0 is read from its beginning."
    assert told in caplog.text


@pytest.mark.parametrize("line", [0, 1, 3, 8])
def test_a_file_that_changed_and_kept_its_size_is_noticed_and_a_copy_is_not(line, tmp_path, caplog):
    (tmp_path / "copy").mkdir()
    pairs = make_pairs(9, 100)
    stream = PairStream(write(tmp_path / "a.jsonl", pairs), **LANGUAGES)
    (reader,) = stream.readers(Share())
    assert [*islice(reader, 4)] == pairs[:4]
    place = json.loads(json.dumps(reader.position))
    copy = PairStream(write(tmp_path / "copy" / "a.jsonl", pairs), **LANGUAGES)
    assert [*copy.readers(Share(), [place])[0]] == pairs[4:] and not caplog.text
    assert copy.description == stream.description
    pairs[line] = {side: text[::-1] for side, text in pairs[line].items()}
    changed = PairStream(write(tmp_path / "copy" / "a.jsonl", pairs), **LANGUAGES)
    assert [*changed.readers(Share(), [place])[0]] == pairs
    assert "The files have changed since a.jsonl was read" in caplog.text
    assert changed.description != stream.description
