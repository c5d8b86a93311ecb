"""Parts of a model whose weights stay as they are while the others train."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from .distributed import own_name, reshard

# What `freeze` may name; the length head belongs to none of them.
PARTS = ("encoder", "decoder", "embeddings")


@contextmanager
def frozen(model: Any, parts: Sequence[str] | None) -> Iterator[None]:
    """Inside, the weights of these `parts` of a CMLM ask for no gradient; of an adapter's, too.

    Raises ValueError where nothing is left to train, or a blank could not be learned.
    """
    own = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "embeddings" in (parts or ()) and own.config.tie_word_embeddings:
        _check_blank(own)
    weights = [weight for part in parts or () for weight in _weights_of(own, part)]
    stopped = [weight for weight in weights if weight.requires_grad]
    names = _names_of(model, stopped)
    for weight in stopped:
        weight.requires_grad_(False)
    try:
        if stopped and not any(weight.requires_grad for weight in model.parameters()):
            problem = f"`freeze` is {', '.join(parts or ())}, which leaves nothing to train"
            raise ValueError(f"{problem}. An adapter's weights in a part stop with it.")
        yield
    finally:
        reshard(model)  # FSDP2 has put others in their place, and asks those that lie spread
        for name, weight in model.named_parameters():
            if own_name(name) in names:
                weight.requires_grad_(True)


def _names_of(model: nn.Module, weights: Sequence[nn.Parameter]) -> set[str]:
    among = {id(weight) for weight in weights}
    return {own_name(name) for name, weight in model.named_parameters() if id(weight) in among}


def _weights_of(model: Any, part: str) -> list[nn.Parameter]:
    """The encoder's or decoder's layers, norms, positions and embeddings, if these are its own.

    Or the embeddings of all symbols.
    """
    encoder, decoder = model.model.encoder, model.model.decoder
    if part != "embeddings":
        named = {"encoder": encoder, "decoder": decoder}[part].named_parameters()
        others = ["embed_lengths."]
        others += ["embed_tokens."] if model.config.tie_word_embeddings else []
        return [weight for name, weight in named if not name.startswith(tuple(others))]
    modules = [encoder.embed_tokens, decoder.embed_tokens]
    modules += [model.lm_head] if model.config.tie_word_embeddings else []
    return [weight for module in modules for weight in module.parameters()]


def _check_blank(model: Any) -> None:
    """Refuse to keep a blank that can never be said: the mean of all rows never scores highest."""
    if model.config.training_loss != "axe":
        return
    rows = model.lm_head.weight.detach().float()  # (vocab, d_model)
    distance = (rows[model.config.blank_token_id] - rows.mean(dim=0)).norm()
    if distance < 0.1 * rows.std(dim=0).norm():  # 1 for a row like others
        start = "as it is at the start from another model's weights"
        reason = f"the blank's is the mean of all, {start}, and so never the best"
        raise ValueError(f"`freeze` has the embeddings, but {reason}. Leave them out of it.")
