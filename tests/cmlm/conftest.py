import math

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


# Mask-Predict for one sentence, written from the paper without batches, caches or tricks.


class ReferenceCanvas:
    """One canvas: `tokens` and `log_probs` are lists, `open` and `masked` lists of positions."""

    def __init__(self, tokens):
        self.tokens = list(tokens)
        self.log_probs = [0.0] * len(tokens)
        self.open = self.masked = [i for i, token in enumerate(tokens) if token == MASK]
        self.is_changed = True

    @property
    def score(self):
        return sum(self.log_probs) / max(len(self.open), 1)

    def predict(self, model, source, never):
        canvas = [MASK if i in self.masked else token for i, token in enumerate(self.tokens)]
        outputs = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([canvas]))
        logits = outputs.logits[0].to(torch.promote_types(outputs.logits.dtype, torch.float32))
        logits[:, never] = -torch.inf
        log_probs = logits.log_softmax(dim=-1)
        before = list(self.tokens)
        for i in self.masked:
            self.tokens[i] = int(logits[i].argmax())
            self.log_probs[i] = float(log_probs[i, self.tokens[i]])
        self.is_changed = self.tokens != before

    def mask_again(self, t, num_iterations, schedule, threshold):
        length = len(self.open)
        if schedule == "linear":
            num_masked = max(1, length * (num_iterations - t) // num_iterations)
        else:
            num_masked = max(1, math.floor(length * math.cos(math.pi * t / (2 * num_iterations))))
        self.masked = sorted(self.open, key=lambda i: (self.log_probs[i], i))[:num_masked]
        if threshold is not None:
            limit = math.log(threshold)
            self.masked = [i for i in self.masked if self.log_probs[i] < limit]


@pytest.fixture(scope="session")
def decode_by_reference():
    """Fills in the canvases of one sentence: the canvases and the number of passes."""

    @torch.no_grad()
    def decode(
        model,
        source,
        canvases,
        num_iterations,
        *,
        schedule="linear",
        threshold=None,
        early_stop=False,
        suppressed=(),
    ):
        canvases = [ReferenceCanvas(tokens) for tokens in canvases]
        for t in range(1, num_iterations + 1):
            for canvas in canvases:
                canvas.predict(model, source, [PAD, MASK, *suppressed])
            if t == num_iterations:
                break
            for canvas in canvases:
                canvas.mask_again(t, num_iterations, schedule, threshold)
            may_stop = early_stop or threshold is not None
            if may_stop and all(
                not canvas.masked or (early_stop and t > 1 and not canvas.is_changed)
                for canvas in canvases
            ):
                break
        return canvases, t

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
