import gc
import os
import runpy
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

# The same examples in every run, and none refused for the time that a busy machine took.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

# A test that would reach for a hub is wrong; offline it fails at once. transformers reads this
# when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# With `pytest -n 2` there is a process for each core, and more threads only wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    """Files with slow tests first, then those with many: with `pytest -n 2` a process takes file
    after file, and a long one at the end would leave the other core idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    num_tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -num_tests[item.path]))


def pytest_collection_finish():
    """What is loaded by now stays: the garbage collector need not look through it each time."""
    gc.freeze()


def pytest_unconfigure():
    """At the end it does: extensions complain of what they find alive."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def few_threads():
    """Two threads for every test: on small tensors more only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_config():
    """A configuration of a model small enough for thousands of passes; keywords change it."""
    from axe_hf import CmlmConfig

    def make(**changes):
        sizes = {
            "vocab_size": 24,
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_source_length": 40,
            "max_target_length": 30,
            # With 0.02 all tokens would be about equally probable, and rounding would decide.
            "init_std": 0.5,
        }
        return CmlmConfig(**(sizes | changes))

    return make


@pytest.fixture
def make_model(make_config):
    """A randomly initialised model in evaluation mode; keywords change its configuration."""
    import torch

    from axe_hf import CmlmForConditionalGeneration

    def make(seed=0, attn_implementation="sdpa", **changes):
        torch.manual_seed(seed)
        config = make_config(**changes)
        config._attn_implementation = attn_implementation
        return CmlmForConditionalGeneration(config).eval()

    return make


@pytest.fixture
def make_sources():
    """Sentences of random lengths, `</s>` at the end, padded: `input_ids` and `attention_mask`."""
    import torch

    def make(lengths, seed=0, vocab_size=24, padded_length=None):
        generator = torch.Generator().manual_seed(seed)
        width = padded_length or max(lengths)
        input_ids = torch.randint(5, vocab_size, (len(lengths), width), generator=generator)
        for row, length in zip(input_ids, lengths, strict=True):
            row[length - 1] = 1
            row[length:] = 0
        return {"input_ids": input_ids, "attention_mask": input_ids.ne(0).long()}

    return make


@pytest.fixture
def run_script(tmp_path):
    """Runs a Python program: its exit code, and what it printed and complained.

    In a fork of this process, which has loaded what a new one would take ten seconds to load. A
    process that may have used a GPU cannot be forked; then, and where there is no fork, in a new
    one."""
    import torch

    def run(*argv):
        argv, log = [*map(str, argv)], tmp_path / "printed.txt"
        with open(log, "w") as printed:
            if not hasattr(os, "fork") or torch.accelerator.is_available():
                environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
                command, both = [sys.executable, *argv], {"stdout": printed, "stderr": printed}
                code = subprocess.run(command, check=False, env=environment, **both).returncode
            elif (child := os.fork()) == 0:
                _be_a_script(argv, printed)
            else:
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return code, log.read_text()

    return run


def _be_a_script(argv, printed):
    """Run a program in this process, which must be a fork: it ends here, whatever happens."""
    code = 1
    try:
        os.dup2(printed.fileno(), 1), os.dup2(printed.fileno(), 2)
        sys.argv, sys.stdout, sys.stderr = argv, printed, printed
        runpy.run_path(argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        if sys.exc_info()[1] is not None:
            traceback.print_exc()
        printed.flush()
        os._exit(code)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on this machine, which the real client of this process takes for the Hub."""
    monkeypatch.syspath_prepend(REPOSITORY / "tests")
    from hub_server import HubServer

    with HubServer() as server:
        server.be_the_hub(monkeypatch, tmp_path / "cache")
        yield server


@pytest.fixture(scope="session")
def repository():
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture
def benchmarks(repository, monkeypatch):
    """The folder of the benchmarks, which import each other as programs started from there do."""
    folder = repository / "examples" / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture(scope="session")
def original():
    """The module that writes checkpoints of Mask-Predict's program, and computes as it does."""
    import importlib.util

    file = Path(__file__).parent / "fairseq" / "original.py"
    spec = importlib.util.spec_from_file_location("original", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def translation_data():
    """The folder of the tatoeba files; tests that need them are skipped where it is not."""
    folder = Path(os.environ.get("AXE_HF_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("set AXE_HF_DATA to a folder with the tatoeba files to run this test")
    return folder


ENGLISH = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
GERMAN = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn"]
BLANK = {"extra_special_tokens": {"blank_token": "<blank>"}}


@pytest.fixture(scope="session")
def marian_tokenizer(tmp_path_factory):
    """Two sentencepiece files, which know ten words of their own language each; bytes besides."""
    import json

    import sentencepiece
    from transformers import MarianTokenizer

    folder = tmp_path_factory.mktemp("marian")
    pieces = ["</s>", "<unk>"]
    for side, words in (("source", ENGLISH), ("target", GERMAN)):
        options = {"vocab_size": 300, "hard_vocab_limit": False, "minloglevel": 2}
        sentences = [f"{first} {second}" for first in words for second in words]
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_prefix=str(folder / side),
            byte_fallback=side == "target",
            **options,
        )
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.model"))
        found = map(model.id_to_piece, range(len(model)))
        pieces += [piece for piece in found if piece not in (*pieces, "<s>")]
    vocab = {piece: number for number, piece in enumerate([*pieces, "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    files = [str(folder / name) for name in ("source.model", "target.model", "vocab.json")]
    return MarianTokenizer(*files, mask_token="<mask>", **BLANK)


@pytest.fixture(scope="session")
def mbart_tokenizer():
    """A tokenizer that ends each text in `</s>` and the code of its language."""
    from transformers import MBartTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(f"▁{word}" for word in ENGLISH + GERMAN)]
    vocab = [*((piece, 0.0) for piece in pieces), ("en_XX", 0.0), ("de_DE", 0.0), ("<mask>", 0.0)]
    return MBartTokenizer(vocab=vocab, src_lang="en_XX", tgt_lang="de_DE", **BLANK)


@pytest.fixture(params=["two files", "language codes"])
def foreign_tokenizer(request, marian_tokenizer, mbart_tokenizer):
    """Tokenizers for which a source and a target are not the same."""
    return {"two files": marian_tokenizer, "language codes": mbart_tokenizer}[request.param]


HOLD = """
import sys, time
from pathlib import Path
from axe_hf.output import only_writer, whole_folder
with {context}(sys.argv[1]) as folder:
    Path(folder or sys.argv[1], "half").write_text("half")
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold():
    """Starts a process that is inside a context of `axe_hf.output`; it is killed in the end."""
    if os.name == "nt":
        pytest.skip("Windows has no such locks")
    started = []

    def start(context, folder, cwd=None):
        command = [sys.executable, "-c", HOLD.format(context=context), str(folder)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=cwd, env=environment)
        started.append(process)
        assert process.stdout.readline() == b"in\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def sentences():
    """English and German sentences of the phrasebook, 300 of each."""
    import gzip
    import json

    file = REPOSITORY / "axe_hf" / "data" / "phrasebook" / "train.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        pairs = [
            json.loads(line)["translation"] for line, _ in zip(lines, range(300), strict=False)
        ]
    return {side: [pair[side] for pair in pairs] for side in ("en", "de")}


@pytest.fixture(scope="session")
def teachers_tokenizer(sentences, tmp_path_factory):
    """Makes the tokenizer of a kind of teacher, as its class of Transformers makes it."""
    import json
    import shutil

    import transformers
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    both = sentences["en"] + sentences["de"]

    def train(folder, texts, name, size=200, **options):
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=str(folder / "trained"),
            vocab_size=size,
            hard_vocab_limit=False,
            minloglevel=2,
            **options,
        )
        shutil.move(folder / "trained.model", folder / name)
        model = SentencePieceProcessor(model_file=str(folder / name))
        return [model.id_to_piece(i) for i in range(3, len(model))]

    def write_vocabulary(folder, tokens):
        vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        return str(folder / "vocab.json")

    def marian(folder, source=sentences["en"], **options):
        pieces = train(folder, source, "source.spm", **options)
        pieces += train(folder, sentences["de"], "target.spm")
        tokens = ["</s>", "<unk>", *pieces, ">>deu<<", ">>fra<<", "<pad>"]
        files = [str(folder / name) for name in ("source.spm", "target.spm")]
        return transformers.MarianTokenizer(*files, write_vocabulary(folder, tokens))

    def m2m100(folder, **options):
        tokens = ["<s>", "<pad>", "</s>", "<unk>", *train(folder, both, "spm.model")]
        file, spm = write_vocabulary(folder, tokens), str(folder / "spm.model")
        return transformers.M2M100Tokenizer(file, spm, **options)

    def of_one_file(name, **training):
        def make(folder, **options):
            train(folder, both, folder / of_class.vocab_files_names["vocab_file"], **training)
            return of_class.from_pretrained(folder, **options)

        of_class = getattr(transformers, name)
        return make

    def bart(folder):
        from tokenizers import ByteLevelBPETokenizer

        trained, special = ByteLevelBPETokenizer(), ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        options = {"vocab_size": 400, "special_tokens": special, "show_progress": False}
        trained.train_from_iterator(both, **options)
        trained.save_model(str(folder))
        return transformers.BartTokenizer.from_pretrained(folder)

    t5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    kinds = {
        "marian": marian,
        "m2m100": m2m100,
        "mbart": of_one_file("MBartTokenizer"),
        "mbart50": of_one_file("MBart50Tokenizer"),
        "nllb": of_one_file("NllbTokenizer", model_type="bpe"),
        "t5": of_one_file("T5Tokenizer", **t5),
        "pegasus": of_one_file(
            "PegasusTokenizer", **t5 | {"unk_id": 3}, user_defined_symbols=["<mask_2>"]
        ),
        "bart": bart,
    }

    def make(kind, **options):
        codes = {"mbart": ("en_XX", "de_DE"), "mbart50": ("en_XX", "de_DE"), "m2m100": ("en", "de")}
        codes["nllb"] = ("eng_Latn", "deu_Latn")
        if kind in codes and not options:
            options = dict(zip(("src_lang", "tgt_lang"), codes[kind], strict=True))
            # As the files of their checkpoints have it.
            if kind == "nllb":
                options["extra_special_tokens"] = ["fra_Latn", "deu_Latn", "eng_Latn"]
            if kind == "m2m100":
                listed = FAIRSEQ_LANGUAGE_CODES["m2m100"]
                options["extra_special_tokens"] = [f"__{code}__" for code in listed]
        return kinds[kind](tmp_path_factory.mktemp(kind), **options)

    return make
