import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

ARCHITECTURES = {
    "default": {},
    "pre-norm": {"normalize_before": True},
    "sinusoidal": {"position_embedding_type": "sinusoidal"},
    "untied": {"tie_word_embeddings": False},
    "layernorm_embedding": {"layernorm_embedding": True},
    "scaled": {"scale_embedding": True, "activation_function": "relu"},
    "deep encoder": {"encoder_layers": 3, "decoder_layers": 1},
    "all at once": {
        "normalize_before": True,
        "position_embedding_type": "sinusoidal",
        "tie_word_embeddings": False,
        "layernorm_embedding": True,
        "scale_embedding": True,
    },
}


@pytest.fixture(params=ARCHITECTURES.values(), ids=ARCHITECTURES)
def architecture(request):
    """Every choice of architecture that the configuration offers."""
    return request.param


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
def make_batch(make_sources):
    """Three sentences and canvases that are partly masked, with or without padding."""

    def make(padded=True, seed=0):
        lengths = ([9, 4, 6], [5, 8, 2]) if padded else ([7] * 3, [6] * 3)
        sources = make_sources(lengths[0], seed=seed)
        canvases = make_sources(lengths[1], seed=seed + 1)["input_ids"]
        canvases[:, ::2] = canvases[:, ::2].clamp(max=3)
        return {**sources, "decoder_input_ids": canvases}

    return make


class Allocations(TorchDispatchMode):
    """Notes the size of every new piece of memory."""

    def __init__(self, *known):
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.sizes, self.keep = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        for tensor in outputs if isinstance(outputs, tuple | list) else [outputs]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.known:
                    self.known.add(storage.data_ptr())
                    self.keep.append(tensor)  # else its address is used again
                    self.sizes.append(storage.nbytes())
        return outputs


@pytest.fixture
def allocations_of():
    """A context that notes the size of every piece of memory that is new, but for that of its arguments."""
    return Allocations
