import io
import sys

import pytest
import torch

from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer
from axe_hf.cli import main

ENGLISH = ["one two", "three four", "two three", "four one two"]
GERMAN = ["eins zwei", "drei vier", "zwei drei", "vier eins zwei"]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a small untrained model."""
    folder = tmp_path_factory.mktemp("cli") / "model"
    tokenizer = train_tokenizer((ENGLISH + GERMAN) * 5, vocab_size=300)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_target_length": 12}
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_source_length": 12}
    # Untied and far from zero, so that it does not say one token everywhere.
    sizes |= {"init_std": 0.5, "tie_word_embeddings": False}
    torch.manual_seed(0)
    CmlmForConditionalGeneration(CmlmConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rescorer(model, tmp_path_factory):
    """The folder of a small untrained autoregressive model with the same tokenizer."""
    from transformers import AutoTokenizer, MarianConfig, MarianMTModel

    folder = tmp_path_factory.mktemp("cli") / "rescorer"
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    sizes |= {"decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    MarianMTModel(MarianConfig(vocab_size=len(tokenizer), **sizes, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def half_precision_model(model, tmp_path_factory):
    """The folder of the same model in bfloat16."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("cli") / "bfloat16"
    CmlmForConditionalGeneration.from_pretrained(model).bfloat16().save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


@pytest.fixture
def axe_hf(capsys):
    """Runs a command in this process: its exit code, standard output and standard error."""

    def run(*argv):
        code = main([str(word) for word in argv])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def fails(axe_hf):
    """Runs a command that must fail with one line, and returns that line."""

    def run(code, *argv):
        found, _, err = axe_hf(*argv)
        assert found == code, err
        assert err.count("\n") == 1 and "Traceback" not in err, err
        assert err.startswith("axe-hf") and ": error: " in err
        return err

    return run


@pytest.fixture
def stdin(monkeypatch):
    """Puts bytes into standard input."""

    def put(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


@pytest.fixture(scope="session")
def toy_pairs():
    """English and German sentences in the words that the model knows."""
    return list(zip(ENGLISH, GERMAN, strict=True))
