import json
import math

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, BartConfig, MarianConfig

from axe_hf import (
    CmlmConfig,
    CmlmForConditionalGeneration,
    CmlmModel,
    MaskPredictGenerationConfig,
)
from axe_hf.cmlm.configuration_cmlm import needs_room


def test_defaults_are_mask_predicts_base_model():
    config = CmlmConfig()
    assert (config.encoder_layers, config.decoder_layers) == (6, 6)
    assert (config.d_model, config.encoder_ffn_dim, config.decoder_ffn_dim) == (512, 2048, 2048)
    assert (config.encoder_attention_heads, config.decoder_attention_heads) == (8, 8)
    assert config.activation_function == "gelu"
    assert (config.dropout, config.init_std, config.layer_norm_eps) == (0.3, 0.02, 1e-12)
    assert (config.position_embedding_type, config.normalize_before) == ("learned", False)
    assert not config.scale_embedding and config.tie_word_embeddings


def test_the_names_transformers_looks_for_are_there():
    config = CmlmConfig(d_model=64, encoder_layers=3, encoder_attention_heads=4)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (64, 3, 4)
    assert config.is_encoder_decoder and not config.use_cache
    assert config.model_type == "cmlm"


CHANGED = {
    "vocab_size": 77,
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 56,
    "activation_function": "relu",
    "dropout": 0,
    "attention_dropout": 0.1,
    "activation_dropout": 0.2,
    "normalize_before": True,
    "position_embedding_type": "sinusoidal",
    "scale_embedding": True,
    "layernorm_embedding": True,
    "layer_norm_eps": 1e-5,
    "init_std": 0.1,
    "max_source_length": 31,
    "max_target_length": 33,
    "tie_word_embeddings": False,
    "output_bias": True,
    "directions": ["en-de", "zh-CN:en"],
    "source_prefix": "to German: ",
    "hide_length_token": True,
    "pad_token_id": 9,
    "eos_token_id": 8,
    "mask_token_id": 7,
    "blank_token_id": 6,
    "training_loss": "cross_entropy",
    "axe_delta": 3,
    "label_smoothing": 0.1,
    "length_loss_weight": 0.5,
    "fused_loss": "always",
    "masking": "full",
    "allow_repetition": False,  # this and what follows: what cross entropy can be trained with
    "axe_temperature": 0,
    "length_multiplier": 1,
    "length_jitter": 0,
}


def test_every_option_survives_save_and_load(tmp_path):
    CmlmConfig(**CHANGED).save_pretrained(tmp_path)
    config = CmlmConfig.from_pretrained(tmp_path)
    assert {name: getattr(config, name) for name in CHANGED} == CHANGED
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "cmlm"


def test_the_list_of_changed_options_above_is_complete():
    own = {name for name in vars(CmlmConfig).get("__annotations__", {})}
    never_changed = {"is_encoder_decoder", "use_cache", "decoder_start_token_id"}
    assert own - never_changed == set(CHANGED)


@pytest.mark.parametrize(
    ("directions", "text", "target", "expected"),
    [
        (None, "Hi", "xx", "Hi"),
        (["en-de"], "Hi", None, "Hi"),
        (["en-de", "fr-de"], "Hi", "de", "Hi"),
        (["en-de", "zh-CN:pt-BR"], "Hi", "pt-BR", ">>pt-BR<< Hi"),
        (["en-de", "de-en"], ">>en<< Hi", None, ">>en<< Hi"),
    ],
)
def test_sources_are_tagged_where_several_targets_are_known(directions, text, target, expected):
    assert CmlmConfig(directions=directions).tagged(text, target) == expected


@pytest.mark.parametrize(
    ("directions", "text", "target", "expected"),
    [
        (None, "Hi", None, "so: Hi"),
        (["en-de"], "so: Hi", "de", "so: Hi"),
        (["en-de", "de-en"], "Hi", "de", ">>de<< so: Hi"),
        (["en-de", "de-en"], " >>en<<  Hi", None, ">>en<< so: Hi"),
        (["en-de", "de-en"], ">>en<< so: Hi", "de", ">>de<< so: Hi"),
        (["en-de", "de-en"], ">>en<< so: Hi", None, ">>en<< so: Hi"),
    ],
)
def test_a_prefix_stands_between_tag_and_text_once(directions, text, target, expected):
    config = CmlmConfig(directions=directions, source_prefix="so: ")
    assert config.tagged(text, target) == expected
    assert config.tagged(expected) == expected


@pytest.mark.parametrize(("text", "target"), [("Hi", None), ("Hi", "fr"), (">>fr<< Hi", None)])
def test_a_language_that_is_missing_or_unknown_is_refused(text, target):
    with pytest.raises(ValueError, match=r"`target_lang` must .*\['de', 'en'\]"):
        CmlmConfig(directions=["en-de", "de-en"]).tagged(text, target)


@pytest.mark.parametrize("direction", ["en", "en-de-fr", "zh-CN-en", "-de", "a b-de", "a:b:c"])
def test_a_direction_is_two_codes(direction):
    with pytest.raises(Exception, match="`directions` must hold two language codes"):
        CmlmConfig(directions=[direction])


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"vocab_size": 0}, "`vocab_size` must be at least 1, got 0"),
        ({"max_target_length": 0}, "`max_target_length` must be at least 1, got 0"),
        ({"max_source_length": 0}, "`max_source_length` must be at least 1, got 0"),
        ({"encoder_attention_heads": 7}, "`encoder_attention_heads` must divide `d_model`, got 7"),
        ({"decoder_attention_heads": 0}, "`decoder_attention_heads` must divide `d_model`, got 0"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\), got 1.0"),
        ({"activation_dropout": -0.1}, r"`activation_dropout` must be in \[0, 1\), got -0.1"),
        ({"axe_delta": -1.0}, "`axe_delta` must be >= 0 or infinite, got -1.0"),
        ({"label_smoothing": 1.0}, r"`label_smoothing` must be in \[0, 1\), got 1.0"),
        ({"length_loss_weight": -0.5}, "`length_loss_weight` must be >= 0, got -0.5"),
        ({"pad_token_id": None}, "`pad_token_id` must be .*, got None"),
        ({"eos_token_id": [1, 2]}, r"`eos_token_id` must be .*, got \[1, 2\]"),
        ({"blank_token_id": -1}, "`blank_token_id` must be .*, got -1"),
        ({"blank_token_id": 3}, "pad, end, mask and blank must be four different tokens"),
        ({"training_loss": "ctc"}, "training_loss"),
        ({"position_embedding_type": "rotary"}, "position_embedding_type"),
        ({"d_model": 64.0}, "d_model"),
        ({"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_wrong_options_are_named(wrong, complaint):
    with pytest.raises(Exception, match=complaint):
        CmlmConfig(**wrong)


def test_layers_may_be_none_but_not_negative():
    with pytest.raises(Exception, match="decoder_layers"):
        CmlmConfig(decoder_layers=-1)


def test_special_tokens_lie_inside_the_vocabulary():
    with pytest.raises(Exception, match="blank_token_id"):
        CmlmConfig(vocab_size=4, blank_token_id=4)


def test_an_unknown_activation_function_is_named():
    with pytest.raises(Exception, match="activation_function"):
        CmlmConfig(activation_function="gellu")


def test_wrong_assignments_are_refused_too():
    config = CmlmConfig()
    with pytest.raises(Exception, match="axe_delta"):
        config.axe_delta = "much"


@pytest.mark.parametrize("size", [10**9, 10**12, 10**30])
@pytest.mark.parametrize(
    "name", ["encoder_layers", "decoder_layers", "vocab_size", "d_model", "max_target_length"]
)
def test_sizes_without_end_are_refused(name, size):
    with pytest.raises(StrictDataclassError, match=f"`{name}` must be at most [0-9]+, got {size}"):
        CmlmConfig(**{name: size})


OTHERS = {"marian": MarianConfig, "bart": BartConfig}


@pytest.mark.parametrize("kind", OTHERS)
def test_the_checkpoint_of_another_kind_of_model_is_named_for_what_it_is(kind, tmp_path):
    OTHERS[kind]().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"forced_eos_token_id": 0}')
    loaders = (CmlmConfig, CmlmModel, CmlmForConditionalGeneration)
    for load in [each.from_pretrained for each in loaders]:
        with pytest.raises(ValueError, match=f"This is a {kind} checkpoint, not a cmlm.*Auto"):
            load(tmp_path)
    with pytest.raises(ValueError, match=f"This is a {kind} checkpoint, not a cmlm"):
        CmlmConfig.from_dict(OTHERS[kind]().to_dict())
    assert AutoConfig.from_pretrained(tmp_path).model_type == kind


REMOTE = {
    "auto_map": {"AutoConfig": "configuration_cmlm.CmlmConfig"},
    "custom_pipelines": {"translation": {"impl": "pipeline.CmlmTranslationPipeline", "pt": []}},
}


def test_the_code_that_keys_name_is_saved_with_them(tmp_path):
    config = CmlmConfig(vocab_size=20, d_model=8, **REMOTE)
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: saved[name] for name in REMOTE} == REMOTE
    names = {path.name for path in tmp_path.glob("*.py")}
    assert names == {"configuration_cmlm.py", "configuration_mask_predict.py", "pipeline.py"}
    assert (config.auto_map, config.custom_pipelines) == tuple(REMOTE.values())


@pytest.mark.parametrize("kept", [{}, REMOTE])
def test_code_is_carried_for_as_long_as_it_is_asked_for(tmp_path, kept):
    config = CmlmConfig(vocab_size=20, d_model=8, **kept)
    with pytest.raises(OSError, match="full"), config.with_code():
        config.save_pretrained(tmp_path / "with")
        raise OSError("disk full")
    assert (tmp_path / "with" / "modeling_cmlm.py").is_file()
    assert {name: vars(config)[name] for name in REMOTE if name in vars(config)} == kept


def test_a_users_own_code_is_left_in(tmp_path):
    own = {"auto_map": {"AutoModel": "mine.Model"}}
    CmlmConfig(vocab_size=20, d_model=8, **own).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == own["auto_map"]


def test_the_recipe_of_the_canvas_is_saved_and_is_what_decoding_goes_by(tmp_path):
    recipe = {"masking": "full", "length_multiplier": 1.4, "length_jitter": 0.2}
    CmlmConfig(**recipe).save_pretrained(tmp_path)
    config = CmlmConfig.from_pretrained(tmp_path)
    assert recipe.items() <= config.to_dict().items()
    assert MaskPredictGenerationConfig.from_model_config(config).length_multiplier == 1.4
    (tmp_path / "config.json").write_text('{"model_type": "cmlm"}')  # saved before there was one
    config = CmlmConfig.from_pretrained(tmp_path)
    assert (config.masking, config.length_multiplier, config.length_jitter) == ("uniform", 1.0, 0.0)


@pytest.mark.parametrize(
    ("recipe", "complaint"),
    [
        ({"masking": "some"}, "masking"),
        ({"masking": "full", "length_multiplier": -1.0}, "`length_multiplier` must be > 0"),
        ({"masking": "full", "length_jitter": 1.0}, r"`length_jitter` must be in \[0, 1\)"),
        (
            {"masking": "full", "length_multiplier": 1.4, "training_loss": "cross_entropy"},
            "cross entropy needs a label",
        ),
    ],
)
def test_canvases_that_cannot_be_are_refused(recipe, complaint):
    with pytest.raises(Exception, match=complaint):
        CmlmConfig(**recipe)


FLOATS = ("axe_temperature", "length_loss_weight", "init_std", "layer_norm_eps", "label_smoothing")
FLOATS += ("dropout", "attention_dropout", "activation_dropout", "length_multiplier")


@pytest.mark.parametrize("name", [*FLOATS, "length_jitter"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_no_number_of_the_configuration_is_nan_infinite_or_negative(name, value):
    with pytest.raises(Exception, match=f"`{name}` must be .*, got {value}"):
        CmlmConfig(masking="full", **{name: value})


def test_cross_entropy_keeps_its_canvases_whatever_delta_is():
    assert needs_room(CmlmConfig(axe_delta=math.inf))
    assert not needs_room(CmlmConfig(training_loss="cross_entropy", axe_delta=math.inf))


@pytest.mark.parametrize("value", [math.nan, -math.inf, -0.5, True])
def test_delta_may_be_infinite_but_not_this(value):
    with pytest.raises(Exception, match="axe_delta"):
        CmlmConfig(axe_delta=value)


@pytest.mark.parametrize(
    "family",
    [
        {"allow_repetition": True, "axe_temperature": 1, "axe_delta": math.inf},
        {"allow_repetition": True, "axe_temperature": 0.3, "axe_delta": 2.5},
        {"allow_repetition": False, "axe_temperature": 0.0, "axe_delta": math.inf},
    ],
)
def test_the_alignment_family_is_saved_and_loaded(tmp_path, family):
    CmlmConfig(**family).save_pretrained(tmp_path)
    strict = {"parse_constant": lambda name: pytest.fail(f"{name} is no JSON")}
    json.loads((tmp_path / "config.json").read_text(), **strict)
    for kind in (CmlmConfig, AutoConfig):
        loaded = kind.from_pretrained(tmp_path)
        assert {name: getattr(loaded, name) for name in family} == family
    assert CmlmConfig.from_dict(CmlmConfig(**family).to_dict()).axe_delta == family["axe_delta"]


def test_a_configuration_of_before_the_family_is_that_of_the_paper(tmp_path):
    CmlmConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["allow_repetition"], saved["axe_temperature"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    config = CmlmConfig.from_pretrained(tmp_path)
    assert (config.allow_repetition, config.axe_temperature) == (False, 0)


@pytest.mark.parametrize(
    ("family", "complaint"),
    [
        ({"allow_repetition": True}, "`allow_repetition` is True, but .* Set it to False"),
        ({"axe_temperature": 0.5}, "`axe_temperature` is 0.5, but cross entropy aligns nothing"),
        ({"allow_repetition": 1}, "allow_repetition"),
        ({"axe_temperature": "1"}, "axe_temperature"),
    ],
)
def test_cross_entropy_has_no_alignment_to_set(family, complaint):
    with pytest.raises(Exception, match=complaint):
        CmlmConfig(training_loss="cross_entropy", **family)


@pytest.mark.parametrize(
    ("name", "value"), [("layer_norm_eps", 0.0), ("length_multiplier", 0), ("decoder_layers", 0)]
)
def test_zero_is_refused_where_it_makes_no_sense(name, value):
    with pytest.raises(Exception, match=f"`{name}` must be .*, got {value}"):
        CmlmConfig(masking="full", **{name: value})
