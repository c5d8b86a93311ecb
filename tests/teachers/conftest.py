import json
import random

import pytest
import torch

from axe_hf import train_tokenizer

ENGLISH = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
GERMAN = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn"]
SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.6}
SIZES |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
SIZES |= {f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")}
SIZES |= {"max_position_embeddings": 40, "tie_word_embeddings": False}


@pytest.fixture(autouse=True)
def one_thread(few_threads):
    """These models are so small that a second thread only gets in the way."""
    torch.set_num_threads(1)


def numbers_in(words, count, seed=0):
    """Sentences of one to six words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.randint(1, 6))) for _ in range(count)]


@pytest.fixture(scope="session")
def tokenizer():
    """Of numbers in English and in German."""
    return train_tokenizer([" ".join(ENGLISH), " ".join(GERMAN)] * 20, vocab_size=300)


@pytest.fixture(scope="session")
def marian(tokenizer):
    """An untrained Marian that says one thing to one source and another to another."""
    from transformers import MarianConfig, MarianMTModel

    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    ids["forced_eos_token_id"] = None
    torch.manual_seed(2)
    model = MarianMTModel(MarianConfig(vocab_size=len(tokenizer), **SIZES, **ids)).eval()
    model.final_logits_bias[0, 1] = 4  # so that it comes to an end
    model.generation_config.min_new_tokens = 2
    model.generation_config.max_new_tokens = 12
    model.generation_config.suppress_tokens = [0, 2, 3, 4]
    return model


@pytest.fixture(scope="session")
def teacher(marian, tokenizer, tmp_path_factory):
    """The folder of that Marian."""
    folder = tmp_path_factory.mktemp("teachers") / "teacher"
    marian.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs():
    """45 sentence pairs, some of them twice."""
    rows = zip(numbers_in(ENGLISH, 40), numbers_in(GERMAN, 40, seed=1), strict=True)
    rows = [{"translation": {"en": english, "de": german}} for english, german in rows]
    return rows + rows[:5]


@pytest.fixture(scope="session")
def pairs_file(pairs, tmp_path_factory):
    """These as JSON lines."""
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def nllb_tokenizer():
    """One that begins each text with the code of its language."""
    from transformers import NllbTokenizer

    pieces = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "▁",
        *sorted({c for w in ENGLISH + GERMAN for c in w}),
    ]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    codes = ["eng_Latn", "deu_Latn", "fra_Latn"]
    return NllbTokenizer(vocab=vocab, merges=[], extra_special_tokens=codes)


@pytest.fixture(scope="session")
def m2m_tokenizer(tmp_path_factory):
    """Of a sentencepiece file and a vocabulary, with the codes behind it."""
    import sentencepiece
    from transformers import M2M100Tokenizer

    folder = tmp_path_factory.mktemp("m2m")
    options = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH + GERMAN), model_prefix=str(folder / "spm"), **options
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    pieces = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces += [p for p in map(model.id_to_piece, range(len(model))) if p not in pieces]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    return M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "spm.model"))


@pytest.fixture
def make_teacher(tokenizer, mbart_tokenizer, nllb_tokenizer, m2m_tokenizer):
    """Makes an untrained model of an architecture, and its tokenizer."""
    from transformers import (
        AutoModelForSeq2SeqLM,
        BartConfig,
        M2M100Config,
        MBartConfig,
        T5Config,
    )

    def make(kind):
        tokenizers = {"mbart": mbart_tokenizer, "nllb": nllb_tokenizer, "m2m100": m2m_tokenizer}
        own = tokenizers.get(kind, tokenizer)
        ids = {"pad_token_id": own.pad_token_id, "eos_token_id": own.eos_token_id}
        ids["decoder_start_token_id"] = ids["pad_token_id" if kind == "t5" else "eos_token_id"]
        numbers = [*own.get_vocab().values(), *getattr(own, "lang_code_to_id", {}).values()]
        ids["vocab_size"] = max(numbers) + 1
        config = {"bart": BartConfig, "mbart": MBartConfig}.get(kind, M2M100Config)
        torch.manual_seed(1)
        if kind == "t5":
            sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
            made = T5Config(**sizes, **ids, initializer_factor=3.0)
        else:
            made = config(**SIZES, **ids, forced_eos_token_id=None)
        model = AutoModelForSeq2SeqLM.from_config(made).eval()
        model.generation_config.max_new_tokens = 8
        model.generation_config.suppress_tokens = [
            own.pad_token_id
        ]  # M2M100 counts no positions of it
        return model, own

    return make
