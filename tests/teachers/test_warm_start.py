"""A CMLM that starts from an autoregressive model: what is its teacher's, and what is new."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    BartModel,
    BertConfig,
    BertModel,
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PLBartConfig,
    PLBartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from axe_hf import (
    CmlmForConditionalGeneration,
    save_pretrained_with_code,
    student_tokenizer,
    train_tokenizer,
    translate,
)
from axe_hf.teachers.warm_start import kept_layer_indices

start = CmlmForConditionalGeneration.from_autoregressive
VOCAB = 50
# Nothing is equal that a mapping could confuse.
SIZES = {"vocab_size": VOCAB, "d_model": 24, "encoder_layers": 3, "decoder_layers": 2}
SIZES |= {"encoder_attention_heads": 2, "decoder_attention_heads": 4, "encoder_ffn_dim": 40}
SIZES |= {"decoder_ffn_dim": 56, "max_position_embeddings": 20}
MARIAN = {"pad_token_id": VOCAB - 1, "eos_token_id": 0, "decoder_start_token_id": VOCAB - 1}
MARIAN |= {"scale_embedding": True, "activation_function": "swish"}
KINDS = {
    "marian": (MarianMTModel, MarianConfig, MARIAN),
    "marian, not scaled": (MarianMTModel, MarianConfig, MARIAN | {"scale_embedding": False}),
    "marian, untied": (
        MarianMTModel,
        MarianConfig,
        MARIAN | {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    ),
    "marian, two embeddings": (
        MarianMTModel,
        MarianConfig,
        MARIAN | {"share_encoder_decoder_embeddings": False},
    ),
    "bart": (BartForConditionalGeneration, BartConfig, {}),
    "mbart": (MBartForConditionalGeneration, MBartConfig, {"scale_embedding": True}),
    "m2m_100": (M2M100ForConditionalGeneration, M2M100Config, {}),
    "m2m_100, pad 0": (M2M100ForConditionalGeneration, M2M100Config, {"pad_token_id": 0}),
    "pegasus": (PegasusForConditionalGeneration, PegasusConfig, {"scale_embedding": True}),
    "plbart": (PLBartForConditionalGeneration, PLBartConfig, {}),
    "blenderbot": (BlenderbotForConditionalGeneration, BlenderbotConfig, {}),
}


def make_teacher(kind="marian", seed=0, **changes):
    """A random teacher in which no weight is 0 or 1, in evaluation mode."""
    model_class, config_class, settings = KINDS[kind]
    torch.manual_seed(seed)
    teacher = model_class(config_class(**SIZES | settings | changes)).eval()
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        if hasattr(teacher, "final_logits_bias"):
            teacher.final_logits_bias.normal_()
    return teacher


@pytest.fixture(params=KINDS)
def teacher(request):
    return make_teacher(request.param)


def make_source(teacher, lengths=(9, 5, 2)):
    """Sentences of these lengths, padded: `input_ids` and `attention_mask`."""
    torch.manual_seed(5)
    ids = torch.randint(4, VOCAB - 2, (len(lengths), max(lengths)))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids.masked_fill(mask == 0, teacher.config.pad_token_id), mask


# What is the teacher's


@pytest.mark.parametrize("lengths", [(9, 5, 2), (7, 7, 7), (1,), (20, 3)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_the_encoder_computes_what_the_teachers_does(teacher, attention, lengths):
    ids, mask = make_source(teacher, lengths)
    student = start(teacher, attn_implementation=attention)
    assert student.config._attn_implementation == attention
    expected = teacher.get_encoder()(ids, attention_mask=mask).last_hidden_state
    found = student.get_encoder()(ids, attention_mask=mask).last_hidden_state
    is_token = mask.bool()
    torch.testing.assert_close(found[is_token], expected[is_token], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_decoder_computes_the_teachers_first_step(teacher):
    """On a canvas of one position there is nothing that a causal mask could hide."""
    ids, mask = make_source(teacher)
    for symbol in (teacher.config.pad_token_id, 7):
        first = torch.full((3, 1), symbol)
        given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": first}
        given["decoder_attention_mask"] = torch.ones_like(first)
        if teacher.config.model_type == "m2m_100" and symbol == teacher.config.pad_token_id:
            continue  # its positions leave out <pad>, with which it never starts
        expected, found = teacher(**given).logits, start(teacher)(**given).logits
        torch.testing.assert_close(found[:, :, :VOCAB], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_decoders_layers_under_a_causal_mask_are_the_teachers(teacher):
    """With the mask put back, all positions of the decoder are the teacher's."""
    ids, mask = make_source(teacher)
    student = start(teacher, attn_implementation="eager")
    torch.manual_seed(6)
    targets = torch.randint(4, VOCAB - 2, (3, 6))
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": targets}
    expected = teacher(**given, use_cache=False).logits
    states = student.get_encoder()(ids, attention_mask=mask).last_hidden_state
    decoder = student.model.decoder
    masks = decoder.attention_masks(None, mask, targets[:, :, None].float(), states)
    causal = torch.full((6, 6), torch.finfo(torch.float32).min).triu(1)
    masks = masks._replace(canvas=causal[None, None].expand(3, 1, 6, 6))
    outputs = decoder(targets, encoder_hidden_states=states, masks=masks)
    found = student.lm_head(outputs.last_hidden_state)[:, :, :VOCAB]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_nothing_but_lengths_and_new_rows_is_new(teacher):
    student = start(teacher)
    theirs = {name: tensor.flatten() for name, tensor in teacher.state_dict().items()}
    new_rows = {"tokens", "shared", "lm_head"}
    for name, tensor in student.state_dict().items():
        if "embed_lengths" in name:
            assert (tensor[1:] == tensor[1]).all()
        elif any(part in name for part in new_rows):
            assert len(tensor) == VOCAB + 2
            if name in theirs:
                assert tensor[:VOCAB].flatten().equal(theirs[name])
        elif "embed_positions" not in name:
            assert tensor.flatten().equal(theirs[name]), name
    assert student.config.tie_word_embeddings == is_tied(teacher)


def is_tied(teacher):
    matrices = {teacher.lm_head.weight, teacher.model.encoder.embed_tokens.weight}
    return len(matrices | {teacher.model.decoder.embed_tokens.weight}) == 1


def test_a_teacher_is_neither_changed_nor_shared(teacher):
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    config, mode = teacher.config.to_dict(), teacher.training
    student = start(teacher)
    own = {tensor.untyped_storage().data_ptr() for tensor in teacher.state_dict().values()}
    for tensor in student.state_dict().values():
        assert tensor.untyped_storage().data_ptr() not in own
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(7)
    assert teacher.config.to_dict() == config and teacher.training is mode
    for name, tensor in teacher.state_dict().items():
        assert tensor.equal(before[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_and_mode_are_the_teachers(teacher, dtype):
    student = start(teacher.to(dtype).train())
    assert {parameter.dtype for parameter in student.parameters()} == {dtype}
    assert student.dtype == student.config.dtype == dtype
    assert student.training and not start(teacher.eval()).training


@torch.no_grad()
def test_in_bfloat16_states_are_the_teachers_too(teacher):
    ids, mask = make_source(teacher.to(torch.bfloat16))
    expected = teacher.get_encoder()(ids, attention_mask=mask).last_hidden_state
    found = start(teacher).get_encoder()(ids, attention_mask=mask).last_hidden_state
    close = {"atol": 0.1, "rtol": 0.02}
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], **close)


def test_weights_train_that_the_teacher_had_frozen(teacher):
    student = start(teacher.requires_grad_(False))
    frozen = {name for name, p in student.named_parameters() if not p.requires_grad}
    assert all("embed_positions" in name for name in frozen)
    assert bool(frozen) == (student.config.position_embedding_type == "sinusoidal")


# What is new


def test_a_blank_is_the_mean_of_the_tokens_and_so_are_the_lengths():
    teacher = make_teacher(tie_word_embeddings=True)
    student, config = start(teacher), teacher.config
    table = teacher.lm_head.weight[: VOCAB - 1]  # without <pad>, the last
    mean, shared = table.mean(dim=0), student.model.shared.weight
    assert (student.config.mask_token_id, student.config.blank_token_id) == (VOCAB, VOCAB + 1)
    for row in (VOCAB, VOCAB + 1):
        torch.testing.assert_close(shared[row], mean)
        bias = teacher.final_logits_bias[0, : VOCAB - 1].mean()
        torch.testing.assert_close(student.lm_head.bias[row], bias)
    lengths = student.model.encoder.embed_lengths.weight
    assert lengths.shape == (SIZES["max_position_embeddings"] + 1, config.d_model)
    torch.testing.assert_close(lengths[1:], mean.expand_as(lengths[1:]))
    torch.testing.assert_close(lengths[0], mean * config.d_model**0.5)  # as tokens are scaled


def test_each_of_three_matrices_has_a_mean_of_its_own():
    teacher = make_teacher("marian, untied")
    student = start(teacher)
    pairs = [(teacher.lm_head, student.lm_head)]
    for side in ("encoder", "decoder"):
        stacks = (getattr(model.model, side) for model in (teacher, student))
        pairs.append([stack.embed_tokens for stack in stacks])
    for theirs, ours in pairs:
        mean = theirs.weight[: VOCAB - 1].mean(dim=0)
        torch.testing.assert_close(ours.weight[VOCAB:], mean.expand(2, -1))


def test_a_mask_that_the_vocabulary_has_is_kept_and_a_blank_never():
    teacher = make_teacher("bart")
    student = start(teacher, mask_token_id=40, blank_token_id=41)
    table, rows = teacher.lm_head.weight, student.lm_head.weight
    assert student.config.vocab_size == VOCAB
    assert rows[40].equal(table[40])
    others = [i for i in range(VOCAB) if i not in (teacher.config.pad_token_id, 41)]
    torch.testing.assert_close(rows[41], table[others].mean(dim=0))
    assert start(teacher, mask_token_id=40).config.blank_token_id == VOCAB


def test_a_bias_of_zeros_is_none_unless_it_is_wanted():
    teacher = make_teacher("bart")
    teacher.final_logits_bias.zero_()
    assert start(teacher).lm_head.bias is None
    assert (start(teacher, output_bias=True).lm_head.bias == 0).all()
    teacher.lm_head.bias = torch.nn.Parameter(torch.arange(float(VOCAB)))
    teacher.final_logits_bias[0, 3] = 5.0
    bias = start(teacher).lm_head.bias
    assert bias[:5].tolist() == [0, 1, 2, 8, 4]


@torch.no_grad()
def test_what_is_tied_can_be_untied(teacher):
    ids, mask = make_source(teacher)
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, :3]}
    expected = start(teacher)(**given).logits
    free = start(teacher, tie_word_embeddings=False, position_embedding_type="learned")
    torch.testing.assert_close(free(**given).logits, expected)
    matrices = [free.lm_head.weight, free.model.encoder.embed_tokens.weight]
    matrices.append(free.model.decoder.embed_tokens.weight)
    assert len({matrix.data_ptr() for matrix in matrices}) == 3
    assert all(parameter.requires_grad for parameter in free.parameters())


# Layers and limits


@pytest.mark.parametrize(
    ("num_layers", "num_kept", "kept_layers", "expected"),
    [
        (6, 6, "spread", [0, 1, 2, 3, 4, 5]),
        (12, 6, "spread", [0, 2, 4, 7, 9, 11]),
        (6, 3, "spread", [0, 3, 5]),
        (6, 2, "spread", [0, 5]),
        (6, 1, "spread", [0]),
        (1, 1, "spread", [0]),
        (6, 2, "first", [0, 1]),
        (6, 2, "last", [4, 5]),
        (6, 1, "last", [5]),
        (6, 6, "last", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_layers_that_stay(num_layers, num_kept, kept_layers, expected):
    assert kept_layer_indices(num_layers, num_kept, kept_layers) == expected


def test_spread_layers_are_all_different():
    for num_layers in range(1, 40):
        for num_kept in range(1, num_layers + 1):
            kept = kept_layer_indices(num_layers, num_kept, "spread")
            assert sorted(set(kept)) == kept and len(kept) == num_kept
            assert num_kept == 1 or (kept[0], kept[-1]) == (0, num_layers - 1)


@pytest.mark.parametrize("kept_layers", ["spread", "first", "last"])
def test_depth_is_cut(teacher, kept_layers):
    student = start(teacher, encoder_layers=2, decoder_layers=1, kept_layers=kept_layers)
    kept = {"spread": ([0, 2], [0]), "first": ([0, 1], [0]), "last": ([1, 2], [1])}[kept_layers]
    for side, indices in zip(("encoder", "decoder"), kept, strict=True):
        layers, theirs = (getattr(m.model, side).layers for m in (student, teacher))
        assert len(layers) == getattr(student.config, f"{side}_layers") == len(indices)
        for layer, index in zip(layers, indices, strict=True):
            for name, tensor in theirs[index].state_dict().items():
                assert layer.state_dict()[name].equal(tensor)
            assert layer.self_attn.layer_idx == [*layers].index(layer)


@torch.no_grad()
def test_limits_may_be_lower(teacher):
    student = start(teacher, max_source_length=9, max_target_length=6)
    assert len(student.model.encoder.embed_lengths.weight) == 7
    ids, mask = make_source(teacher)
    expected = teacher.get_encoder()(ids, attention_mask=mask).last_hidden_state
    found = student.get_encoder()(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()])
    with pytest.raises(ValueError, match="`max_source_length` must be at most 20, .* got 21"):
        start(teacher, max_source_length=21)


def test_settings_of_ones_own():
    student = start(make_teacher(), dropout=0.25, training_loss="cross_entropy", axe_delta=1.5)
    config = student.config
    assert (config.dropout, config.training_loss, config.axe_delta) == (0.25, "cross_entropy", 1.5)
    assert student.model.encoder.layers[0].dropout == 0.25
    teacher = make_teacher(dropout=0.2, attention_dropout=0.15, activation_dropout=0.05)
    config = start(teacher).config
    dropouts = (config.dropout, config.attention_dropout, config.activation_dropout)
    assert dropouts == (0.2, 0.15, 0.05) and config.hide_length_token
    assert not start(teacher, hide_length_token=False).config.hide_length_token


# What it is good for


def test_at_the_start_it_predicts_lengths_and_tokens_and_has_a_loss(teacher):
    student = start(teacher)
    ids, mask = make_source(teacher)
    labels = ids.masked_fill(mask == 0, -100)
    for loss in ("axe", "cross_entropy"):
        student.config.training_loss = loss
        outputs = student.train()(input_ids=ids, attention_mask=mask, labels=labels)
        outputs.loss.backward()
        assert outputs.loss.isfinite() and outputs.length_logits.isfinite().all()
    for name, parameter in student.named_parameters():
        assert not parameter.requires_grad or parameter.grad.isfinite().all(), name
    tokens = student.eval().generate(ids, attention_mask=mask, num_iterations=2)
    assert tokens.shape[0] == 3 and (tokens < VOCAB + 2).all()


def test_saved_it_is_loaded_by_auto_classes(teacher, tmp_path):
    student = start(teacher, decoder_layers=1)
    student.save_pretrained(tmp_path)
    ids, mask = make_source(teacher)
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, :4]}
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert again.loading_problem is None
    headless = AutoModel.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = student(**given)
        assert again(**given).logits.equal(expected.logits)
        states = headless(**given).encoder_last_hidden_state
        assert states.equal(expected.encoder_last_hidden_state)
    assert again.generate(ids, attention_mask=mask).equal(
        student.generate(ids, attention_mask=mask)
    )


def copying_task(generator, vocab, num_sentences=32):
    """Sentences that are to be said backwards, `</s>` at the end."""
    lengths = torch.randint(2, 6, (num_sentences,), generator=generator)
    source = torch.full((num_sentences, 6), 0)
    labels = torch.full((num_sentences, 6), -100)
    for row, length in enumerate(lengths.tolist()):
        words = torch.randint(5, vocab, (length,), generator=generator)
        source[row, : length + 1] = torch.cat([words, torch.tensor([1])])
        labels[row, : length + 1] = torch.cat([words.flip(0), torch.tensor([1])])
    return {"input_ids": source, "attention_mask": source.ne(0).long(), "labels": labels}


def train(model, num_steps, vocab):
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.train().parameters(), 3e-3)
    for _ in range(num_steps):
        model(**copying_task(generator, vocab)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        batch = copying_task(torch.Generator().manual_seed(1), vocab, 200)
        return model.eval()(**batch).loss.item()


@pytest.mark.slow
def test_after_equal_steps_it_is_better_than_a_cold_model():
    sizes = {"vocab_size": 16, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}
    sizes |= {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
    sizes |= {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    settings = sizes | ids | {"max_position_embeddings": 12, "dropout": 0.0, "init_std": 0.1}
    torch.manual_seed(0)
    teacher = MarianMTModel(MarianConfig(**settings, scale_embedding=True))
    assert train(teacher, 200, 16) < 0.5
    warm = start(teacher, mask_token_id=3, blank_token_id=4)
    cold = CmlmForConditionalGeneration(warm.config)
    losses = [train(model, 60, 16) for model in (warm, cold)]
    assert losses[0] < 0.5 * losses[1], losses


# Tokenizers


@pytest.fixture
def folder(marian_tokenizer, tmp_path):
    """Of a Marian with its own tokenizer of two files, as on the Hub; room for 5 more symbols."""
    tokenizer = copy.deepcopy(marian_tokenizer)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    size = len(tokenizer) + 5
    teacher = make_teacher(vocab_size=size, decoder_vocab_size=size, **ids)
    teacher.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_brings_its_own_tokenizer(folder, kind):
    student = start(kind(folder))
    tokenizer = student_tokenizer(str(folder))
    student.config.check_tokenizer(tokenizer)
    assert not student.training
    (text,) = translate(student, tokenizer, ["one two"])
    assert isinstance(text, str)


def test_a_tokenizer_is_extended_in_place():
    """<blank> takes a row that no token used, which the teacher has never trained."""
    tokenizer = train_tokenizer(["one two three", "eins zwei drei"] * 9, vocab_size=300)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    size = len(tokenizer)
    teacher = make_teacher(vocab_size=size, decoder_vocab_size=size, **ids)
    student = start(teacher, tokenizer)
    assert (student.config.mask_token_id, student.config.blank_token_id) == (3, 4)
    rows, table = student.lm_head.weight, teacher.lm_head.weight
    assert rows[3].equal(table[3]) and len(rows) == size
    others = [i for i in range(size) if i not in (0, 4)]
    torch.testing.assert_close(rows[4], table[others].mean(dim=0))


def test_rows_without_a_token_do_not_count(marian_tokenizer):
    tokenizer = copy.deepcopy(marian_tokenizer)
    num_tokens = max(i for t, i in tokenizer.get_vocab().items() if t not in ("<mask>", "<blank>"))
    size = num_tokens + 1 + 40  # a vocabulary rounded up
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    teacher = make_teacher("bart", vocab_size=size, **ids)
    with torch.no_grad():
        teacher.lm_head.weight[num_tokens + 1 :] += 1000
    student = start(teacher, tokenizer)
    student.config.check_tokenizer(tokenizer)
    blank = student.lm_head.weight[tokenizer.blank_token_id]
    assert blank.abs().max() < 10 and student.config.vocab_size == size


@pytest.mark.parametrize("change", [{"pad_token_id": 7}, {"eos_token_id": 7}, {"vocab_size": 40}])
def test_a_tokenizer_of_another_model_is_refused_and_left_alone(marian_tokenizer, change):
    tokenizer = copy.deepcopy(marian_tokenizer)
    before = tokenizer.get_vocab()
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    if "vocab_size" in change:
        ids["pad_token_id"] = 30
    teacher = make_teacher("bart", **{"vocab_size": len(tokenizer)} | ids | change)
    with pytest.raises(ValueError, match="`tokenizer`.*Is it the tokenizer of this model"):
        start(teacher, tokenizer)
    assert tokenizer.get_vocab() == before


# What is refused


def test_settings_that_the_weights_fix_are_refused_all_at_once():
    wrong = {"d_model": 32, "activation_function": "relu", "normalize_before": True, "dropout": 0.1}
    with pytest.raises(ValueError) as caught:
        start(make_teacher(), **wrong)
    for name in ("d_model", "activation_function", "normalize_before"):
        assert f"`{name}` is {wrong[name]!r}" in str(caught.value)
    assert "dropout" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"decoder_layers": 3}, ValueError, "`decoder_layers` must be at most 2, .* got 3"),
        ({"kept_layers": "middle"}, ValueError, "`kept_layers` must be one of 'spread', 'first'"),
        ({"droput": 0.1}, TypeError, "no field `droput` of CmlmConfig. Is it `dropout`"),
        ({"output_bias": False}, ValueError, "`output_bias` is False, not True"),
        ({"vocab_size": 30}, ValueError, "`vocab_size` is 30, not 52"),
        ({"pad_token_id": 3}, ValueError, "`pad_token_id` is 3, not 49"),
        ({"decoder_layers": 0}, ValueError, "`decoder_layers` must be at least 1"),
        ({"decoder_layers": "1"}, TypeError, "decoder_layers"),
        ({"encoder_layers": None}, TypeError, "encoder_layers"),
        ({"dropout": 2.0}, ValueError, "`dropout` must be in"),
        ({"tokenizer": "marian"}, TypeError, "`tokenizer` must be a tokenizer of Transformers"),
    ],
)
def test_wrong_settings_are_refused(wrong, error, message):
    with pytest.raises(Exception, match=message) as caught:
        start(make_teacher(), **wrong)
    assert isinstance(caught.value, error) or isinstance(caught.value.__cause__, error)


def small(config_class, **settings):
    sizes = {"vocab_size": 30, "d_model": 8, "n_embd": 8, "n_head": 2, "n_layer": 1}
    sizes |= {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "d_ff": 8}
    sizes |= {"num_layers": 1, "num_heads": 2, "d_kv": 4, "encoder_layers": 1, "decoder_layers": 1}
    names = config_class.__annotations__
    return config_class(**{n: v for n, v in sizes.items() if n in names}, **settings)


REFUSED = {
    "T5": (
        lambda: T5ForConditionalGeneration(small(T5Config)),
        "position biases.*without biases.*axe-hf distill",
    ),
    "causal": (lambda: GPT2LMHeadModel(small(GPT2Config)), "must be an encoder-decoder.*'gpt2'"),
    "encoder": (lambda: BertModel(small(BertConfig)), "must be an encoder-decoder.*'bert'"),
    "no head": (lambda: BartModel(BartConfig(**SIZES)), "BartModel.*AutoModelForSeq2SeqLM"),
    "two vocabularies": (
        lambda: make_teacher(
            "marian", decoder_vocab_size=60, share_encoder_decoder_embeddings=False
        ),
        "one vocabulary for the source and another for the target",
    ),
    "CMLM": (lambda: start(make_teacher()), "is a CMLM already.*--model-name-or-path"),
    "something more": (lambda: with_something_more(), "model.encoder.extra.weight.*no place for"),
    "no pad": (lambda: without_pad(), "must have one `pad_token_id`"),
}


def with_something_more():
    teacher = make_teacher("bart")
    teacher.model.encoder.extra = torch.nn.Linear(2, 2)
    return teacher


def without_pad():
    teacher = make_teacher("bart")
    teacher.config.pad_token_id = None
    return teacher


@pytest.mark.parametrize("kind", REFUSED)
def test_a_teacher_that_does_not_fit_is_refused(kind):
    make, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        start(make())


@pytest.mark.parametrize("kind", ["T5", "causal", "encoder", "CMLM"])
def test_a_folder_that_does_not_fit_is_refused_before_its_weights_are_read(kind, tmp_path):
    make, message = REFUSED[kind]
    make().config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        start(tmp_path)


@pytest.mark.parametrize("wrong", [5, None, {"a": 1}, torch.nn.Linear(2, 2)])
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(TypeError, match="`model_or_name` must be an encoder-decoder, got"):
        start(wrong)


def test_an_adapter_has_to_be_merged_first():
    import peft

    lora = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q_proj"])
    adapted = peft.get_peft_model(make_teacher("bart"), lora)
    with pytest.raises(TypeError, match="merge_and_unload"):
        start(adapted)
    assert start(adapted.merge_and_unload()).config.d_model == 24


def test_a_folder_without_a_tokenizer_or_without_weights_is_refused(tmp_path):
    teacher = make_teacher("bart")
    teacher.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="`tokenizer` knows no words. Pass that of the model"):
        start(tmp_path / "model")
    with pytest.raises(OSError, match="`model_or_name` must be an encoder-decoder, a folder or"):
        start(tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["marian", "m2m_100"])
def test_files_of_a_tokenizer_that_are_missing_are_named(kind, tmp_path):
    """Transformers' own error is about a None."""
    make_teacher(kind).save_pretrained(tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"no tokenizer .* \(files of it are missing\).*`tokenizer`"
    ):
        start(tmp_path / "model")
    with pytest.raises(ValueError, match="`name_or_tokenizer`"):
        student_tokenizer(tmp_path / "model")


# With adapters and code


def test_lora_on_top_trains_and_merges():
    import peft

    student = start(make_teacher()).train()
    lora = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(student, lora)
    ids, mask = make_source(student)
    labels = ids.masked_fill(mask == 0, -100)
    adapted(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    grads = [p.grad for n, p in adapted.named_parameters() if "lora_B" in n]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    assert type(adapted.merge_and_unload()) is CmlmForConditionalGeneration


STRANGER = """
import importlib.util, json, sys
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
assert importlib.util.find_spec("axe_hf") is None, "the test wants a Python without axe_hf"
folder, texts = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
tokens = model.generate(**tokenizer(texts, padding=True, return_tensors="pt"), num_iterations=2)
try:
    type(model).from_autoregressive(folder)
    raised = None
except ImportError as error:
    raised = str(error)
print(json.dumps([tokenizer.batch_decode(tokens, skip_special_tokens=True), raised]))
"""


@pytest.mark.slow
def test_with_its_code_it_translates_where_the_package_is_not(folder, tmp_path):
    tokenizer, texts = student_tokenizer(str(folder)), ["one two", "three <mask> four"]
    student = start(folder, tokenizer)
    student.generation_config.num_iterations = 2
    save_pretrained_with_code(student, tokenizer, tmp_path / "shared")
    hide = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]; "
        "sys.path[:] = [p for p in sys.path if not __import__('os').path.isdir(p + '/axe_hf')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", hide + STRANGER, tmp_path / "shared", json.dumps(texts)],
        env=os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    translations, raised = json.loads(done.stdout.splitlines()[-1])
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    expected = tokenizer.batch_decode(student.generate(**batch), skip_special_tokens=True)
    assert translations == expected
    assert "needs the package axe_hf" in raised
