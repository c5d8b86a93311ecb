"""What a decoding costs: projections, memory, waiting for a device; and the compiled decoder."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.generation.configuration_utils import CompileConfig

from axe_hf.cmlm import token_prediction

FULL = {"return_dict_in_generate": True}


def test_a_compiled_decoder_gives_the_same_tokens(make_model, make_sources):
    model = make_model(seed=6, tie_word_embeddings=False).double()
    sources = make_sources([9, 3, 20, 1])
    decoding = {"num_iterations": 4, "num_length_candidates": 2, **FULL}
    expected = model.generate(**sources, **decoding)
    compiled = {"compile": True, "compile_config": CompileConfig(backend="eager", mode=None)}
    for settings in ({}, {"early_stop": True}):
        expected = model.generate(**sources, **decoding, **settings)
        found = model.generate(**sources, **decoding, **settings, **compiled)
        assert found.sequences.equal(expected.sequences)
        assert found.num_iterations.equal(expected.num_iterations)
        torch.testing.assert_close(found.sequences_scores, expected.sequences_scores)


class HostReads(TorchDispatchMode):
    """Counts what makes the host wait for a device: values read, shapes that depend on values."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        is_boolean_index = name == "index" and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        self.count += name in self.NAMES or is_boolean_index
        return function(*args, **(kwargs or {}))


def test_the_loop_reads_nothing_on_the_host(make_model, make_sources):
    model, sources = make_model(seed=7), make_sources([9, 3, 20, 1])
    counts = []
    for num_iterations in (2, 10):
        with HostReads() as reads:
            model.generate(**sources, num_iterations=num_iterations, num_length_candidates=3)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


class LargestTensor(TorchDispatchMode):
    """The most elements that a tensor with a dimension of `vocab_size` has."""

    def __init__(self, vocab_size):
        super().__init__()
        self.vocab_size, self.largest = vocab_size, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if torch.is_tensor(result) and result.dim() and result.shape[-1] == self.vocab_size:
            self.largest = max(self.largest, result.numel())
        return result


def test_scores_of_the_vocabulary_stay_within_their_budget(make_model, make_sources, monkeypatch):
    model, sources = make_model(vocab_size=97), make_sources([9] * 6)
    monkeypatch.setattr(token_prediction, "MAX_LOGITS_ELEMENTS", 97 * 20)
    with LargestTensor(97) as tensors:
        model.generate(**sources, num_iterations=3, num_length_candidates=4, min_length=10)
    assert tensors.largest == 97 * 20


def test_only_masked_positions_are_projected(make_model, make_sources):
    model, sources = make_model(), make_sources([9, 9, 9])
    rows = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    model.generate(**sources, target_lengths=torch.tensor([20, 10, 3]), num_iterations=4)
    assert rows == [20 + 10 + 3, 15 + 7 + 2, 10 + 5 + 1, 5 + 2 + 1]
