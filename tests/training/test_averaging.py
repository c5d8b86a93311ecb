import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from axe_hf import CmlmForConditionalGeneration
from axe_hf.training import average_checkpoints


@pytest.fixture
def checkpoints(make_model, tokenizer, tmp_path):
    folders = []
    for number in range(3):
        model = make_model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape)
        folders.append(tmp_path / f"checkpoint-{number}")
        model.save_pretrained(folders[-1])
    tokenizer.save_pretrained(folders[0])
    return folders


def test_every_weight_is_the_mean(checkpoints):
    average = average_checkpoints(checkpoints)
    models = [CmlmForConditionalGeneration.from_pretrained(folder) for folder in checkpoints]
    weights = [dict(model.named_parameters()) for model in models]
    for name, parameter in average.named_parameters():
        mean = torch.stack([w[name] for w in weights]).mean(dim=0)
        torch.testing.assert_close(parameter, mean, msg=name)
    assert average.lm_head.weight is average.model.shared.weight


def test_it_is_saved_like_any_model_with_tied_weights_once(checkpoints, tmp_path):
    average = average_checkpoints(checkpoints, tmp_path / "average")
    with safe_open(tmp_path / "average" / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == {name for name, _ in average.named_parameters()}
    assert "lm_head.weight" not in names
    reloaded = CmlmForConditionalGeneration.from_pretrained(tmp_path / "average")
    torch.testing.assert_close(reloaded.model.shared.weight, average.model.shared.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "average").blank_token_id == 4


def test_bad_input(checkpoints, make_model, tmp_path):
    with pytest.raises(ValueError, match="`checkpoints` must be a list of folders"):
        average_checkpoints([])
    with pytest.raises(ValueError, match="`checkpoints` must be a list of folders"):
        average_checkpoints(str(checkpoints[0]))
    with pytest.raises(ValueError, match="nowhere holds no model"):
        average_checkpoints([checkpoints[0], tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="is not empty"):
        average_checkpoints(checkpoints, checkpoints[0])
    make_model(d_model=16).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="must be of one model: .* has shape"):
        average_checkpoints([checkpoints[0], tmp_path / "other"])
