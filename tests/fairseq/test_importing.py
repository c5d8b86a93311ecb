"""A checkpoint of Mask-Predict's program comes over: same logits, same decoding, nothing left out.

What it is held to is `original.py`, which knows nothing of axe_hf.
"""

import collections
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from axe_hf import import_fairseq, translate
from axe_hf.reference import mask_predict_reference

PAD, EOS, UNK, MASK = 1, 2, 3, 4
NAMES = {  # of `CONFIGURATIONS` in original.py; a test says that they are all
    "A, all embeddings shared",
    "B, normalised before",
    "C, the decoder's shared",
    "D, none shared",
    "E, no positions",
    "F, other depths",
    "G, half precision",
    "H, all at once",
}


@pytest.fixture(scope="module")
def imported(original, tmp_path_factory):
    """Imports a configuration once: the folder, and the model as the original computes it."""
    known = {}

    def make(name):
        if name not in known:
            place = tmp_path_factory.mktemp("imported")
            files, model = original.write(place, **original.CONFIGURATIONS[name])
            folder = import_fairseq(**files, output_dir=place / "model", moses=None)
            known[name] = folder, model
        return known[name]

    return make


def batch(vocab_size, is_padded, is_observed, seed=0):
    """Sources and canvases, `<pad>` behind their ends."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(5, vocab_size, (3, 7), generator=generator)
    canvas = torch.full((3, 6), MASK)
    if is_observed:
        tokens = torch.randint(5, vocab_size, canvas.shape, generator=generator)
        is_shown = torch.rand(canvas.shape, generator=generator) < 0.5
        canvas = torch.where(is_shown, tokens, canvas)
    source[:, -1] = EOS
    if is_padded:
        source[1, 4], source[1, 5:] = EOS, PAD
        canvas[0, 3:] = PAD
    return source, canvas


def test_all_configurations_are_tried(original):
    assert set(original.CONFIGURATIONS) == NAMES


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", sorted(NAMES))
def test_logits_are_the_originals(imported, name, attention):
    folder, original = imported(name)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation=attention)
    for is_padded in (False, True):
        for is_observed in (False, True):
            source, canvas = batch(model.config.vocab_size, is_padded, is_observed)
            expected, expected_lengths = original(source, canvas)
            with torch.no_grad():
                found = model(input_ids=source, decoder_input_ids=canvas)
            is_inside = canvas != PAD
            assert expected[is_inside].std() > 0.5  # a difference would be seen
            close = {"rtol": 1e-5, "atol": 1e-5}
            torch.testing.assert_close(found.logits[is_inside], expected[is_inside], **close)
            lengths = found.length_logits[:, 1:]  # class 0 is no length
            torch.testing.assert_close(lengths, expected_lengths[:, 1:], **close)


class AsModel:
    """The original as `mask_predict_reference` calls a model."""

    def __init__(self, original, config):
        self.original, self.config = original, config

    def __call__(self, input_ids, decoder_input_ids):
        self.logits, _ = self.original(input_ids, decoder_input_ids)
        return self


@pytest.mark.parametrize("name", ["A, all embeddings shared", "H, all at once"])
def test_generate_decodes_as_the_original_program(imported, name):
    folder, original = imported(name)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    settings = model.generation_config
    assert (settings.num_iterations, settings.num_length_candidates) == (10, 5)
    assert (settings.length_score_weight, settings.min_length) == (0.0, 2)
    sources, _ = batch(model.config.vocab_size, is_padded=True, is_observed=False, seed=1)
    for source in sources:
        source = source[source != PAD]
        length_logits = original(source[None], torch.tensor([[MASK]]))[1][0]
        length_logits[0] = -torch.inf
        lengths = length_logits.topk(5).indices.clamp(min=2).tolist()
        canvases = [[MASK] * length for length in dict.fromkeys(lengths)]
        reference = AsModel(original, model.config)
        done = mask_predict_reference(reference, source.tolist(), canvases, 10).canvases
        best = max(done, key=lambda canvas: canvas.score)
        expected = [token for token in best.tokens if token not in (0, EOS)]
        found = model.generate(source[None])[0].tolist()
        assert [token for token in found if token not in (0, PAD, EOS)] == expected


def test_the_configuration_says_what_the_arguments_said(imported):
    folder, _ = imported("F, other depths")
    config = AutoModelForSeq2SeqLM.from_pretrained(folder).config
    assert (config.encoder_layers, config.decoder_layers, config.d_model) == (3, 1, 16)
    assert (config.max_source_length, config.max_target_length) == (11, 16)
    assert (config.encoder_ffn_dim, config.decoder_ffn_dim) == (24, 20)
    assert (config.encoder_attention_heads, config.decoder_attention_heads) == (2, 4)
    assert (config.dropout, config.activation_dropout, config.label_smoothing) == (0.3, 0.1, 0.1)
    assert (config.training_loss, config.length_loss_weight) == ("cross_entropy", 1.0)
    ids = (config.blank_token_id, config.pad_token_id, config.eos_token_id, config.mask_token_id)
    assert ids == (0, 1, 2, 4)


def test_missing_arguments_are_the_architectures_defaults(original, tmp_path):
    size = original.write_dictionary(tmp_path / "dict.txt", ["a"])
    small = {"encoder_layers": 1, "decoder_layers": 1, "share_all_embeddings": True}
    big = {"encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 64, "decoder_ffn_embed_dim": 64}
    for arch, given, ffn, heads in (
        ("bert_transformer_seq2seq", {"encoder_embed_dim": 128}, 512, 2),
        ("bert_transformer_seq2seq_big", big, 64, 16),
    ):
        args, _ = original.arguments(**small, **given)
        width = given["encoder_embed_dim"]
        args.decoder_embed_dim, args.arch = width, arch
        args.encoder_ffn_embed_dim = args.decoder_ffn_embed_dim = ffn
        args.max_source_positions = args.max_target_positions = 1024
        state = original.weights(args, size)
        bare = original.argparse.Namespace(arch=arch, **small, **given)
        file = original.save(tmp_path / f"{arch}.pt", bare, state)
        files = {"dict_source": tmp_path / "dict.txt", "dict_target": tmp_path / "dict.txt"}
        folder = import_fairseq(file, tmp_path / arch, **files, moses=None)
        config = AutoModelForSeq2SeqLM.from_pretrained(folder).config
        assert (config.d_model, config.encoder_ffn_dim) == (width, ffn)
        assert (config.encoder_attention_heads, config.decoder_attention_heads) == (heads, heads)
        assert (config.max_source_length, config.max_target_length) == (1024, 1023)
        assert config.dropout == 0.1


def test_a_file_of_before_pytorch_1_6_gives_the_same_weights(original, tmp_path):
    weights = []
    for is_legacy in (False, True):
        place = tmp_path / str(is_legacy)
        files, _ = original.write(place, is_legacy=is_legacy)
        folder = import_fairseq(**files, output_dir=place / "model", moses=None)
        weights.append(AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_newer_checkpoints_hold_their_arguments_in_cfg(original, tmp_path):
    files, model = original.write(tmp_path)
    with original.modules_of_fairseq() as modules:
        nodes = {}
        for name, value in vars(model.args).items():
            nodes[name] = modules["omegaconf.nodes"].AnyNode()
            nodes[name]._val = value
        container = modules["omegaconf.dictconfig"].DictConfig()
        container._content = nodes
        container.object_type, container.flags = dict, collections.defaultdict(list)
        kinds = {"container": container, "namespace": model.args, "mapping": vars(model.args)}
        for kind, settings in kinds.items():
            cfg = {"model": settings, "criterion": {"label_smoothing": 0.2}}
            state = {
                "cfg": cfg,
                "args": None,
                "model": torch.load(files["checkpoint"], weights_only=False)["model"],
            }
            torch.save(state, tmp_path / f"{kind}.pt")
    for kind in kinds:
        files["checkpoint"] = tmp_path / f"{kind}.pt"
        folder = import_fairseq(**files, output_dir=tmp_path / kind, moses=None)
        assert AutoModelForSeq2SeqLM.from_pretrained(folder).config.encoder_layers == 2


def test_the_folder_is_whole_and_translates(original, tmp_path, caplog):
    files, _ = original.write(tmp_path)
    out = tmp_path / "model"
    folder = import_fairseq(**files, output_dir=out, moses=None, direction="en-de")
    model, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForSeq2SeqLM, AutoTokenizer)
    )
    assert model.config.directions == ["en-de"]
    assert len(translate(model, tokenizer, ["a dog bar@@ ks .", ""], num_iterations=2)) == 2
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert again("a dog").input_ids == tokenizer("a dog").input_ids == [5, 6, EOS]
    assert not list(tmp_path.glob(".unfinished*"))


def front_matter(folder):
    from huggingface_hub import ModelCard

    return ModelCard.load(folder / "README.md").data


def test_the_card_carries_the_license_of_the_published_weights(original, tmp_path, caplog):
    files, _ = original.write(tmp_path)
    out = tmp_path / "published"
    folder = import_fairseq(**files, output_dir=out, moses=None, direction="en-de")
    data, text = front_matter(folder), (folder / "README.md").read_text()
    assert data.license == "cc-by-nc-4.0" and data.language == ["en", "de"]
    assert data.pipeline_tag == "translation" and data.library_name == "transformers"
    assert "**CC-BY-NC-4.0**" in text and "num_iterations=10" in text
    own = import_fairseq(**files, output_dir=tmp_path / "own", moses=None, license="mit")
    assert front_matter(own).license == "mit"
    assert "allows no commercial" not in (own / "README.md").read_text()


def changed(original, tmp_path, change=None, changes=None, **more):
    """A checkpoint after `change(state, args)`; what to import."""
    files, model = original.write(tmp_path, **changes or {})
    state, args = dict(model.state), model.args
    if change is not None:
        change(state, args)
    original.save(files["checkpoint"], args, state, **more)
    return files


def refused(files, tmp_path, words, kind=ValueError, **more):
    with pytest.raises(kind, match=re.escape(words)) as caught:
        import_fairseq(**files, output_dir=tmp_path / "out", moses=None, **more)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".unfinished*"))
    return str(caught.value)


OF_TENSORS = {
    "missing": (
        lambda s, a: s.pop("encoder.layers.1.fc1.bias"),
        "encoder.layers.1.fc1.bias (24,) is missing",
    ),
    "a whole projection is missing": (
        lambda s, a: s.pop("decoder.layers.0.encoder_attn.in_proj_weight"),
        "decoder.layers.0.encoder_attn.in_proj_weight (48, 16) is missing",
    ),
    "left over": (
        lambda s, a: s.update({"decoder.layers.2.fc1.weight": torch.ones(2, 3)}),
        "decoder.layers.2.fc1.weight (2, 3) has no place",
    ),
    "an output of its own beside shared embeddings": (
        lambda s, a: s.update({"decoder.embed_out": torch.ones(24, 16)}),
        "decoder.embed_out (24, 16) has no place",
    ),
    "another shape": (
        lambda s, a: s.update({"encoder.embed_lengths.weight": torch.ones(16, 16)}),
        "encoder.embed_lengths.weight has shape (16, 16), not (17, 16)",
    ),
    "fewer rows than symbols": (
        lambda s, a: s.update({"encoder.embed_tokens.weight": torch.ones(23, 16)}),
        "(23, 16), not (24, 16). The dictionary must be the very dict.*.txt",
    ),
    "embeddings that are not shared": (
        lambda s, a: s.update({"decoder.embed_tokens.weight": torch.ones(24, 16)}),
        "encoder's and decoder's differ",
    ),
    "not a number": (
        lambda s, a: s.update({"decoder.layers.0.fc2.bias": torch.full((16,), torch.nan)}),
        "decoder.layers.0.fc2.bias holds what is no number",
    ),
    "integers": (
        lambda s, a: s.update({"decoder.layers.0.fc2.bias": torch.ones(16).long()}),
        "decoder.layers.0.fc2.bias holds what is no number",
    ),
    "FSDP": (lambda s, a: s.update({"encoder.flat_param_0": torch.ones(9)}), "FSDP"),
}


@pytest.mark.parametrize("name", OF_TENSORS)
def test_each_tensor_is_accounted_for_or_named(original, tmp_path, name):
    change, words = OF_TENSORS[name]
    refused(changed(original, tmp_path, change), tmp_path, words)


OF_ARGUMENTS = {
    "normalize_before per side": ({"encoder_normalize_before": True}, "is set, not both"),
    "width per side": ({"decoder_embed_dim": 32}, "decoder_embed_dim is 32, and encoder_embed_dim"),
    "a projection at the end": ({"decoder_output_dim": 8}, "decoder_output_dim is 8"),
    "clusters": ({"adaptive_softmax_cutoff": "10,20"}, "adaptive_softmax_cutoff is '10,20'"),
    "elmo": ({"encoder_embed_path": "elmo:/x"}, "encoder_embed_path is 'elmo:/x'"),
    "dynamic length": ({"dynamic_length": True}, "dynamic_length is True"),
    "autoregressive": ({"arch": "transformer_wmt_en_de"}, "'transformer_wmt_en_de'"),
    "editing": ({"arch": "levenshtein_transformer"}, "'levenshtein_transformer'"),
    "the big one with a small encoder": (
        {"arch": "bert_transformer_seq2seq_big", "decoder_embed_dim": None},
        "decoder_embed_dim is 1024, and encoder_embed_dim 16",
    ),
    "heads that do not divide": ({"encoder_attention_heads": 3}, "`encoder_attention_heads` must"),
}


@pytest.mark.parametrize("name", OF_ARGUMENTS)
def test_settings_without_a_place_are_named(original, tmp_path, name):
    changes, words = OF_ARGUMENTS[name]
    refused(
        changed(original, tmp_path, lambda s, a: vars(a).update(changes)),
        tmp_path,
        words,
        kind=Exception if "divide" in name else ValueError,
    )


def test_the_end_of_an_old_encoder_that_is_not_normalised_has_no_place(original, tmp_path):
    def old(state, args):
        state["encoder.version"] = torch.tensor([1.0])

    files = changed(original, tmp_path, old, original.PRE_NORM)
    refused(files, tmp_path, "not normalised at its end")


def test_fairseqs_later_cmlm_is_refused_with_all_that_has_no_place(original, tmp_path):
    def later(state, args):
        args.arch = "cmlm_transformer_wmt_en_de"
        del state["encoder.embed_lengths.weight"], state["encoder.embed_positions.weight"]
        state["decoder.embed_length.weight"] = torch.ones(256, 16)

    told = refused(changed(original, tmp_path, later), tmp_path, "cmlm_transformer")
    for words in ("decoder.embed_length.weight (256, 16)", "sinusoidal", "<s> and </s>", "student"):
        assert words in told


def test_what_is_no_whole_checkpoint_is_refused(original, tmp_path):
    files, model = original.write(tmp_path)

    def with_file(name, content):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            torch.save(content, tmp_path / name)
        return files | {"checkpoint": tmp_path / name}

    whole = files["checkpoint"].read_bytes()
    refused(
        files | {"checkpoint": tmp_path / "none.pt"}, tmp_path, "no checkpoint", FileNotFoundError
    )
    refused(files | {"checkpoint": tmp_path}, tmp_path, "is a folder: give one file")
    refused(with_file("text.pt", b"hello"), tmp_path, "cannot be read as a checkpoint")
    refused(with_file("empty.pt", b""), tmp_path, "cannot be read as a checkpoint")
    refused(with_file("cut.pt", whole[: len(whole) // 2]), tmp_path, "cannot be read")
    refused(with_file("list.pt", [1]), tmp_path, "must be a checkpoint of fairseq")
    refused(with_file("bare.pt", model.state), tmp_path, "must be a checkpoint of fairseq")
    refused(with_file("alone.pt", {"model": model.state}), tmp_path, "'args' or 'cfg'")
    for settings in (5, "x", [1], torch.ones(2)):
        file = with_file("odd.pt", {"model": model.state, "args": settings})
        refused(file, tmp_path, "must be of Mask-Predict")
    refused(with_file("no.pt", {"model": {"a": 1}}), tmp_path, "a is none")
    shard = with_file("checkpoint_best-model_part-0.pt", whole)
    refused(shard, tmp_path, "a part of the weights")
    refused(with_file("checkpoint_last-shard1.pt", whole), tmp_path, "a part of the weights")


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_nothing_in_a_file_is_run(original, tmp_path):
    import os
    import subprocess

    touched = tmp_path / "touched"
    calls = {
        "posix.system": (os.system, f"touch {touched}"),
        "Popen": (subprocess.Popen, ["touch", str(touched)]),
        "eval": (eval, f"open({str(touched)!r}, 'w')"),
        "pathlib": (Path.touch, touched),
    }
    files, model = original.write(tmp_path)
    for is_legacy in (False, True):
        for name, call in calls.items():
            more = {"is_legacy": is_legacy, "extra_state": Evil(*call)}
            original.save(files["checkpoint"], model.args, model.state, **more)
            told = refused(files, tmp_path, "read")
            assert "was not read" in told or "cannot be read" in told, told
            assert name.split(".")[0] in told or name == "pathlib"
    assert not touched.exists()


def test_a_name_of_fairseq_gets_nothing_but_a_stand_in(original, tmp_path):
    """Were there such a module, its code would not be run."""
    files, model = original.write(tmp_path)
    with original.modules_of_fairseq() as modules:

        def run(path):
            Path(path).touch()

        run.__module__, run.__qualname__ = "fairseq.meters", "run"
        modules["fairseq.meters"].run = run
        evil = Evil(run, str(tmp_path / "touched"))
        state = {"model": model.state, "args": model.args, "extra_state": evil}
        torch.save(state, files["checkpoint"])
        import_fairseq(**files, output_dir=tmp_path / "model", moses=None)
    assert not (tmp_path / "touched").exists()


def test_a_folder_that_holds_something_is_left_alone(original, tmp_path):
    files, _ = original.write(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="output_dir"):
        import_fairseq(**files, output_dir=tmp_path / "mine", moses=None)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["mine.txt"]


def test_the_configuration_file_is_plain(imported):
    folder, _ = imported("A, all embeddings shared")
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "cmlm" and config["tie_word_embeddings"]
    assert config["architectures"] == ["CmlmForConditionalGeneration"]
