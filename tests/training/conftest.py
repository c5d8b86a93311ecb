import copy
import random

import pytest
import torch
from datasets import Dataset
from transformers.utils import logging

from axe_hf import CmlmConfig, CmlmForConditionalGeneration, tokenize_translations, train_tokenizer
from axe_hf.cmlm.loss_cmlm import CmlmForConditionalGenerationLoss

ENGLISH = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
GERMAN = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn"]


def toy_pairs(num_pairs, seed=0):
    """Numbers in words, in German the other way round."""
    draw = random.Random(seed)
    pairs = []
    for _ in range(num_pairs):
        numbers = draw.choices(range(10), k=draw.randint(2, 6))
        english = " ".join(ENGLISH[i] for i in numbers)
        german = " ".join(GERMAN[i] for i in reversed(numbers))
        pairs.append({"translation": {"en": english, "de": german}})
    return pairs


@pytest.fixture(autouse=True)
def one_thread(few_threads):
    """These models are so small that a second thread only gets in the way."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def quiet():
    logging.disable_progress_bar()
    import datasets

    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def pairs():
    """60 toy sentence pairs."""
    return toy_pairs(60)


@pytest.fixture(scope="session")
def tokenizer():
    """One token for each word of the toy language."""
    return train_tokenizer([" ".join(ENGLISH), " ".join(GERMAN)] * 50, vocab_size=300)


@pytest.fixture(scope="session")
def dataset(pairs, tokenizer):
    """The toy pairs, tokenized."""
    return tokenize_translations(
        Dataset.from_list(pairs),
        tokenizer,
        source_lang="en",
        target_lang="de",
        max_source_length=12,
        max_target_length=12,
    )


@pytest.fixture
def make_model(tokenizer):
    """Makes equal small models; keywords go to the config."""

    def make(**config):
        sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
        sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
        sizes |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        sizes |= {"max_source_length": 12, "max_target_length": 12, "vocab_size": len(tokenizer)}
        torch.manual_seed(0)
        return CmlmForConditionalGeneration(CmlmConfig(**sizes | config))

    return make


@pytest.fixture
def make_trainer(make_model, dataset, tokenizer, tmp_path):
    """Makes an AxeTrainer on the toy data; keywords go to the arguments."""
    from axe_hf import AxeTrainer, AxeTrainingArguments

    def make(model=None, train_dataset=dataset, eval_dataset=dataset, callbacks=None, **settings):
        defaults = {"output_dir": str(tmp_path / "run"), "max_steps": 4, "save_strategy": "no"}
        defaults |= {"per_device_train_batch_size": 8, "use_cpu": True, "disable_tqdm": True}
        return AxeTrainer(
            model or make_model(),
            AxeTrainingArguments(**defaults | settings),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=callbacks,
        )

    return make


@pytest.fixture
def record_losses():
    """Makes a list of the loss's settings in each step of training a model makes from now on."""
    names = ("training_loss", "allow_repetition", "axe_temperature", "axe_delta")

    def of(model):
        found, compute = [], CmlmForConditionalGenerationLoss

        def record(config, **given):
            if model.training:
                found.append({name: getattr(config, name) for name in names})
            plain = copy.copy(config)
            vars(plain).update(allow_repetition=False, axe_temperature=0.0, axe_delta=2.0)
            return compute(config=plain, **given)

        model.loss_function = record
        return found

    return of
