"""Every public function refuses what is no good for it, and its error names the argument.

A row of a table is a call, an argument, a value that it cannot take, and the type of the error. A
function in the place of a value makes it of the toys. Raw errors of Python, PyTorch or a tokenizer
(AttributeError, IndexError, UnicodeEncodeError ...) are none of these types.
"""

import gzip
import re
from types import FunctionType, SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub.errors import (
    StrictDataclassClassValidationError as ClassError,
)
from huggingface_hub.errors import (
    StrictDataclassFieldValidationError as FieldError,
)
from torch import nan, tensor
from transformers import MarianConfig, MarianMTModel, TrainingArguments

import axe_hf
from axe_hf import rescoring
from axe_hf.hub import save_pretrained_with_code

inf = float("inf")
SURROGATE = "half a \ud83d"


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    """A small model with all that stands around it."""
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("toys")
    texts = ["one two", "three four", "eins zwei", "drei vier"]
    tokenizer = axe_hf.train_tokenizer(texts * 5, vocab_size=300)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": len(tokenizer)}
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    config = axe_hf.CmlmConfig(**sizes, max_source_length=12, max_target_length=12)
    model = axe_hf.CmlmForConditionalGeneration(config).eval()
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    rescorer = MarianMTModel(MarianConfig(**sizes, **heads, **ids)).eval()
    source = tensor([[7, 8, 9, 1], [8, 9, 1, 0]])
    history = {"num_iterations": 2, "output_history": True, "return_dict_in_generate": True}
    pairs = [{"en": "one two", "de": "eins zwei"}, {"en": "three", "de": "drei"}]
    (folder / "full").mkdir()
    (folder / "full" / "file").write_text("something")
    return SimpleNamespace(
        tokenizer=tokenizer,
        model=model,
        rescorer=rescorer,
        source=source,
        output=model.generate(source, **history),
        pairs=Dataset.from_dict({"translation": pairs}),
        rows=[dict(tokenizer("one two", text_target="eins zwei"))] * 4,
        arguments=axe_hf.AxeTrainingArguments(str(folder / "run"), use_cpu=True),
        folder=folder,
    )


def refused(error, name, call, *args, **kwargs):
    """Runs the call, which must raise just this error, with the name in its message."""
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    # Not its subclasses, such as json.JSONDecodeError or UnicodeEncodeError.
    assert type(caught.value) is error
    assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(caught.value)), caught.value


def bad_arguments(*rows):
    """Parametrises a test by rows of (call, argument, value, error)."""
    names = [f"{call.__name__}-{argument}-{i}" for i, (call, argument, *_) in enumerate(rows)]
    return pytest.mark.parametrize(("call", "argument", "value", "error"), rows, ids=names)


def check(toys, call, argument, value, error):
    value = value(toys) if isinstance(value, FunctionType) else value
    refused(error, argument, call, toys, **{argument: value})


# The losses. LOGITS (batch, canvas, vocab), LABELS (batch, target).

LOGITS, STATES, WEIGHT = torch.zeros(2, 3, 5), torch.zeros(2, 3, 4), torch.zeros(5, 4)
LABELS = tensor([[1, 2, 3], [4, -100, -100]])
SHOWN = tensor([[True, False, False], [False, False, False]])
OPTIONS = {"blank_token_id": 0, "delta": 2.0}


def axe_loss(toys, **change):
    axe_hf.axe_loss(**({"logits": LOGITS, "labels": LABELS} | OPTIONS | change))


def linear_axe_loss(toys, **change):
    inputs = {"hidden_states": STATES, "weight": WEIGHT, "labels": LABELS}
    axe_hf.linear_axe_loss(**(inputs | OPTIONS | change))


def loss_module(toys, **change):
    axe_hf.AlignedCrossEntropyLoss(**(OPTIONS | change))(LOGITS, LABELS)


def definition(toys, **change):
    axe_hf.axe_loss_definition(**({"logits": LOGITS, "labels": LABELS} | OPTIONS | change))


# A table is read by its rows.
# fmt: off
LOSSES = (
    (axe_loss, "logits", None, TypeError),
    (axe_loss, "logits", [[[0.0]]], TypeError),
    (axe_loss, "logits", np.zeros((2, 3, 5)), TypeError),
    (axe_loss, "logits", LOGITS.long(), TypeError),
    (axe_loss, "logits", LOGITS.to(torch.complex64), TypeError),
    (axe_loss, "logits", LOGITS[0], ValueError),
    (axe_loss, "logits", LOGITS * nan, ValueError),
    (axe_loss, "logits", LOGITS + inf, ValueError),
    (axe_loss, "labels", None, TypeError),
    (axe_loss, "labels", [[1, 2, 3], [4]], TypeError),
    (axe_loss, "labels", LABELS.float(), TypeError),
    (axe_loss, "labels", LABELS[0], ValueError),
    (axe_loss, "labels", LABELS[:1], ValueError),
    (axe_loss, "labels", LABELS + 1, ValueError),
    (axe_loss, "labels", LABELS.clamp(min=-1), ValueError),
    (axe_loss, "labels", LABELS.flip(1), ValueError),
    (axe_loss, "labels", LABELS.clamp(min=0), ValueError),  # the blank
    (axe_loss, "blank_token_id", None, TypeError),
    (axe_loss, "blank_token_id", "0", TypeError),
    (axe_loss, "blank_token_id", 0.0, TypeError),
    (axe_loss, "blank_token_id", True, TypeError),
    (axe_loss, "blank_token_id", 5, ValueError),
    (axe_loss, "blank_token_id", -1, ValueError),
    (axe_loss, "delta", None, TypeError),
    (axe_loss, "delta", "2", TypeError),
    (axe_loss, "delta", -1, ValueError),
    (axe_loss, "delta", nan, ValueError),
    (axe_loss, "delta", -inf, ValueError),
    (axe_loss, "allow_repetition", None, TypeError),
    (axe_loss, "allow_repetition", 1, TypeError),
    (axe_loss, "temperature", None, TypeError),
    (axe_loss, "temperature", "1", TypeError),
    (axe_loss, "temperature", -1, ValueError),
    (axe_loss, "temperature", nan, ValueError),
    (axe_loss, "temperature", inf, ValueError),
    (axe_loss, "observed_tokens", LABELS, ValueError),  # without repetition or temperature
    (axe_loss, "canvas_lengths", [3, 1], TypeError),
    (axe_loss, "canvas_lengths", 3, TypeError),
    (axe_loss, "canvas_lengths", tensor([3.0, 1.0]), TypeError),
    (axe_loss, "canvas_lengths", tensor([3]), ValueError),
    (axe_loss, "canvas_lengths", tensor([3, 4]), ValueError),
    (axe_loss, "canvas_lengths", tensor([3, -1]), ValueError),
    (axe_loss, "observed_mask", SHOWN.tolist(), TypeError),
    (axe_loss, "observed_mask", SHOWN.long(), TypeError),
    (axe_loss, "observed_mask", SHOWN[:1], ValueError),
    (axe_loss, "observed_mask", ~SHOWN, ValueError),
    (axe_loss, "label_smoothing", None, TypeError),
    (axe_loss, "label_smoothing", "0.1", TypeError),
    (axe_loss, "label_smoothing", 1, ValueError),
    (axe_loss, "label_smoothing", -0.1, ValueError),
    (axe_loss, "label_smoothing", nan, ValueError),
    (axe_loss, "reduction", None, ValueError),
    (axe_loss, "reduction", "average", ValueError),
    (axe_loss, "reduction", ["mean"], ValueError),
    (axe_loss, "num_items_in_batch", 0, ValueError),
    (axe_loss, "num_items_in_batch", "3", ValueError),
    (axe_loss, "num_items_in_batch", nan, ValueError),
    (axe_loss, "num_items_in_batch", tensor([3, 4]), ValueError),
    (axe_loss, "implementation", None, ValueError),
    (axe_loss, "implementation", "cuda", ValueError),
    (linear_axe_loss, "hidden_states", None, TypeError),
    (linear_axe_loss, "hidden_states", [[[0.0]]], TypeError),
    (linear_axe_loss, "hidden_states", STATES[0], ValueError),
    (linear_axe_loss, "hidden_states", STATES.long(), ValueError),
    (linear_axe_loss, "weight", None, TypeError),
    (linear_axe_loss, "weight", WEIGHT.tolist(), TypeError),
    (linear_axe_loss, "weight", WEIGHT[0], ValueError),
    (linear_axe_loss, "weight", WEIGHT[:, :3], ValueError),
    (linear_axe_loss, "bias", 0.0, TypeError),
    (linear_axe_loss, "bias", [0.0] * 5, TypeError),
    (linear_axe_loss, "bias", torch.zeros(4), ValueError),
    (linear_axe_loss, "labels", LABELS.tolist(), TypeError),
    (linear_axe_loss, "labels", LABELS + 1, ValueError),
    (linear_axe_loss, "delta", -1, ValueError),
    (linear_axe_loss, "temperature", -1, ValueError),
    (linear_axe_loss, "allow_repetition", 1, TypeError),
    (linear_axe_loss, "blank_token_id", None, TypeError),
    (linear_axe_loss, "reduction", "average", ValueError),
    (linear_axe_loss, "implementation", "cuda", ValueError),
    (loss_module, "blank_token_id", "0", TypeError),
    (loss_module, "blank_token_id", 7, ValueError),
    (loss_module, "delta", nan, ValueError),
    (loss_module, "label_smoothing", 2, ValueError),
    (loss_module, "temperature", nan, ValueError),
    (loss_module, "allow_repetition", "no", TypeError),
    (loss_module, "reduction", "average", ValueError),
    (loss_module, "implementation", 1, ValueError),
    (definition, "logits", None, TypeError),
    (definition, "logits", LOGITS[0], ValueError),
    (definition, "labels", LABELS.tolist(), TypeError),
    (definition, "labels", LABELS[:1], ValueError),
    (definition, "labels", LABELS + 1, ValueError),
    (definition, "labels", LABELS.clamp(min=-1), ValueError),
    (definition, "blank_token_id", -1, ValueError),
    (definition, "blank_token_id", None, TypeError),
    (definition, "delta", nan, ValueError),
    (definition, "delta", None, TypeError),
    (definition, "temperature", inf, ValueError),
    (definition, "allow_repetition", None, TypeError),
    (definition, "observed_tokens", LABELS.float(), TypeError),
    (definition, "canvas_lengths", tensor([3, 4]), ValueError),
    (definition, "observed_mask", SHOWN.long(), TypeError),
    (definition, "label_smoothing", 1.5, ValueError),
)
# fmt: on


@bad_arguments(*LOSSES)
def test_a_loss_names_what_it_cannot_take(toys, call, argument, value, error):
    check(toys, call, argument, value, error)


# Configurations.


def config(toys, **change):
    axe_hf.CmlmConfig(**({"vocab_size": 300, "d_model": 16} | change))


def settings(toys, **change):
    axe_hf.MaskPredictGenerationConfig(**change)


# fmt: off
CONFIGURATIONS = (
    (config, "vocab_size", 0, ClassError),
    (config, "vocab_size", "300", FieldError),
    (config, "vocab_size", None, FieldError),
    (config, "vocab_size", 2.5, FieldError),
    (config, "d_model", 0, ClassError),
    (config, "d_model", 16.0, FieldError),
    (config, "encoder_layers", 0, ClassError),
    (config, "encoder_layers", [6], FieldError),
    (config, "encoder_layers", 10**9, ClassError),
    (config, "decoder_layers", -1, ClassError),
    (config, "decoder_layers", 10**9, ClassError),
    (config, "encoder_attention_heads", 3, ClassError),
    (config, "encoder_attention_heads", 0, ClassError),
    (config, "decoder_attention_heads", -2, ClassError),
    (config, "decoder_attention_heads", "8", FieldError),
    (config, "encoder_ffn_dim", 0, ClassError),
    (config, "decoder_ffn_dim", None, FieldError),
    (config, "activation_function", "gelu2", ClassError),
    (config, "activation_function", None, FieldError),
    (config, "dropout", 1, ClassError),
    (config, "dropout", nan, ClassError),
    (config, "dropout", "0.1", FieldError),
    (config, "attention_dropout", -0.1, ClassError),
    (config, "activation_dropout", 1.5, ClassError),
    (config, "normalize_before", "yes", FieldError),
    (config, "position_embedding_type", "rotary", FieldError),
    (config, "scale_embedding", None, FieldError),
    (config, "layernorm_embedding", "no", FieldError),
    (config, "layer_norm_eps", "tiny", FieldError),
    (config, "layer_norm_eps", nan, ClassError),
    (config, "layer_norm_eps", -1.0, ClassError),
    (config, "init_std", "0.02", FieldError),
    (config, "init_std", -1, ClassError),
    (config, "init_std", nan, ClassError),
    (config, "max_source_length", 0, ClassError),
    (config, "max_source_length", "40", FieldError),
    (config, "max_target_length", -3, ClassError),
    (config, "max_target_length", 2.5, FieldError),
    (config, "tie_word_embeddings", "yes", FieldError),
    (config, "pad_token_id", None, ClassError),
    (config, "pad_token_id", 300, ClassError),
    (config, "eos_token_id", [1, 2], ClassError),
    (config, "eos_token_id", -1, ClassError),
    (config, "mask_token_id", None, FieldError),
    (config, "mask_token_id", 400, ClassError),
    (config, "mask_token_id", 0, ClassError),  # that of <pad>
    (config, "blank_token_id", "4", FieldError),
    (config, "blank_token_id", -1, ClassError),
    (config, "training_loss", "ctc", FieldError),
    (config, "axe_delta", -1, ClassError),
    (config, "axe_delta", "2", FieldError),
    (config, "axe_delta", nan, ClassError),
    (config, "axe_delta", -inf, ClassError),
    (config, "axe_temperature", inf, ClassError),
    (config, "axe_temperature", -0.1, ClassError),
    (config, "allow_repetition", "yes", FieldError),
    (config, "allow_repetition", None, FieldError),
    (config, "axe_temperature", -1, ClassError),
    (config, "axe_temperature", nan, ClassError),
    (config, "axe_temperature", "1", FieldError),
    (config, "allow_repetition", "no", FieldError),
    (config, "label_smoothing", 1, ClassError),
    (config, "label_smoothing", nan, ClassError),
    (config, "length_loss_weight", -0.1, ClassError),
    (config, "length_loss_weight", nan, ClassError),
    (config, "length_loss_weight", inf, ClassError),
    (config, "fused_loss", True, FieldError),
    (config, "fused_loss", "sometimes", FieldError),
    (config, "masking", "half", FieldError),
    (config, "length_multiplier", 0.0, ClassError),
    (config, "length_multiplier", inf, ClassError),
    (config, "length_jitter", 1.0, ClassError),
    (settings, "num_iterations", 0, ValueError),
    (settings, "num_iterations", 1.5, ValueError),
    (settings, "num_iterations", "4", ValueError),
    (settings, "num_iterations", None, ValueError),
    (settings, "num_iterations", True, ValueError),
    (settings, "num_iterations", 10**9, ValueError),
    (settings, "num_length_candidates", 0, ValueError),
    (settings, "num_length_candidates", "5", ValueError),
    (settings, "length_multiplier", 0, ValueError),
    (settings, "length_multiplier", nan, ValueError),
    (settings, "length_multiplier", inf, ValueError),
    (settings, "length_multiplier", "1.4", ValueError),
    (settings, "length_score_weight", nan, ValueError),
    (settings, "length_score_weight", None, ValueError),
    (settings, "schedule", "exponential", ValueError),
    (settings, "schedule", None, ValueError),
    (settings, "schedule", ["linear"], ValueError),
    (settings, "confidence_threshold", 0, ValueError),
    (settings, "confidence_threshold", 1.5, ValueError),
    (settings, "confidence_threshold", "0.5", ValueError),
    (settings, "early_stop", "yes", ValueError),
    (settings, "early_stop", None, ValueError),
    (settings, "collapse_repeats", 1, ValueError),
    (settings, "output_history", "no", ValueError),
    (settings, "compile", "max-autotune", ValueError),
    (settings, "use_onednn", "auto", ValueError),
    (settings, "min_length", -1, ValueError),
    (settings, "min_length", "3", ValueError),
    (settings, "min_length", 1.5, ValueError),
    (settings, "max_length", "10", ValueError),
    (settings, "max_length", -1, ValueError),
    (settings, "max_length", 2.5, ValueError),
    (settings, "max_length", [10], ValueError),
    (settings, "do_sample", "yes", ValueError),
    (settings, "do_sample", 2, ValueError),
    (settings, "temperature", 0, ValueError),
    (settings, "temperature", -1.0, ValueError),
    (settings, "temperature", nan, ValueError),
    (settings, "temperature", "hot", ValueError),
    (settings, "num_return_sequences", 0, ValueError),
    (settings, "num_return_sequences", "2", ValueError),
    (settings, "output_scores", "yes", ValueError),
    (settings, "return_dict_in_generate", "yes", ValueError),
    (settings, "compile_config", {"mode": "default"}, ValueError),
    (settings, "num_beams", 4, ValueError),
    (settings, "max_new_tokens", 10, ValueError),
    (settings, "no_repeat_ngram_size", 2, ValueError),
    (settings, "top_k", 5, ValueError),
    (settings, "num_iteration", 4, ValueError),
)
# fmt: on


@bad_arguments(*CONFIGURATIONS)
def test_a_configuration_names_what_it_cannot_take(toys, call, argument, value, error):
    check(toys, call, argument, value, error)


# Models.

CANVAS = tensor([[3, 3, 3], [3, 3, 0]])


def forward(toys, **change):
    toys.model(**({"input_ids": toys.source, "decoder_input_ids": CANVAS} | change))


def forward_with_labels(toys, **change):
    labels = tensor([[11, 12, 1], [11, 1, -100]])
    toys.model(**({"input_ids": toys.source, "labels": labels} | change))


def base_model(toys, **change):
    toys.model.model(**({"input_ids": toys.source, "decoder_input_ids": CANVAS} | change))


def generate(toys, **change):
    toys.model.generate(**({"input_ids": toys.source} | change))


def infill(toys, **change):
    toys.model.generate(toys.source, **change)


# fmt: off
MODELS = (
    (forward, "input_ids", None, ValueError),
    (forward, "input_ids", [[7, 8, 1]], TypeError),
    (forward, "input_ids", "one two", TypeError),
    (forward, "input_ids", np.ones((2, 4), int), TypeError),
    (forward, "input_ids", torch.ones(2, 4), TypeError),
    (forward, "input_ids", tensor([7, 8, 1]), ValueError),
    (forward, "input_ids", tensor([[7, 900, 1], [7, 8, 1]]), ValueError),
    (forward, "input_ids", tensor([[7, -1, 1], [7, 8, 1]]), ValueError),
    (forward, "input_ids", torch.ones(2, 13).long(), ValueError),
    (forward, "input_ids", torch.ones(0, 4).long(), ValueError),
    (forward, "input_ids", torch.ones(2, 0).long(), ValueError),
    (forward, "attention_mask", [[1, 1, 1, 1]] * 2, ValueError),
    (forward, "attention_mask", "all", ValueError),
    (forward, "attention_mask", torch.ones(2, 1, 4), ValueError),
    (forward, "attention_mask", torch.ones(2, 3), ValueError),
    (forward, "attention_mask", torch.ones(2, 5), ValueError),
    (forward, "attention_mask", torch.ones(1, 4), ValueError),
    (forward, "decoder_input_ids", None, ValueError),
    (forward, "decoder_input_ids", [[3, 3]], TypeError),
    (forward, "decoder_input_ids", CANVAS.float(), TypeError),
    (forward, "decoder_input_ids", CANVAS[0], ValueError),
    (forward, "decoder_input_ids", CANVAS[:1], ValueError),
    (forward, "decoder_input_ids", CANVAS + 297, ValueError),
    (forward, "decoder_input_ids", CANVAS - 3, ValueError),
    (forward, "decoder_input_ids", torch.full((2, 13), 3), ValueError),
    (forward, "decoder_input_ids", CANVAS[:, :0], ValueError),
    (forward, "decoder_attention_mask", [[1, 1, 1]] * 2, ValueError),
    (forward, "decoder_attention_mask", torch.ones(2, 4), ValueError),
    (forward_with_labels, "labels", [[7, 1], [7, 1]], TypeError),
    (forward_with_labels, "labels", torch.ones(2, 3), TypeError),
    (forward_with_labels, "labels", tensor([7, 1]), ValueError),
    (forward_with_labels, "labels", tensor([[7, 900, 1], [7, 8, 1]]), ValueError),
    (forward_with_labels, "labels", tensor([[7, -1, 1], [7, 8, 1]]), ValueError),
    (forward_with_labels, "labels", tensor([[7, 8, 1]]), ValueError),
    (forward_with_labels, "labels", torch.full((2, 13), 7), ValueError),
    (forward_with_labels, "labels", tensor([[7, 4, 1], [7, 8, 1]]), ValueError),  # the blank
    (forward_with_labels, "num_items_in_batch", 0, ValueError),
    (forward_with_labels, "num_items_in_batch", "3", ValueError),
    (forward_with_labels, "num_items_in_batch", nan, ValueError),
    (base_model, "input_ids", [[7, 8, 1]], TypeError),
    (base_model, "input_ids", tensor([[7, 900, 1], [7, 8, 1]]), ValueError),
    (base_model, "decoder_input_ids", CANVAS.float(), TypeError),
    (base_model, "decoder_input_ids", CANVAS + 900, ValueError),
    (generate, "input_ids", None, ValueError),
    (generate, "input_ids", [[7, 8, 1]], TypeError),
    (generate, "input_ids", "one two", TypeError),
    (generate, "input_ids", ["one two"], TypeError),
    (generate, "input_ids", np.ones((2, 4), int), TypeError),
    (generate, "input_ids", torch.ones(2, 4), TypeError),
    (generate, "input_ids", torch.ones(2, 4).bool(), TypeError),
    (generate, "input_ids", tensor([7, 8, 1]), ValueError),
    (generate, "input_ids", tensor([[7, 900, 1]]), ValueError),
    (generate, "input_ids", tensor([[7, -1, 1]]), ValueError),
    (generate, "input_ids", torch.ones(2, 13).long(), ValueError),
    (generate, "input_ids", torch.ones(0, 4).long(), ValueError),
    (generate, "input_ids", torch.ones(2, 0).long(), ValueError),
    (generate, "attention_mask", [[1, 1, 1, 1]] * 2, ValueError),
    (generate, "attention_mask", 1, ValueError),
    (generate, "attention_mask", torch.ones(2, 3), ValueError),
    (generate, "attention_mask", torch.ones(2, 1, 4), ValueError),
    (generate, "attention_mask", tensor([[0, 1, 1, 1], [1, 1, 1, 0]]), ValueError),
    (generate, "generation_config", {}, TypeError),
    (generate, "generation_config", {"num_iterations": 4}, TypeError),
    (generate, "generation_config", "config", TypeError),
    (generate, "generation_config", 4, TypeError),
    (generate, "encoder_outputs", "states", ValueError),
    (generate, "encoder_outputs", torch.zeros(2, 4, 16), ValueError),
    (generate, "encoder_outputs", (torch.zeros(2, 4, 16),), ValueError),
    (generate, "generator", 5, ValueError),
    (generate, "generator", torch.Generator(), ValueError),  # without do_sample
    (generate, "streamer", print, ValueError),  # of two sentences
    (infill, "decoder_input_ids", [[3, 3], [3, 3]], TypeError),
    (infill, "decoder_input_ids", CANVAS.float(), TypeError),
    (infill, "decoder_input_ids", CANVAS[:1], ValueError),
    (infill, "decoder_input_ids", CANVAS[0], ValueError),
    (infill, "decoder_input_ids", CANVAS[:, :0], ValueError),
    (infill, "decoder_input_ids", CANVAS - 4, ValueError),
    (infill, "decoder_input_ids", CANVAS.flip(1), ValueError),
    (infill, "decoder_input_ids", torch.full((2, 13), 3), ValueError),
    (infill, "decoder_input_ids", CANVAS * 300, ValueError),
    (infill, "target_lengths", tensor([3.0, 2.0]), TypeError),
    (infill, "target_lengths", 3, ValueError),
    (infill, "target_lengths", [3], ValueError),
    (infill, "target_lengths", "3", TypeError),
    (infill, "target_lengths", [2**70, 3], TypeError),
    (infill, "target_lengths", [3, 0], ValueError),
    (infill, "target_lengths", [3, 13], ValueError),
    (infill, "num_iterations", 0, ValueError),
    (infill, "num_iterations", "4", ValueError),
    (infill, "max_length", "10", ValueError),
    (infill, "max_length", 0, ValueError),
    (infill, "min_length", "3", ValueError),
    (infill, "min_length", 13, ValueError),
    (infill, "temperature", 2.0, ValueError),  # without do_sample
    (infill, "suppress_tokens", ["7"], TypeError),
    (infill, "suppress_tokens", [300], ValueError),
    (infill, "suppress_tokens", list(range(300)), ValueError),
    (infill, "num_return_sequences", 2, ValueError),
    (infill, "compile_config", "default", ValueError),
    (infill, "num_beams", 5, ValueError),
    (infill, "do_sampel", True, TypeError),
    (infill, "rescore_with", "teacher", TypeError),
)
# fmt: on


@bad_arguments(*MODELS)
def test_a_model_names_what_it_cannot_take(toys, call, argument, value, error):
    check(toys, call, argument, value, error)


# Translating.


def translate(toys, **change):
    good = {"model": toys.model, "tokenizer": toys.tokenizer, "texts": ["a"]}
    axe_hf.translate(**(good | change))


def pipeline(toys, **change):
    axe_hf.CmlmTranslationPipeline(**({"model": toys.model, "tokenizer": toys.tokenizer} | change))


def call_pipeline(toys, inputs="one", **settings):
    axe_hf.CmlmTranslationPipeline(toys.model, toys.tokenizer)(inputs, **settings)


def rescore(toys, **change):
    good = {"model": toys.rescorer, "tokenizer": toys.tokenizer, "sources": ["a"]}
    rescoring.autoregressive_scores(**(good | {"candidates": [["b", "c"]]} | change))


# fmt: off
TRANSLATING = (
    (translate, "model", None, TypeError),
    (translate, "model", "my_model", TypeError),
    (translate, "model", torch.nn.Linear(2, 2), TypeError),
    (translate, "model", lambda toys: toys.rescorer, TypeError),
    (translate, "tokenizer", None, TypeError),
    (translate, "tokenizer", "my_model", TypeError),
    (translate, "tokenizer", lambda toys: toys.model, TypeError),
    (translate, "texts", "one two", TypeError),
    (translate, "texts", b"one two", TypeError),
    (translate, "texts", None, TypeError),
    (translate, "texts", 5, TypeError),
    (translate, "texts", {"one two"}, TypeError),
    (translate, "texts", {"en": "one two"}, TypeError),
    (translate, "texts", ["one", None], TypeError),
    (translate, "texts", [b"one"], TypeError),
    (translate, "texts", [["one"]], TypeError),
    (translate, "batch_size", 0, ValueError),
    (translate, "batch_size", "8", ValueError),
    (translate, "batch_size", 1.5, ValueError),
    (translate, "batch_size", None, ValueError),
    (translate, "max_tokens_per_batch", -1, ValueError),
    (translate, "max_tokens_per_batch", nan, ValueError),
    (translate, "rescore_with", "teacher", TypeError),
    (translate, "rescore_with", lambda toys: toys.rescorer, TypeError),
    (translate, "rescore_with", lambda toys: (toys.rescorer,), TypeError),
    (translate, "num_iterations", 0, ValueError),
    (translate, "num_iterations", "4", ValueError),
    (translate, "max_length", "10", ValueError),
    (translate, "length_multiplier", inf, ValueError),
    (translate, "schedule", "fast", ValueError),
    (translate, "generation_config", {}, TypeError),
    (translate, "generation_config", {"num_iterations": 4}, TypeError),
    (translate, "generator", 5, ValueError),
    (translate, "target_lengths", [3], ValueError),
    (translate, "streamer", print, ValueError),
    (translate, "decoder_input_ids", CANVAS, ValueError),
    (translate, "num_iteration", 4, TypeError),
    (translate, "num_beams", 4, ValueError),
    (pipeline, "model", None, TypeError),
    (pipeline, "model", "my_model", TypeError),
    (pipeline, "model", lambda toys: toys.rescorer, TypeError),
    (pipeline, "tokenizer", None, TypeError),
    (pipeline, "tokenizer", "my_model", TypeError),
    (call_pipeline, "inputs", None, TypeError),
    (call_pipeline, "inputs", 5, TypeError),
    (call_pipeline, "inputs", [None], TypeError),
    (call_pipeline, "inputs", ["one", 5], TypeError),
    (call_pipeline, "inputs", b"one", TypeError),
    (call_pipeline, "inputs", {"text": "one"}, TypeError),
    (call_pipeline, "num_iterations", 0, ValueError),
    (call_pipeline, "num_iteration", 4, TypeError),
    (call_pipeline, "max_length", "10", ValueError),
    (call_pipeline, "num_beams", 4, ValueError),
    (call_pipeline, "generation_config", {}, TypeError),
    (rescore, "model", None, TypeError),
    (rescore, "model", "teacher", TypeError),
    (rescore, "model", lambda toys: toys.model, TypeError),
    (rescore, "tokenizer", None, TypeError),
    (rescore, "sources", None, TypeError),
    (rescore, "sources", "a", TypeError),
    (rescore, "sources", [5], TypeError),
    (rescore, "sources", ["a", "b"], ValueError),
    (rescore, "candidates", None, TypeError),
    (rescore, "candidates", ["b"], TypeError),
    (rescore, "candidates", [[5]], TypeError),
    (rescore, "candidates", [], ValueError),
    (rescore, "max_logits_elements", 0, ValueError),
    (rescore, "max_logits_elements", "all", ValueError),
)
# fmt: on


@bad_arguments(*TRANSLATING)
def test_translating_names_what_it_cannot_take(toys, call, argument, value, error):
    check(toys, call, argument, value, error)


# Data.


def collator(toys, **change):
    good = {"tokenizer": toys.tokenizer, "masking": "full"}
    axe_hf.DataCollatorForCmlm(**(good | change))(toys.rows)


def collate(toys, features):
    axe_hf.DataCollatorForCmlm(toys.tokenizer)(features)


def batches(toys, **change):
    list(axe_hf.MaxTokensBatchSampler(**({"lengths": [3, 4, 5], "max_tokens": 10} | change)))


def tokenize(toys, **change):
    good = {"dataset": toys.pairs, "tokenizer": toys.tokenizer, "source_lang": "en"}
    good |= {"target_lang": "de", "max_source_length": 8, "max_target_length": 8}
    axe_hf.tokenize_translations(**(good | change))


def train_tokenizer(toys, **change):
    axe_hf.train_tokenizer(**({"texts": ["one two"] * 5, "vocab_size": 300} | change))


def load(toys, **change):
    good = {"source": axe_hf.data.PHRASEBOOK / "test.jsonl.gz"}
    axe_hf.load_translations(**(good | {"source_lang": "en", "target_lang": "de"} | change))


def metric(toys, **change):
    axe_hf.TranslationMetric(**change)


def score(toys, **change):
    axe_hf.TranslationMetric().compute(**({"predictions": ["a"], "references": ["b"]} | change))


# fmt: off
DATA_MAKERS = (
    (collator, "tokenizer", None, ValueError),
    (collator, "tokenizer", "my_model", ValueError),
    (collator, "masking", "half", ValueError),
    (collator, "masking", None, ValueError),
    (collator, "pad_to_multiple_of", 0, ValueError),
    (collator, "pad_to_multiple_of", "8", ValueError),
    (collator, "pad_to_multiple_of", 1.5, ValueError),
    (collator, "length_multiplier", 0, ValueError),
    (collator, "length_multiplier", -1, ValueError),
    (collator, "length_multiplier", nan, ValueError),
    (collator, "length_multiplier", inf, ValueError),
    (collator, "length_multiplier", "1.4", ValueError),
    (collator, "allow_repetition", 1, ValueError),
    (collator, "allow_repetition", None, ValueError),
    (collator, "length_jitter", 1, ValueError),
    (collator, "length_jitter", -0.1, ValueError),
    (collator, "length_jitter", nan, ValueError),
    (collator, "length_jitter", "0.2", ValueError),
    (collator, "max_canvas_length", 0, ValueError),
    (collator, "max_canvas_length", -1, ValueError),
    (collator, "max_canvas_length", "20", ValueError),
    (collate, "features", None, ValueError),
    (collate, "features", [], ValueError),
    (collate, "features", 5, ValueError),
    (collate, "features", ["one two"], ValueError),
    (batches, "lengths", None, ValueError),
    (batches, "lengths", 5, ValueError),
    (batches, "lengths", "345", ValueError),
    (batches, "lengths", [], ValueError),
    (batches, "lengths", [3, 0], ValueError),
    (batches, "lengths", [3.5], ValueError),
    (batches, "lengths", [(3, 4), (5,)], ValueError),
    (batches, "lengths", [(3, 4, 5)], ValueError),
    (batches, "lengths", [None, 3], ValueError),
    (batches, "max_tokens", 4, ValueError),
    (batches, "max_tokens", 0, ValueError),
    (batches, "max_tokens", nan, ValueError),
    (batches, "max_tokens", inf, ValueError),
    (batches, "max_tokens", "10", ValueError),
    (batches, "max_tokens", None, ValueError),
    (batches, "num_replicas", 0, ValueError),
    (batches, "num_replicas", 5, ValueError),
    (batches, "num_replicas", "2", ValueError),
    (batches, "num_replicas", 1.5, ValueError),
    (tokenize, "dataset", None, ValueError),
    (tokenize, "dataset", [{"translation": {"en": "a", "de": "b"}}], ValueError),
    (tokenize, "dataset", lambda toys: toys.pairs.remove_columns("translation"), ValueError),
    (tokenize, "dataset", lambda toys: toys.pairs.select([]), ValueError),
    (tokenize, "tokenizer", None, TypeError),
    (tokenize, "tokenizer", "my_model", TypeError),
    (tokenize, "source_lang", "fr", ValueError),
    (tokenize, "source_lang", None, ValueError),
    (tokenize, "target_lang", 5, ValueError),
    (tokenize, "max_source_length", 1, ValueError),
    (tokenize, "max_source_length", "8", ValueError),
    (tokenize, "max_source_length", None, ValueError),
    (tokenize, "max_target_length", 0, ValueError),
    (tokenize, "max_target_length", 8.5, ValueError),
    (train_tokenizer, "texts", "one two", TypeError),
    (train_tokenizer, "texts", None, TypeError),
    (train_tokenizer, "texts", 5, TypeError),
    (train_tokenizer, "texts", ["one", None], TypeError),
    (train_tokenizer, "texts", [b"one"], TypeError),
    (train_tokenizer, "texts", [], ValueError),
    (train_tokenizer, "texts", ["", " "], ValueError),
    (train_tokenizer, "texts", [SURROGATE], ValueError),
    (train_tokenizer, "vocab_size", 100, ValueError),
    (train_tokenizer, "vocab_size", -1, ValueError),
    (train_tokenizer, "vocab_size", "300", ValueError),
    (train_tokenizer, "vocab_size", None, ValueError),
    (train_tokenizer, "vocab_size", 300.5, ValueError),
    (train_tokenizer, "algorithm", "wordpiece", ValueError),
    (train_tokenizer, "algorithm", None, ValueError),
    (train_tokenizer, "min_frequency", "2", ValueError),
    (train_tokenizer, "min_frequency", 1.5, ValueError),
    (train_tokenizer, "min_frequency", -1, ValueError),
    (train_tokenizer, "min_frequency", None, ValueError),
    (load, "source", None, ValueError),
    (load, "source", 5, ValueError),
    (load, "source", "", ValueError),
    (load, "source", (), ValueError),
    (load, "source", ("a.en",), ValueError),
    (load, "source", (None, None), ValueError),
    (load, "source", ("a.en", 5), ValueError),
    (load, "source", "nowhere.tsv", FileNotFoundError),
    (load, "source", "nowhere.en,nowhere.de", FileNotFoundError),
    (load, "source", __file__, ValueError),
    (load, "source_lang", "de", ValueError),  # that of the target
    (load, "source_lang", "fr", ValueError),
    (load, "source_lang", None, ValueError),
    (load, "target_lang", 5, ValueError),
    (load, "split", "test", ValueError),
    (metric, "tokenize", "14a", ValueError),
    (metric, "tokenize", None, ValueError),
    (metric, "tokenize", ["13a"], ValueError),
    (metric, "num_process", 0, ValueError),
    (score, "predictions", None, ValueError),
    (score, "predictions", "a", TypeError),
    (score, "predictions", [5], TypeError),
    (score, "predictions", [None], TypeError),
    (score, "predictions", ["a", "b"], ValueError),
    (score, "predictions", [SURROGATE], ValueError),
    (score, "references", None, ValueError),
    (score, "references", "b", TypeError),
    (score, "references", [5], TypeError),
    (score, "references", [None], ValueError),
    (score, "references", [[]], ValueError),
    (score, "references", [[5]], TypeError),
    (score, "references", [["b"], ["c"]], ValueError),
    (score, "references", [[SURROGATE]], ValueError),
)
# fmt: on


@bad_arguments(*DATA_MAKERS)
def test_what_makes_data_names_what_it_cannot_take(toys, call, argument, value, error):
    check(toys, call, argument, value, error)


# fmt: off
COLUMNS = (
    ("input_ids", None),
    ("input_ids", []),
    ("input_ids", 5),
    ("input_ids", "one"),
    ("input_ids", [[7, 1]]),
    ("input_ids", [7.5, 1]),
    ("input_ids", [-1, 1]),
    ("labels", None),
    ("labels", []),
    ("labels", 5),
    ("labels", ["one"]),
    ("labels", [7.5, 1]),
    ("labels", [-1, 1]),
    ("labels", [0, 1]),  # <pad>
    ("labels", [3, 1]),  # <mask>
    ("labels", [4, 1]),  # <blank>
)
# fmt: on


@pytest.mark.parametrize(("column", "ids"), COLUMNS)
def test_the_collator_names_the_column_that_it_cannot_take(toys, column, ids):
    feature = {"input_ids": [7, 1], "labels": [11, 1]} | {column: ids}
    refused(ValueError, column, axe_hf.DataCollatorForCmlm(toys.tokenizer), [feature])


DEEP = "[" * 100_000 + "]" * 100_000
GOOD = '{"translation": {"en": "one", "de": "eins"}}\n'
NO_PAIR = '{"translation": {"en": "one", "de": 5}}\n'


# fmt: off
DATA_FILES = (
    ("a.jsonl", "", "a.jsonl"),
    ("a.jsonl", "\n\n", "a.jsonl"),
    ("a.jsonl", "{", "a.jsonl, line 1"),
    ("a.jsonl", GOOD + "one\teins\n", "a.jsonl, line 2"),
    ("a.jsonl", GOOD + "5\n", "a.jsonl, line 2"),
    ("a.jsonl", GOOD + "null\n", "a.jsonl, line 2"),
    ("a.jsonl", GOOD + '{"en": "one", "de": "eins"}\n', "a.jsonl, line 2"),
    ("a.jsonl", GOOD + '{"translation": ["one", "eins"]}\n', "a.jsonl, line 2"),
    ("a.jsonl", GOOD + '{"translation": {"en": "one"}}\n', "a.jsonl, line 2"),
    ("a.jsonl", GOOD + NO_PAIR, "a.jsonl, line 2"),
    ("a.jsonl", GOOD + NO_PAIR.replace("5", "null"), "a.jsonl, line 2"),
    ("a.jsonl", GOOD + NO_PAIR.replace("5", r'"\ud83d"'), "a.jsonl, line 2"),
    ("a.jsonl", GOOD + GOOD.strip()[:-1] + ', "references": "eins"}', "a.jsonl, line 2"),
    ("a.jsonl", GOOD + GOOD.strip()[:-1] + ', "references": []}', "a.jsonl, line 2"),
    ("a.jsonl", GOOD + GOOD.strip()[:-1] + ', "references": [5]}', "a.jsonl, line 2"),
    ("a.jsonl", GOOD + GOOD.strip()[:-1] + r', "references": ["\ud83d"]}', "a.jsonl, line 2"),
    ("a.jsonl", GOOD + DEEP, "a.jsonl, line 2"),
    ("a.jsonl", GOOD + '{"a":' * 100_000, "a.jsonl, line 2"),
    ("a.jsonl", GOOD + "1" * 5000, "a.jsonl, line 2"),
    ("a.jsonl", GOOD.encode() + b"\xff\n", "a.jsonl, line 2"),
    ("a.jsonl", GOOD.encode("utf-16"), "a.jsonl, line 1"),
    ("a.jsonl.gz", GOOD, "a.jsonl.gz"),
    ("a.jsonl.gz", gzip.compress(GOOD.encode(), mtime=0)[:-9], "a.jsonl.gz"),
    ("a.json", "[", "a.json"),
    ("a.json", f"[{GOOD}, 5]", "a.json, item 2"),
    ("a.json", "[]", "a.json"),
    ("a.json", DEEP, "a.json"),
    ("a.json", f"[{GOOD}, {DEEP}]", "a.json"),
    ("a.tsv", "", "a.tsv"),
    ("a.tsv", "one eins\n", "a.tsv, line 1"),
    ("a.tsv", "one\teins\ntwo\n", "a.tsv, line 2"),
    ("a.tsv", "one\teins\ntwo\tzwei\tdos\n", "a.tsv, line 2"),
    ("a.tsv", "one\teins\n\tzwei\n", "a.tsv, line 2"),
    ("a.tsv", b"one\teins\n\xe4\t\xf6\n", "a.tsv, line 2"),
    ("a.csv", "one,eins\none,two,zwei\n", "a.csv, line 2"),
    ("a.csv", 'one,eins\n"one, two\n', "a.csv, line 2"),
    ("a.parquet", "one,eins\n", "a.parquet"),
    ("a", "one\teins\n", "a"),
)
# fmt: on


@pytest.mark.parametrize(("name", "content", "place"), DATA_FILES)
def test_a_data_file_is_refused_with_file_and_line(name, content, place, tmp_path):
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(content)
    how = {"source_lang": "en", "target_lang": "de"}
    refused(ValueError, str(tmp_path / place), axe_hf.load_translations, tmp_path / name, **how)


# Training.


def arguments(toys, **change):
    axe_hf.AxeTrainingArguments(**({"output_dir": str(toys.folder / "run")} | change))


def data_arguments(toys, **change):
    good = {"source_lang": "en", "target_lang": "de", "train_file": "train.tsv"}
    axe_hf.DataArguments(**(good | change))


def trainer(toys, **change):
    good = {"model": toys.model, "args": toys.arguments, "processing_class": toys.tokenizer}
    axe_hf.AxeTrainer(**(good | {"train_dataset": toys.rows} | change))


def small_batches(toys, train_dataset):
    args = axe_hf.AxeTrainingArguments(str(toys.folder / "run"), max_tokens_per_batch=50)
    good = {"model": toys.model, "args": args, "processing_class": toys.tokenizer}
    axe_hf.AxeTrainer(**good, train_dataset=train_dataset).get_train_dataloader()


def resume(toys, resume_from_checkpoint):
    good = {"model": toys.model, "args": toys.arguments, "processing_class": toys.tokenizer}
    axe_hf.AxeTrainer(**good, train_dataset=toys.rows).train(resume_from_checkpoint)


def average(toys, **change):
    axe_hf.average_checkpoints(**({"checkpoints": [toys.folder / "nowhere"]} | change))


def ema(toys, **change):
    axe_hf.EmaCallback(**change)


# fmt: off
TRAINING = (
    (arguments, "masking", "half", ValueError),
    (arguments, "masking", 5, ValueError),
    (arguments, "length_multiplier", 0, ValueError),
    (arguments, "length_multiplier", nan, ValueError),
    (arguments, "length_multiplier", inf, ValueError),
    (arguments, "length_multiplier", "1.4", ValueError),
    (arguments, "align_first", 1.1, ValueError),
    (arguments, "align_first", nan, ValueError),
    (arguments, "cross_entropy_first", 1.1, ValueError),
    (arguments, "freeze", ["length head"], ValueError),
    (arguments, "num_iterations", 0, ValueError),
    (arguments, "num_iterations", 2.0, ValueError),
    (arguments, "length_jitter", 1, ValueError),
    (arguments, "length_jitter", "0.2", ValueError),
    (arguments, "max_tokens_per_batch", 0, ValueError),
    (arguments, "max_tokens_per_batch", nan, ValueError),
    (arguments, "max_tokens_per_batch", "500", ValueError),
    (arguments, "ema_decay", 0, ValueError),
    (arguments, "ema_decay", 1, ValueError),
    (arguments, "ema_decay", nan, ValueError),
    (arguments, "ema_decay", "0.999", ValueError),
    (arguments, "train_minutes", 0, ValueError),
    (arguments, "train_minutes", nan, ValueError),
    (arguments, "train_minutes", inf, ValueError),
    (arguments, "train_minutes", "10", ValueError),
    (arguments, "label_smoothing_factor", 1, ValueError),
    (arguments, "label_smoothing_factor", nan, ValueError),
    (arguments, "learning_rate", nan, ValueError),
    (arguments, "learning_rate", -1.0, ValueError),
    (arguments, "learning_rate", "fast", ValueError),
    (arguments, "weight_decay", inf, ValueError),
    (arguments, "adam_epsilon", nan, ValueError),
    (arguments, "warmup_steps", -1, ValueError),
    (arguments, "warmup_steps", nan, ValueError),
    (arguments, "max_grad_norm", nan, ValueError),
    (arguments, "num_train_epochs", nan, ValueError),
    (arguments, "num_train_epochs", -1, ValueError),
    (arguments, "gradient_accumulation_steps", 0, ValueError),
    (arguments, "gradient_accumulation_steps", -1, ValueError),
    (arguments, "per_device_train_batch_size", 0, ValueError),
    (arguments, "per_device_eval_batch_size", -1, ValueError),
    (data_arguments, "train_file", None, ValueError),
    (data_arguments, "dataset_name", "owner/name", ValueError),  # beside a file
    (data_arguments, "validation_split", "validation", ValueError),
    (data_arguments, "test_split", "test", ValueError),
    (data_arguments, "max_source_length", 1, ValueError),
    (data_arguments, "max_source_length", "40", ValueError),
    (data_arguments, "max_target_length", nan, ValueError),
    (data_arguments, "vocab_size", 0, ValueError),
    (data_arguments, "vocab_size", "8000", ValueError),
    (trainer, "model", None, RuntimeError),  # that of Transformers
    (trainer, "model", "my_model", TypeError),
    (trainer, "model", torch.nn.Linear(2, 2), TypeError),
    (trainer, "model", lambda toys: toys.rescorer, TypeError),
    (trainer, "model", lambda toys: toys.model.model, TypeError),
    (trainer, "args", "run", TypeError),
    (trainer, "args", {"output_dir": "run"}, TypeError),
    (trainer, "args", lambda toys: TrainingArguments(str(toys.folder / "run")), TypeError),
    (trainer, "processing_class", None, ValueError),
    (trainer, "processing_class", "my_model", TypeError),
    (small_batches, "train_dataset", iter([]), ValueError),
    (small_batches, "train_dataset", lambda toys: toys.pairs, ValueError),
    (small_batches, "train_dataset", [{"input_ids": [1]}], ValueError),
    (small_batches, "train_dataset", [{"text": "one two"}], ValueError),
    (resume, "resume_from_checkpoint", "last", ValueError),
    (resume, "resume_from_checkpoint", True, ValueError),
    (resume, "resume_from_checkpoint", "nowhere", ValueError),
    (resume, "resume_from_checkpoint", lambda toys: toys.folder / "full", ValueError),
    (average, "checkpoints", None, ValueError),
    (average, "checkpoints", "run", ValueError),
    (average, "checkpoints", [], ValueError),
    (average, "checkpoints", ["nowhere"], ValueError),
    (ema, "decay", 0, ValueError),
    (ema, "decay", 1, ValueError),
    (ema, "decay", nan, ValueError),
    (ema, "decay", "0.999", ValueError),
    (ema, "decay", None, ValueError),
)
# fmt: on


@bad_arguments(*TRAINING)
def test_training_names_what_it_cannot_take(toys, call, argument, value, error):
    check(toys, call, argument, value, error)


# What is made of a model: files, graphs, pictures.


def save(toys, **change):
    good = {"model": toys.model, "tokenizer": toys.tokenizer, "directory": toys.folder / "new"}
    save_pretrained_with_code(**(good | change))


def push(toys, **change):
    good = {"model": toys.model, "tokenizer": toys.tokenizer, "repo_id": "me/model"}
    axe_hf.push_to_hub_with_code(**(good | change))


def quantize(toys, **change):
    axe_hf.quantize_int8(**change)


def export_encoder(toys, **change):
    axe_hf.ExportableEncoder(**change)


def export_step(toys, **change):
    axe_hf.ExportableDecoderStep(**change)


def export_decoding(toys, **change):
    axe_hf.ExportableMaskPredict(**({"model": toys.model} | change))


def export_program(toys, **change):
    axe_hf.export_program(**change)


def export_onnx(toys, **change):
    pytest.importorskip("onnxscript")
    axe_hf.export_onnx(**({"model": toys.model, "folder": toys.folder / "onnx"} | change))


def export_model(toys, **change):
    pytest.importorskip("onnxscript")
    axe_hf.export_model(**({"model": toys.model, "folder": toys.folder / "exported"} | change))


def format_history(toys, **change):
    axe_hf.format_history(**({"output": toys.output, "tokenizer": toys.tokenizer} | change))


def plot_history(toys, **change):
    axe_hf.plot_history(**({"output": toys.output, "tokenizer": toys.tokenizer} | change))


def plot_alignment(toys, **change):
    good = {"logits_or_model": torch.zeros(3, len(toys.tokenizer)), "labels": [11, 1]}
    good |= {"tokenizer": toys.tokenizer, "delta": 2.0}
    axe_hf.plot_alignment(**(good | change))


def plot_alignment_of_model(toys, **change):
    good = {"logits_or_model": toys.model, "labels": [11, 1], "tokenizer": toys.tokenizer}
    axe_hf.plot_alignment(**(good | {"input_ids": [7, 1]} | change))


def plot_losses(toys, **change):
    axe_hf.plot_losses(**change)


# fmt: off
FILES_AND_PICTURES = (
    (save, "model", None, TypeError),
    (save, "model", lambda toys: toys.rescorer, TypeError),
    (save, "tokenizer", "my_model", TypeError),
    (save, "directory", lambda toys: toys.folder / "full", FileExistsError),
    (save, "directory", lambda toys: toys.folder / "full" / "file", FileExistsError),
    (push, "model", None, TypeError),
    (push, "model", torch.nn.Linear(2, 2), TypeError),
    (push, "tokenizer", None, TypeError),
    (quantize, "model", None, TypeError),
    (quantize, "model", torch.nn.Linear(2, 2), TypeError),
    (quantize, "model", lambda toys: toys.rescorer, TypeError),
    (export_encoder, "model", None, TypeError),
    (export_encoder, "model", lambda toys: toys.model.model, TypeError),
    (export_step, "model", lambda toys: toys.rescorer, TypeError),
    (export_decoding, "model", None, TypeError),
    (export_decoding, "num_length_candidates", 5, ValueError),
    (export_decoding, "early_stop", True, ValueError),
    (export_decoding, "num_iterations", 0, ValueError),
    (export_decoding, "max_length", "10", ValueError),
    (export_decoding, "max_lenght", 10, TypeError),
    (export_program, "module", None, TypeError),
    (export_program, "module", lambda toys: toys.model, TypeError),
    (export_onnx, "model", None, TypeError),
    (export_onnx, "folder", lambda toys: toys.folder / "full" / "file", FileExistsError),
    (export_onnx, "num_iteration", 4, TypeError),
    (export_model, "model", None, TypeError),
    (export_model, "folder", lambda toys: toys.folder / "full" / "file", FileExistsError),
    (export_model, "compile", True, ValueError),
    (format_history, "output", None, ValueError),
    (format_history, "output", tensor([[7, 1]]), ValueError),
    (format_history, "output", axe_hf.MaskPredictOutput(), ValueError),
    (format_history, "sentence", 2, ValueError),
    (format_history, "sentence", -1, ValueError),
    (format_history, "sentence", "first", ValueError),
    (format_history, "sentence", 0.5, ValueError),
    (plot_history, "output", None, ValueError),
    (plot_history, "sentence", 2, ValueError),
    (plot_history, "sentence", None, ValueError),
    (plot_alignment, "logits_or_model", None, TypeError),
    (plot_alignment, "logits_or_model", [[0.0]], TypeError),
    (plot_alignment, "logits_or_model", torch.zeros(1, 3, 300), ValueError),
    (plot_alignment, "labels", [], ValueError),
    (plot_alignment, "labels", [[11, 1]], ValueError),
    (plot_alignment, "labels", [900, 1], ValueError),
    (plot_alignment, "tokenizer", None, ValueError),
    (plot_alignment, "delta", None, TypeError),
    (plot_alignment, "delta", -1, ValueError),
    (plot_alignment, "input_ids", [7, 1], TypeError),
    (plot_alignment_of_model, "input_ids", None, TypeError),
    (plot_alignment_of_model, "input_ids", [[7, 1]], ValueError),
    (plot_alignment_of_model, "input_ids", [900], ValueError),
    (plot_alignment_of_model, "decoder_input_ids", [], ValueError),
    (plot_alignment_of_model, "decoder_input_ids", [7, 3], ValueError),
    (plot_losses, "log_histories", None, TypeError),
    (plot_losses, "log_histories", [{"loss": 1.0}], TypeError),
    (plot_losses, "log_histories", {}, ValueError),
    (plot_losses, "log_histories", {"run": []}, ValueError),
)
# fmt: on


@bad_arguments(*FILES_AND_PICTURES)
def test_files_graphs_and_pictures_name_what_they_cannot_take(toys, call, argument, value, error):
    check(toys, call, argument, value, error)


def test_a_quantized_model_says_that_it_cannot_be_saved(toys, tmp_path):
    quantized = axe_hf.quantize_int8(toys.model)
    refused(TypeError, "quantize_int8", quantized.save_pretrained, tmp_path / "new")
    refused(TypeError, "quantize_int8", save, toys, model=quantized, directory=tmp_path / "new")
    assert not (tmp_path / "new").exists()
