"""What a decoding costs: projections, memory, waiting for a device; and the compiled decoder."""

import math

import numpy
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.generation.configuration_utils import CompileConfig

from axe_hf.cmlm import mask_predict

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
    # These run no operator where the tensor is on a CPU already.
    METHODS = ("tolist", "numpy", "cpu")

    def __init__(self):
        super().__init__()
        self.count = 0
        self.patch = pytest.MonkeyPatch()

    def __enter__(self):
        for name in self.METHODS:
            self.patch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))
        return super().__enter__()

    def __exit__(self, *error):
        self.patch.undo()
        return super().__exit__(*error)

    def _counted(self, method):
        def read(tensor, *args, **kwargs):
            self.count += 1
            return method(tensor, *args, **kwargs)

        return read

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        is_boolean_index = name == "index" and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        self.count += name in self.NAMES or is_boolean_index
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: numpy.asarray(x),
        lambda x: x.cpu(),
        lambda x: x[0].item(),
        lambda x: bool((x > 0).all()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
    ],
    ids=["tolist", "numpy", "asarray", "cpu", "item", "bool", "nonzero", "boolean index"],
)
def test_each_way_to_read_on_the_host_is_counted(read):
    values = torch.arange(3.0)
    with HostReads() as reads:
        read(values)
    assert reads.count > 0
    with HostReads() as reads:
        values.add(1).to(torch.float64).sort()
    assert reads.count == 0


def test_the_loop_reads_nothing_on_the_host(make_model, make_sources):
    model, sources = make_model(seed=7), make_sources([9, 3, 20, 1])
    counts = []
    for num_iterations in (2, 10):
        with HostReads() as reads:
            model.generate(**sources, num_iterations=num_iterations, num_length_candidates=3)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


class LargestResult(TorchDispatchMode):
    """The most elements that anything computed has."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if torch.is_tensor(result) and result.layout == torch.strided:
            given = [x for x in args if torch.is_tensor(x) and x.layout == torch.strided]
            storages = {x.untyped_storage().data_ptr() for x in given}
            if result.untyped_storage().data_ptr() not in storages:
                self.largest = max(self.largest, result.numel())
        return result


class Operators(TorchDispatchMode):
    """Names of what ran."""

    def __enter__(self):
        self.names = set()
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function._schema.name)
        return function(*args, **(kwargs or {}))


class CalledHead(torch.nn.Linear):
    """Not plain: it has to be called."""


@pytest.mark.parametrize("is_plain", [True, False])
def test_scores_of_the_vocabulary_stay_within_their_budget(
    make_model, make_sources, monkeypatch, is_plain
):
    model, sources = make_model(vocab_size=5000), make_sources([9] * 6, vocab_size=5000)
    if not is_plain:
        head = CalledHead(model.config.d_model, 5000, bias=False)
        head.weight, model.lm_head = model.lm_head.weight, head
    monkeypatch.setattr(mask_predict, "MAX_LOGITS_ELEMENTS", 40_000)
    with LargestResult() as results:
        model.generate(**sources, num_iterations=3, num_length_candidates=4, min_length=10)
    assert 30_000 < results.largest <= 40_000  # not 6 * 4 * 10 * 5000


@pytest.mark.parametrize("temperature", [None, 0.7])
@pytest.mark.parametrize("has_bias", [False, True])
def test_tokens_and_scores_are_the_same_however_the_logits_are_cut(
    monkeypatch, temperature, has_bias
):
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 41, bias=has_bias)
    states = torch.randn(23, 8)
    never = (0, 3, *range(10, 25))  # a whole part of the vocabulary, and more
    logits = head(states).detach().index_fill(1, torch.tensor(never), -torch.inf)
    for columns, elements in ((41, 2**20), (10, 100), (10, 10), (7, 2**20), (1, 2**20)):
        monkeypatch.setattr(mask_predict, "MAX_COLUMNS_CPU", columns)
        monkeypatch.setattr(mask_predict, "MAX_LOGITS_ELEMENTS", elements)
        generator = torch.Generator().manual_seed(1)
        choice = mask_predict.TokenChoice(never, temperature, generator)
        tokens, log_probs = mask_predict.TokenPredictor(head, 41, choice)(states)
        assert not torch.isin(tokens, torch.tensor(never)).any()
        expected = logits.log_softmax(dim=1).gather(1, tokens[:, None])[:, 0]
        torch.testing.assert_close(log_probs, expected)
        if temperature is None:
            assert tokens.equal(logits.argmax(dim=1))


def test_among_equal_logits_the_first_token_wins_however_they_are_cut(monkeypatch):
    head = torch.nn.Linear(4, 30)
    torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    for columns in (30, 7):
        monkeypatch.setattr(mask_predict, "MAX_COLUMNS_CPU", columns)
        predictor = mask_predict.TokenPredictor(head, 30, mask_predict.TokenChoice((0, 1)))
        tokens, log_probs = predictor(torch.randn(5, 4))
        assert (tokens == 2).all()
        torch.testing.assert_close(log_probs, torch.full((5,), -math.log(28)))


@pytest.mark.parametrize("columns", [1, 100, 128, 129, 256, 1280])
def test_a_maximum_by_blocks_is_the_first_of_the_largest(columns):
    torch.manual_seed(columns)
    logits = torch.randint(0, 40, (50, columns)).float().index_fill(1, torch.tensor(0), -torch.inf)
    found, expected = mask_predict.largest_of(logits), logits.max(dim=1)
    assert found[0].equal(expected[0]) and found[1].equal(expected[1])
    logits[3, -1] = torch.nan
    assert mask_predict.largest_of(logits)[0][3].isnan()
    assert mask_predict.largest_of(logits)[1][3] == columns - 1


@pytest.mark.parametrize("temperature", [None, 0.7])
def test_tokens_are_the_same_where_scores_are_not_asked_for(make_model, make_sources, temperature):
    """One pass over one canvas compares nothing, so that no logarithms are computed."""
    model, sources = make_model(vocab_size=5000), make_sources([9, 4], vocab_size=5000)
    decoding = sources | {"num_iterations": 1}
    decoding |= {"do_sample": True, "temperature": temperature} if temperature else {}
    with Operators() as operators:
        torch.manual_seed(0)
        tokens = model.generate(**decoding)
    assert "aten::exp_" not in operators.names
    torch.manual_seed(0)
    assert tokens.equal(model.generate(**decoding, return_dict_in_generate=True).sequences)


def test_only_masked_positions_are_projected(make_model, make_sources):
    model, sources = make_model(), make_sources([9, 9, 9])
    rows = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    model.generate(**sources, target_lengths=torch.tensor([20, 10, 3]), num_iterations=4)
    assert rows == [20 + 10 + 3, 15 + 7 + 2, 10 + 5 + 1, 5 + 2 + 1]


def test_processes_that_share_a_head_call_it_as_often_whatever_their_sentences(
    make_model, make_sources, monkeypatch
):
    monkeypatch.setattr(mask_predict, "MAX_LOGITS_ELEMENTS", 24 * 20)
    model, calls = make_model(), []
    head = CalledHead(model.config.d_model, 24, bias=False)
    head.weight, model.lm_head = model.lm_head.weight, head
    head.register_forward_hook(lambda *_: calls.append(1))
    for lengths in ([5, 5], [25, 28]):
        calls.clear()
        model.generate(
            **make_sources([4, 9]),
            target_lengths=torch.tensor(lengths),
            num_iterations=4,
            synced_gpus=True,
        )
        assert len(calls) == 4


def test_what_a_hook_keeps_of_the_logits_is_not_written_over(make_model, make_sources):
    model, kept = make_model(), []
    model.lm_head.register_forward_hook(lambda module, inputs, output: kept.append(output))
    expected = model.lm_head.weight
    hidden = []
    model.model.decoder.register_forward_hook(lambda *args: hidden.append(args[2][0]))
    model.generate(**make_sources([4]), target_lengths=torch.tensor([6]))
    torch.testing.assert_close(kept[0], hidden[0][0] @ expected.t())
