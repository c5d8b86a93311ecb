import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

PAD, EOS, UNK, MASK, BLANK = range(5)

ARCHITECTURES = {
    "default": {},
    "pre-norm": {"normalize_before": True},
    "sinusoidal": {"position_embedding_type": "sinusoidal"},
    "untied": {"tie_word_embeddings": False},
    "layernorm_embedding": {"layernorm_embedding": True},
    "scaled": {"scale_embedding": True, "activation_function": "relu"},
    "deep encoder": {"encoder_layers": 3, "decoder_layers": 1},
    "output bias": {"output_bias": True},
    "hidden length": {"hide_length_token": True},
    "all at once": {
        "output_bias": True,
        "hide_length_token": True,
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
def make_batch(make_sources):
    """Three sentences and canvases that are partly masked, with or without padding."""

    def make(padded=True, seed=0):
        lengths = ([9, 4, 6], [5, 8, 2]) if padded else ([7] * 3, [6] * 3)
        sources = make_sources(lengths[0], seed=seed)
        canvases = make_sources(lengths[1], seed=seed + 1)["input_ids"]
        canvases[:, ::2] = canvases[:, ::2].clamp(max=3)
        return {**sources, "decoder_input_ids": canvases}

    return make


@pytest.fixture(scope="session")
def decode_by_reference():
    """Fills in the canvases of one sentence: the canvases and the number of passes.

    The reference encodes the source in every pass, each time to the same states: here once.
    """
    from axe_hf.reference import mask_predict_reference

    @torch.no_grad()
    def decode(model, source, *args, **kwargs):
        encoded = model.get_encoder()(torch.tensor([source]))

        def decoder(input_ids, decoder_input_ids):
            assert input_ids.tolist() == [[*source]]
            return model(encoder_outputs=encoded, decoder_input_ids=decoder_input_ids)

        decoder.config = model.config
        return mask_predict_reference(decoder, source, *args, **kwargs)

    return decode


@pytest.fixture(scope="session")
def most_probable_lengths():
    """Lengths of the length head, the most probable first, and their log-probabilities."""

    @torch.no_grad()
    def lengths(model, source, number):
        outputs = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[MASK]]))
        log_probs = outputs.length_logits[0].log_softmax(dim=-1)
        order = log_probs[1:].argsort(descending=True, stable=True)[:number] + 1
        return order.tolist(), log_probs[order].tolist()

    return lengths


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
    """A context that notes the size of every piece of memory that is new, but for that of its
    arguments."""
    return Allocations
