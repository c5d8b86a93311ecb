"""Mask-Predict's model as its papers and our notes have it, in plain functions over a checkpoint.

Nothing of axe_hf is used: tests hold what an import makes of the same checkpoint to it. Tensors
have the original's names and shapes, and weights are drawn.
"""

import argparse
import sys
import types
from contextlib import contextmanager

import numpy
import torch
from torch.nn import functional as F

PAD, EOS, UNK, MASK = 1, 2, 3, 4
SIZES = {
    "arch": "bert_transformer_seq2seq",
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_embed_dim": 16,
    "decoder_ffn_embed_dim": 20,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "encoder_normalize_before": False,
    "decoder_normalize_before": False,
    "no_enc_token_positional_embeddings": False,
    "no_dec_token_positional_embeddings": False,
    "share_all_embeddings": True,
    "share_decoder_input_output_embed": True,
    "max_source_positions": 19,
    "max_target_positions": 17,
    "dropout": 0.3,
    "attention_dropout": 0.0,
    "relu_dropout": 0.1,
    "label_smoothing": 0.1,
}
ALONE = {"share_all_embeddings": False, "share_decoder_input_output_embed": False}
PRE_NORM = {"encoder_normalize_before": True, "decoder_normalize_before": True}
WITHOUT_POSITIONS = {f"no_{side}_token_positional_embeddings": True for side in ("enc", "dec")}
# What differs from SIZES; "half" and "names" are not arguments but how the file is written.
CONFIGURATIONS = {
    "A, all embeddings shared": {},
    "B, normalised before": PRE_NORM,
    "C, the decoder's shared": {"share_all_embeddings": False},
    "D, none shared": ALONE,
    "E, no positions": WITHOUT_POSITIONS,
    "F, other depths": {"encoder_layers": 3, "decoder_layers": 1, "max_source_positions": 11},
    "G, half precision": {"half": True},
    "H, all at once": {**PRE_NORM, **ALONE, **WITHOUT_POSITIONS, "half": True, "names": "new"},
}


def arguments(**changes):
    """The program's arguments, and how the file is to be written."""
    how = {name: changes.pop(name, None) for name in ("half", "names")}
    return argparse.Namespace(**SIZES | changes), how


def weights(args, vocab_size, seed=0, half=False, names=None):
    """Drawn weights by the original's names; with `names="new"` by those of later versions."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=0.4, around=0.0):
        return around + scale * torch.randn(shape, generator=generator)

    state, dim = {}, args.encoder_embed_dim
    letters = ("weight", "bias") if names == "new" else ("gamma", "beta")

    def norm(name):
        state[f"{name}.{letters[0]}"] = draw(dim, scale=0.2, around=1.0)
        state[f"{name}.{letters[1]}"] = draw(dim, scale=0.2)

    def linear(name, rows, columns):
        state[f"{name}.weight"], state[f"{name}.bias"] = draw(rows, columns), draw(rows)

    def attention(name):
        if names == "new":
            for part in "qkv":
                linear(f"{name}.{part}_proj", dim, dim)
        else:
            state[f"{name}.in_proj_weight"] = draw(3 * dim, dim)
            state[f"{name}.in_proj_bias"] = draw(3 * dim)
        linear(f"{name}.out_proj", dim, dim)

    for side, flag in (("encoder", "enc"), ("decoder", "dec")):
        state[f"{side}.version"] = torch.tensor([2.0])
        state[f"{side}.embed_tokens.weight"] = draw(vocab_size, dim)
        state[f"{side}.embed_tokens.weight"][PAD] = 0
        size = args.max_source_positions if side == "encoder" else args.max_target_positions
        if not getattr(args, f"no_{flag}_token_positional_embeddings"):
            state[f"{side}.embed_positions.weight"] = draw(size + PAD + 1, dim)
        for i in range(getattr(args, f"{side}_layers")):
            layer, ffn = f"{side}.layers.{i}", getattr(args, f"{side}_ffn_embed_dim")
            attention(f"{layer}.self_attn")
            linear(f"{layer}.fc1", ffn, dim)
            linear(f"{layer}.fc2", dim, ffn)
            if side == "encoder" and names != "new":
                norm(f"{layer}.layer_norms.0")
                norm(f"{layer}.layer_norms.1")
                continue
            norm(f"{layer}.self_attn_layer_norm")
            norm(f"{layer}.final_layer_norm")
            if side == "decoder":
                attention(f"{layer}.encoder_attn")
                norm(f"{layer}.encoder_attn_layer_norm")
        if getattr(args, f"{side}_normalize_before"):
            norm(f"{side}.layer_norm")
    state["encoder.embed_lengths.weight"] = draw(args.max_target_positions, dim)
    if args.share_all_embeddings:
        state["decoder.embed_tokens.weight"] = state["encoder.embed_tokens.weight"]
    elif not args.share_decoder_input_output_embed:
        state["decoder.embed_out"] = draw(vocab_size, dim)
    return {n: t.half() if half and "version" not in n else t for n, t in state.items()}


class Original:
    """The model's computation, in fp32: `logits` and `length_logits` of one batch."""

    def __init__(self, args, state):
        self.args = args
        self.state = {name: tensor.float() for name, tensor in state.items()}

    @torch.no_grad()
    def __call__(self, source, canvas):
        """Of `source` (batch, source), `canvas` (batch, canvas), `<pad>` behind their ends."""
        is_padding, states = source.eq(PAD), self._embedded("encoder", source)
        lengths = self.state["encoder.embed_lengths.weight"]
        states = torch.cat([lengths[0].expand(len(source), 1, -1), states], dim=1)
        is_masked = F.pad(is_padding, (1, 0), value=False)
        for i in range(self.args.encoder_layers):
            layer = f"encoder.layers.{i}"
            states = self._block(
                layer,
                "0",
                states,
                lambda x, at=layer: self._attend(at, "self_attn", x, x, is_masked),
            )
            states = self._block(layer, "1", states, lambda x, at=layer: self._inner(at, x))
        states = self._ended("encoder", states)
        length_logits, states = states[:, 0] @ lengths.T, states[:, 1:]

        hidden, is_outside = self._embedded("decoder", canvas), canvas.eq(PAD)
        for i in range(self.args.decoder_layers):
            layer = f"decoder.layers.{i}"
            hidden = self._block(
                layer,
                "self_attn_layer_norm",
                hidden,
                lambda x, at=layer: self._attend(at, "self_attn", x, x, is_outside),
            )
            hidden = self._block(
                layer,
                "encoder_attn_layer_norm",
                hidden,
                lambda x, at=layer: self._attend(at, "encoder_attn", x, states, is_padding),
            )
            hidden = self._block(
                layer, "final_layer_norm", hidden, lambda x, at=layer: self._inner(at, x)
            )
        hidden = self._ended("decoder", hidden)
        output = self.state.get("decoder.embed_out", self.state["decoder.embed_tokens.weight"])
        return hidden @ output.T, length_logits

    def _embedded(self, side, ids):
        states = F.embedding(ids, self.state[f"{side}.embed_tokens.weight"])
        table = self.state.get(f"{side}.embed_positions.weight")
        if table is None:
            return states
        # The first word is at PAD + 1; padding has the row PAD, and is never looked at.
        is_word = ids.ne(PAD)
        return states + table[is_word.cumsum(1) * is_word + PAD]

    def _norm(self, name, states):
        names = ("gamma", "beta") if f"{name}.gamma" in self.state else ("weight", "bias")
        mean = states.mean(-1, keepdim=True)
        variance = (states - mean).square().mean(-1, keepdim=True)
        gamma, beta = (self.state[f"{name}.{n}"] for n in names)
        return gamma * (states - mean) / torch.sqrt(variance + 1e-12) + beta

    def _ended(self, side, states):
        is_before = getattr(self.args, f"{side}_normalize_before")
        return self._norm(f"{side}.layer_norm", states) if is_before else states

    def _block(self, layer, norm, states, function):
        if norm in ("0", "1"):
            new = ("self_attn_layer_norm", "final_layer_norm")[int(norm)]
            is_old = f"{layer}.layer_norms.{norm}.gamma" in self.state
            norm = f"layer_norms.{norm}" if is_old else new
        name, side = f"{layer}.{norm}", layer.split(".")[0]
        if getattr(self.args, f"{side}_normalize_before"):
            return states + function(self._norm(name, states))
        return self._norm(name, states + function(states))

    def _inner(self, layer, states):
        first, second = (
            (self.state[f"{layer}.{name}.weight"], self.state[f"{layer}.{name}.bias"])
            for name in ("fc1", "fc2")
        )
        hidden = F.linear(states, *first)
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        return F.linear(hidden, *second)

    def _attend(self, layer, kind, queries, others, is_masked):
        name, heads = f"{layer}.{kind}", getattr(self.args, f"{layer[:7]}_attention_heads")
        thirds = {}
        for part in ("weight", "bias"):
            whole = self.state.get(f"{name}.in_proj_{part}")
            if whole is None:
                whole = torch.cat([self.state[f"{name}.{p}_proj.{part}"] for p in "qkv"])
            thirds[part] = whole
        found, _ = F.multi_head_attention_forward(
            queries.transpose(0, 1),
            others.transpose(0, 1),
            others.transpose(0, 1),
            queries.shape[-1],
            heads,
            thirds["weight"],
            thirds["bias"],
            None,
            None,
            False,
            0.0,
            self.state[f"{name}.out_proj.weight"],
            self.state[f"{name}.out_proj.bias"],
            training=False,
            key_padding_mask=is_masked,
            need_weights=False,
        )
        return found.transpose(0, 1)


@contextmanager
def modules_of_fairseq():
    """Classes that a checkpoint names, as long as it is written; afterwards nobody has them."""
    made = {}
    for name, kinds in {
        "fairseq": (),
        "fairseq.meters": ("AverageMeter", "TimeMeter", "StopwatchMeter"),
        "omegaconf": (),
        "omegaconf.dictconfig": ("DictConfig",),
        "omegaconf.nodes": ("AnyNode",),
    }.items():
        made[name] = types.ModuleType(name)
        for kind in kinds:
            setattr(made[name], kind, type(kind, (), {"__module__": name}))
    sys.modules.update(made)
    try:
        yield made
    finally:
        for name in made:
            del sys.modules[name]


def save(path, args, state, is_legacy=False, **more):
    """A checkpoint as the trainer writes it: optimizer, meters and all."""
    with modules_of_fairseq() as modules:
        meters = modules["fairseq.meters"]
        meter, watch = meters.AverageMeter(), meters.StopwatchMeter()
        meter.__dict__.update(val=1.5, avg=2.5, sum=5.0, count=2)
        watch.__dict__.update(sum=3.0, n=1, start_time=None)
        moments = {i: {"step": 3, "exp_avg": torch.zeros(4)} for i in range(2)}
        whole = {
            "args": args,
            "model": state,
            "optimizer_history": [{"criterion_name": "C", "num_updates": 3, "best_loss": 2.0}],
            "last_optimizer_state": {"state": moments, "param_groups": [{"lr": 1e-4}]},
            "extra_state": {
                "train_iterator": {"epoch": 2},
                "val_loss": 2.0,
                "best": numpy.float64(2.5),
                "train_meters": {"train_loss": meter, "wall": meters.TimeMeter(), "w": watch},
            },
        } | more
        whole = {key: value for key, value in whole.items() if value is not None}
        torch.save(whole, path, _use_new_zipfile_serialization=not is_legacy)
    return path


def write_dictionary(path, words, padding_factor=8):
    """A `dict.txt` of words, filled up as the preprocessing does; the number of symbols."""
    lines = [f"{word} {1000 - i}" for i, word in enumerate(words)]
    num_missing = -(len(lines) + 5) % padding_factor
    lines += [f"madeupword{i:04d} 0" for i in range(num_missing)]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return len(lines) + 5


WORDS = ["a", "dog", "bar@@", "ks", ".", "ein", "Hund", "bellt", "lo@@", "w", "er", "we@@", "st"]


def write(folder, words=WORDS, seed=0, is_legacy=False, **changes):
    """Checkpoint and dictionary in a folder; what `import_fairseq` takes, and the model."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_dictionary(folder / "dict.txt", words)
    args, how = arguments(**changes)
    state = weights(args, vocab_size, seed, **how)
    save(folder / "checkpoint_best.pt", args, state, is_legacy)
    files = {name: folder / "dict.txt" for name in ("dict_source", "dict_target")}
    return {"checkpoint": folder / "checkpoint_best.pt", **files}, Original(args, state)
