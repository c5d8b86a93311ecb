"""Flash attention, stood in for by PyTorch on a CPU: what Transformers does around it must fit this
model."""

import pytest
import torch
import transformers.modeling_flash_attention_utils as flash
from torch.nn import functional as F


def attention(query, key, value, softmax_scale=None, causal=False, **_):
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    output = F.scaled_dot_product_attention(
        query, key, value, scale=softmax_scale, is_causal=causal
    )
    return output.transpose(1, 2)


def attention_of_unpadded(query, key, value, cu_seqlens_q, cu_seqlens_k, **options):
    """Sentences one behind the other, as flash attention takes them where there is padding."""
    outputs = []
    for i in range(len(cu_seqlens_q) - 1):
        queries = slice(cu_seqlens_q[i], cu_seqlens_q[i + 1])
        keys = slice(cu_seqlens_k[i], cu_seqlens_k[i + 1])
        outputs.append(
            attention(query[None, queries], key[None, keys], value[None, keys], **options)
        )
    return torch.cat(outputs, dim=1)[0]


@pytest.fixture
def flash_attention(monkeypatch):
    def process(query_length, key_length, is_causal, dropout=0.0, softmax_scale=None, **_):
        return {"softmax_scale": softmax_scale, "causal": is_causal and query_length != 1}

    functions = (attention, attention_of_unpadded, None, flash._pad_input, flash._unpad_input)
    loaded = (functions, (process, process))
    monkeypatch.setattr(flash, "lazy_import_flash_attention", lambda *_, **__: loaded)

    def use(model):
        model.config._attn_implementation = "flash_attention_2"

    return use


@pytest.mark.parametrize("hides_length", [False, True])
@pytest.mark.parametrize("canvas_lengths", [[5, 5, 5], [9, 9, 9], [12, 3, 7], [1, 1, 1]])
@torch.no_grad()
def test_padded_sources_and_canvases_are_read_alike(
    make_model, make_sources, flash_attention, canvas_lengths, hides_length
):
    options = {"tie_word_embeddings": False, "hide_length_token": hides_length}
    model = make_model(seed=1, attn_implementation="eager", **options)
    sources = make_sources([9, 4, 6], seed=2)
    width = max(canvas_lengths)
    is_inside = torch.arange(width) < torch.tensor(canvas_lengths)[:, None]
    canvas = torch.full((3, width), 3).masked_fill(~is_inside, 0)
    expected = model(**sources, decoder_input_ids=canvas)
    flash_attention(model)
    found = model(**sources, decoder_input_ids=canvas)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(found.logits[is_inside], expected.logits[is_inside], **close)
    torch.testing.assert_close(found.length_logits, expected.length_logits, **close)


@pytest.mark.parametrize("num_iterations", [1, 3])
@pytest.mark.parametrize("num_candidates", [1, 2])
def test_decoding_is_the_same(
    make_model, make_sources, flash_attention, num_iterations, num_candidates
):
    model = make_model(seed=1, attn_implementation="eager", tie_word_embeddings=False)
    sources = make_sources([9, 4, 6], seed=2)
    decoding = {"num_iterations": num_iterations, "num_length_candidates": num_candidates}
    expected = model.generate(**sources, **decoding)
    flash_attention(model)
    assert model.generate(**sources, **decoding).equal(expected)
