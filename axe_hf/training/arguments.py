"""Arguments of a training run. Their help in an `HfArgumentParser` and in `axe-hf train` is that of
the docstrings."""

import sys
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from transformers import Seq2SeqTrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.utils import is_in_notebook

from ..cmlm.configuration_cmlm import (
    CONFIG_RANGES,
    CmlmConfig,
    canvas_recipe,
    check_canvas_recipe,
    check_family,
    languages_of,
)
from ..cmlm.configuration_mask_predict import SETTINGS, require
from ..data.mixing import check_weights
from ..declarations import argument_texts
from .best import is_best_high
from .distributed import check_processes
from .freezing import PARTS

_T = TypeVar("_T")
# What an argument must be by itself: Transformers takes NaN, and -1 as a learning rate.
_RANGES = {
    "positive": "num_train_epochs train_minutes",
    ">= 0": "learning_rate weight_decay adam_epsilon max_grad_norm warmup_steps logging_steps "
    "eval_steps save_steps eval_delay neftune_noise_alpha early_stopping_threshold",
    "in [0, 1)": "label_smoothing_factor adam_beta1 adam_beta2",
    "in [0, 1]": "cross_entropy_first align_first draft_share",
    "between 0 and 1 or None": "ema_decay",
    "at least 1": "max_tokens_per_batch per_device_train_batch_size per_device_eval_batch_size "
    "gradient_accumulation_steps eval_accumulation_steps dataloader_prefetch_factor ddp_timeout "
    "early_stopping_patience keep_best",
    "at least 0": "save_total_limit dataloader_num_workers",
    "-1 or at least 1": "max_steps",
    "in [0, 2**32)": "seed",
    "a whole number": "data_seed",
}
_CONFIG_DEFAULTS = {f.name: f.default for f in fields(CmlmConfig)}


def with_help(kind: type[_T]) -> type[_T]:
    """Put what the docstring says of each field, or `CmlmConfig`'s, where parsers look for it."""
    texts = {
        name: f"{text}. Default: {_CONFIG_DEFAULTS[name]}"
        for name, text in argument_texts(CmlmConfig.__doc__).items()
    } | argument_texts(kind.__doc__)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in kind.__annotations__:
            field.metadata = MappingProxyType({"help": texts[field.name]})
    return kind


@with_help
@dataclass
class AxeTrainingArguments(Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the defaults and the few settings a CMLM needs.

    The recipe of Mask-Predict (EMNLP 2019, section 4.1; in brackets): learning rate 5e-4 (5e-4),
    warm-up 5 % of the run (10,000 of 300,000 steps), linear decay (inverse square root; ours,
    because it ends a short run at a rate of 0), Adam's epsilon 1e-6 and second moment 0.999 (the
    same), weight decay 0.01 (0.01), 64 sentences a batch (128,000 tokens).

    Args:
        max_tokens_per_batch (default None): tokens in one batch of one device, padding included
            (rows times the longer side), instead of `per_device_train_batch_size` sentences. On a
            CPU 500 to 2000 learn most per minute; a large GPU takes 8192 and more.
        masking (default None): canvases in training: "uniform" hides 1 to N tokens of each target,
            as Mask-Predict trains; "full" hides all, for models that decode in one pass. None is as
            the model was trained; a new one: uniform.
        length_multiplier (default None): canvas positions per target token in training, with
            `masking="full"` and AXE, and then in decoding. Over 1 it leaves room for blanks,
            without which AXE hardly differs from cross entropy on a full mask; 1.4 serves AXE well.
            None is as the model was trained; a new one: 1.
        length_jitter (default None): share by which each canvas is drawn longer or shorter, under
            the same two conditions, to prepare for lengths predicted wrongly: 0.2 serves AXE well.
            None is as the model was trained; a new one: 0.
        train_minutes (default None): wall-clock budget of the training loop in minutes, evaluation
            and saving not counted. The learning rate follows max(step / max_steps, elapsed /
            budget), and training ends with it. Resuming continues the same budget. Of several
            processes the first one's clock counts.
        cross_entropy_first (default 0): share of the run, in [0, 1], that trains by cross entropy
            before anything else, on fully masked canvases of the target's own length; then the
            model's own loss of AXE's family takes over. So the literature starts losses that align
            (Ghazvininejad et al. 2020, section 4.1; Du et al., "OAXE", ICML 2021). The share is
            counted as the learning rate counts it; evaluation goes by the model's own loss
            throughout; there are no drafts yet.
        align_first (default 0): share of the run, in [0, 1], that trains by the paper's AXE before
            the model's own loss of that family takes over: the best alignment, no repetition, and 3
            where `axe_delta` is infinite. Meant for cold models, which the sum over all alignments
            may keep on a plateau of blanks; it did not free one of long sentences on canvases twice
            as long (examples/benchmarks/README.md). The share is counted as the learning rate
            counts it; evaluation goes by the model's own loss throughout. Ours.
        draft_share (default 0): share of the sentences, in [0, 1], whose canvas shows a part of the
            model's own draft, made by a pass of its own; all is predicted and scored anew, the
            shown too. Further passes of decoding then do no harm, as they do without, and one pass
            is about as good. A step costs half as much again; those of `align_first` have no
            drafts. After SMART (Ghazvininejad et al. 2020, arXiv 2001.08785); on stretched canvases
            it is ours. Needs `masking="full"`.
        freeze (default None): parts whose weights stay as they are in this run: encoder, decoder
            (their layers, norms and positions, and embeddings that are not tied) or embeddings (of
            all symbols, and the output projection where it is tied to them). The length head
            trains. The embeddings of a model just started from another's weights must train, if
            tied: its blank has to be learned. Time is saved where nothing that the encoder reads
            trains: by encoder with --no-tie-word-embeddings, else by encoder and embeddings.
        num_iterations (default None): passes of the decoder that the model is trained for: those of
            evaluation, saved as what decoding takes by default. None is as the model was saved; a
            new one: 1.
        num_length_candidates (default None): lengths that are tried for each sentence in evaluation
            and, saved with the model, in decoding. None is as the model was saved; a new one: 1.
        ema_decay (default None): decay of a moving average of the weights, such as 0.999, which is
            what gets evaluated and saved.
        early_stopping_patience (default None): end training after so many evaluations in a row that
            are no better than the best by `metric_for_best_model`; a resumed run counts on.
        early_stopping_threshold (default 0): by how much an evaluation must be better to count.
        keep_best (default None): checkpoints to keep, besides the last: so many that evaluated best
            by `metric_for_best_model`. In place of `save_total_limit`.
        average_best (default False): end with the average of the `keep_best` checkpoints, as
            Mask-Predict does with 5 (section 4.1), not with the last weights.
        bleu_tokenize (default None): tokenizer of sacreBLEU's for the scores of translations; in a
            whole run that of the target language (zh, ja-mecab or char; else 13a), otherwise 13a.
        num_train_epochs (default None): passes over the training data; 3, or as many as
            `train_minutes` has room for.
        per_device_train_batch_size (default 64): sentences in one batch of one device.
        per_device_eval_batch_size (default 64): sentences in one batch of one device in evaluation.
        learning_rate (default 5e-4): highest learning rate.
        warmup_steps (default 0.05): steps of linear warm-up; below 1, their share of the whole run.
        weight_decay (default 0.01): weight decay of AdamW.
        adam_epsilon (default 1e-6): epsilon of AdamW.
        label_smoothing_factor (default 0): if positive, replaces `label_smoothing` of the model.
        predict_with_generate (default True): translate the evaluation data and score it.
        logging_steps (default 100): log every so many steps, or below 1 this share of the run.
        logging_nan_inf_filter (default False): leave losses that are nan or infinite out of logs.
        save_total_limit (default 5): checkpoints to keep, the newest; see `keep_best`.
        report_to (default "none"): where to log besides the terminal, such as tensorboard or wandb.
        torch_compile (default False): compile encoder and decoder, by `torch_compile_backend` and
            `torch_compile_mode`, once for batches of any shape, which takes a minute or more at the
            first; evaluation is not compiled, nor the loss, whose alignment would be for each
            length. In one process or with DDP.
        ddp_find_unused_parameters (default False): not needed, a CMLM uses all in every step.
        others: as in `Seq2SeqTrainingArguments`.

    Raises:
        ValueError: a value out of its range, or settings that exclude each other.

    Example:
        >>> from axe_hf import AxeTrainingArguments
        >>> args = AxeTrainingArguments("runs/en-de", max_tokens_per_batch=4096, train_minutes=10)
        >>> args.learning_rate, args.predict_with_generate
        (0.0005, True)
    """

    max_tokens_per_batch: int | None = None
    masking: Literal["uniform", "full"] | None = None
    length_multiplier: float | None = None
    length_jitter: float | None = None
    train_minutes: float | None = None
    cross_entropy_first: float = 0.0
    align_first: float = 0.0
    draft_share: float = 0.0
    freeze: list[str] | None = None
    num_iterations: int | None = None
    num_length_candidates: int | None = None
    ema_decay: float | None = None
    early_stopping_patience: int | None = None
    early_stopping_threshold: float = 0.0
    keep_best: int | None = None
    average_best: bool = False
    bleu_tokenize: str | None = None

    num_train_epochs: float | None = None  # type: ignore[assignment]
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 64
    learning_rate: float = 5e-4
    warmup_steps: float = 0.05
    weight_decay: float = 0.01
    adam_epsilon: float = 1e-6
    label_smoothing_factor: float = 0.0
    predict_with_generate: bool = True
    logging_steps: float = 100
    logging_nan_inf_filter: bool = False
    save_total_limit: int | None = 5
    report_to: None | str | list[str] = "none"
    torch_compile: bool = False
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self):
        if self.num_train_epochs is None:  # a run with `train_minutes` ends by its clock
            self.num_train_epochs = 3.0 if self.train_minutes is None else 1e6
        if self.disable_tqdm is None and not (sys.stderr.isatty() or is_in_notebook()):
            self.disable_tqdm = True  # a log gets the lines of each `logging_steps`, and no bars
        self.check()
        self._check_the_best()
        asked_for_eval = self.do_eval
        super().__post_init__()
        check_processes(self)
        if not self.do_train:  # Transformers' asks for one whenever there is an `eval_strategy`
            self.do_eval = asked_for_eval
        if self.device.type == "cpu":  # nothing to copy to; PyTorch warns about it
            self.dataloader_pin_memory = False
            if self.fp16:
                instead = "accelerate would train in float32 without a word"
                raise ValueError(f"`fp16` needs a GPU, on a CPU {instead}. Leave it out.")
        if self.train_minutes is None:
            return
        need = "with `train_minutes`"
        if (schedule := self.lr_scheduler_type.value) not in ("linear", "cosine"):
            known = f"one of linear and cosine {need}, got {schedule!r}"
            raise ValueError(f"`lr_scheduler_type` must be {known}.")
        for name in ("logging_steps", "eval_steps", "save_steps"):
            if 0 < (getattr(self, name) or 0) < 1 and self.max_steps < 0:
                steps = f"a number of steps {need}, not a share, got {getattr(self, name)}"
                raise ValueError(f"`{name}` must be {steps}.")

    def check(self) -> None:
        """Refuse numbers out of range, and what cannot be whatever the model adds."""
        require(_RANGES, vars(self))
        if (both := self.cross_entropy_first + self.align_first) > 1:
            problem = f"are shares of one run, one after the other, and make {both}"
            raise ValueError(f"`cross_entropy_first` and `align_first` {problem}, over 1.")
        if isinstance(self.freeze, str) or set(self.freeze or ()) - {*PARTS}:
            expected = f"a list of parts of the model: {', '.join(PARTS)}"
            raise ValueError(f"`freeze` must be {expected}; got {self.freeze!r}.")
        for name in ("num_iterations", "num_length_candidates"):
            if (value := getattr(self, name)) is not None:
                SETTINGS[name].check(value)
        check_canvas_recipe(canvas_recipe(self))

    def _check_the_best(self) -> None:
        """Refuse a choice of the best among checkpoints that nothing decides."""
        needs = {"early_stopping_threshold": "early_stopping_patience", "average_best": "keep_best"}
        for name, needed in needs.items():
            if (value := getattr(self, name)) and getattr(self, needed) is None:
                raise ValueError(f"`{name}` is {value}, but `{needed}` is not set.")
        if not self.do_train and (self.do_eval or self.do_predict):
            return  # nothing is trained
        evaluated = IntervalStrategy(self.eval_strategy).value
        for name in ("early_stopping_patience", "keep_best"):
            if getattr(self, name) is None:
                continue
            if evaluated == "no":
                problem = "but nothing is evaluated while training: add eval_strategy='steps'"
                raise ValueError(f"`{name}` is {getattr(self, name)}, {problem}.")
            if self.metric_for_best_model is None:  # type: ignore[has-type]
                self.metric_for_best_model = "loss"  # as with `load_best_model_at_end`
        metric = self.metric_for_best_model
        if metric is not None and self.greater_is_better is None:  # type: ignore[has-type]
            self.greater_is_better = is_best_high(metric)
        if self.keep_best is not None:
            self._check_kept(evaluated)

    def _check_kept(self, evaluated: str) -> None:
        """Refuse `keep_best` where a checkpoint may have no score, or another rule keeps some."""
        saved, between = SaveStrategy(self.save_strategy).value, self.eval_steps
        between = between or self.logging_steps
        is_multiple = self.save_steps == between
        is_multiple |= between >= 1 and self.save_steps % between == 0
        is_scored = saved == evaluated and (evaluated == "epoch" or is_multiple)
        if saved != "best" and not is_scored:
            got = f"{evaluated} ({between}) and {saved} ({self.save_steps})"
            need = "`eval_strategy` and `save_strategy` alike, `save_steps` a multiple"
            raise ValueError(f"`keep_best` needs a score of each checkpoint: {need}; got {got}.")
        if self.average_best and self.load_best_model_at_end:
            raise ValueError("`average_best` and `load_best_model_at_end`: a run ends with one.")
        if self.save_total_limit not in (None, type(self).save_total_limit):
            given = f"`keep_best` {self.keep_best} and `save_total_limit` {self.save_total_limit}"
            raise ValueError(f"{given} both say which checkpoints stay: leave one of them out.")
        self.save_total_limit = None


@with_help
@dataclass
class DataArguments:
    """Sentence pairs to train, validate and test on, and the tokenizer.

    Args:
        source_lang (default None): code of the source language as the data has it, such as en.
        target_lang (default None): code of the target language as the data has it, such as de.
        directions (default None): in place of these two, what one model is to translate, such as
            en-de de-en, or zh-CN:en where a code has a hyphen. A row of the data is an example of
            each direction whose two languages it has. Of several target languages a tag in front of
            the source, >>de<<, says which; who translates gives `target_lang`.
        train_file (default None): pairs to train on: JSON lines {"translation": {"en": ..., "de":
            ...}}, TSV, CSV, or two text files joined by a comma, train.en,train.de; .gz too;
            Parquet; a pattern such as "data/*.tsv", a folder, or several of these.
        train_file_weights (default None): a number for each of several train_file: how often each
            is drawn, in any unit (see `axe_hf.data.mixing.mix`, and `PairStream` of streams).
            Without them all pairs come once an epoch.
        validation_file (default None): pairs to evaluate on while training, in the same forms.
        test_file (default None): pairs to score once at the end, in the same forms.
        dataset_name (default None): owner/name or owner/name:config on the Hub, in place of files.
        validation_split (default None): split of `dataset_name` to evaluate on, such as validation.
        test_split (default None): split of `dataset_name` to score at the end, such as test.
        streaming (default False): read the training data while training goes, for sets of any
            size, in one direction or both: needs `max_steps`. They are shuffled and brought
            together by length within windows (`shuffle_buffer`); checkpoints keep the place, and a
            resumed run goes on from there. To read and tokenize beside training, set
            `dataloader_num_workers`.
        shuffle_buffer (default None): pairs in such a window; 50,000.
        max_train_samples (default None): train on the first so many pairs; with weights, of each
            file. Of a stream they are the same in each epoch.
        max_eval_samples (default None): evaluate on the first so many pairs.
        max_predict_samples (default None): score the first so many pairs of the test data.
        preprocessing_num_workers (default None): processes that tokenize the training data; of a
            stream `dataloader_num_workers` do it.
        source_prefix (default None): text put before each source, such as "translate English to
            German: ". It is saved with the model, and put there whenever that translates. None is
            as the model was trained; a new one: nothing. An empty text takes it away.
        max_source_length (default None): longest source in tokens; longer pairs are left out of
            training, and a new model is built for this length. Without it the model's own limit.
        max_target_length (default None): longest target in tokens, with the same effect.
        tokenizer_name_or_path (default None): a tokenizer to use; else that of the model to
            fine-tune, or one that is trained on the training data.
        vocab_size (default None): symbols of a tokenizer to train, as in `train_tokenizer`.
        tokenizer_algorithm (default None): kind of a tokenizer to train, as in `train_tokenizer`.

    Raises:
        ValueError: settings that exclude each other, or a length below 2.

    Example:
        >>> from axe_hf import DataArguments
        >>> DataArguments("en", "de", train_file="train.tsv", vocab_size=4000).target_lang
        'de'
    """

    source_lang: str | None = None
    target_lang: str | None = None
    directions: list[str] | None = None
    # In this order `HfArgumentParser` takes several words, in any other one or none.
    train_file: list[str] | None | str = None
    train_file_weights: list[float] | None = None
    validation_file: list[str] | None | str = None
    test_file: list[str] | None | str = None
    dataset_name: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    streaming: bool = False
    shuffle_buffer: int | None = None
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    max_predict_samples: int | None = None
    preprocessing_num_workers: int | None = None
    source_prefix: str | None = None
    max_source_length: int | None = None
    max_target_length: int | None = None
    tokenizer_name_or_path: str | None = None
    vocab_size: int | None = None
    tokenizer_algorithm: Literal["bpe", "unigram"] | None = None

    def __post_init__(self):
        self._check_languages()
        for name in ("train_file", "validation_file", "test_file"):
            if isinstance(files := getattr(self, name), list) and len(files) == 1:
                setattr(self, name, files[0])
        file, dataset = self.train_file, self.dataset_name
        is_any_given = any((file, dataset, self.validation_file, self.test_file))
        if not is_any_given or (file is not None and dataset is not None):
            raise ValueError(f"Give either `train_file` or `dataset_name`, got {file}, {dataset}.")
        for part in ("validation", "test"):
            split, file = getattr(self, f"{part}_split"), getattr(self, f"{part}_file")
            if split is not None and (dataset is None or file is not None):
                instead = f"in place of `{part}_file`, got {split!r} of {dataset!r} and {file!r}"
                raise ValueError(f"`{part}_split` is a split of `dataset_name`, {instead}.")
        given = self.tokenizer_name_or_path
        for name in ("vocab_size", "tokenizer_algorithm"):
            if given is not None and getattr(self, name) is not None:
                raise ValueError(f"`{name}` is for a tokenizer to train, one is given: {given!r}.")
        lengths = "max_source_length max_target_length"
        counts = "vocab_size shuffle_buffer preprocessing_num_workers"
        counts += " max_train_samples max_eval_samples max_predict_samples"
        require({"at least 2, a word and </s>": lengths, "at least 1": counts}, vars(self))
        require({"True or False": "streaming"}, vars(self), optional=False)
        self._check_reading()

    def _check_languages(self) -> None:
        """Refuse both forms, none, a direction twice; one direction is a source and a target."""
        given = (self.source_lang, self.target_lang)
        if self.directions is None:
            if None in given:
                got = f"got {self.source_lang!r} and {self.target_lang!r}"
                raise ValueError(f"Give `source_lang` and `target_lang`, or `directions`; {got}.")
            return
        names = [self.directions] if isinstance(self.directions, str) else [*self.directions]
        pairs = [languages_of(name) for name in names]
        if any(source == target for source, target in pairs):
            raise ValueError(f"`directions` must be of two languages each, got {names}.")
        if not pairs or len(set(pairs)) < len(pairs):
            raise ValueError(f"`directions` must be different ones, got {names}.")
        if given != (None, None) and [given] != pairs:
            also = f"`directions` {names} and `source_lang`, `target_lang` {given}"
            raise ValueError(f"{also} say both what to translate: leave one of them out.")
        self.directions = names
        if len(pairs) == 1:
            self.source_lang, self.target_lang = pairs[0]
        elif self.streaming and len({*map(frozenset, pairs)}) > 1:
            problem = "`streaming` reads two languages, in one direction or both"
            raise ValueError(f"{problem}, got {names}. Leave it out, or train a model for each.")

    @property
    def language_pairs(self) -> list[tuple[str, str]]:
        """Source and target language of each direction."""
        if self.source_lang is not None and self.target_lang is not None:
            return [(self.source_lang, self.target_lang)]
        return [*map(languages_of, self.directions or ())]

    def _check_reading(self) -> None:
        if not self.streaming and (size := self.shuffle_buffer) is not None:
            raise ValueError(f"`shuffle_buffer` is {size}, but is of a stream. Add `streaming`.")
        if self.train_file_weights is not None:
            try:  # options and files have them as text
                self.train_file_weights = [float(weight) for weight in self.train_file_weights]
            except (TypeError, ValueError) as error:
                got = f"got {self.train_file_weights!r}"
                raise ValueError(f"`train_file_weights` must be numbers, {got}.") from error
            check_weights(self.train_file_weights, self.train_files, "train_file_weights")

    @property
    def train_files(self) -> list[str]:
        """What `train_file` names, one by one."""
        files = self.train_file or []
        return [files] if isinstance(files, str) else list(files)


@with_help
@dataclass
class ModelArguments:
    """The model: one to fine-tune, a teacher to start from, or the sizes of a new one; its loss.

    Args:
        model_name_or_path (default None): a CMLM to fine-tune, a folder or a name on the Hub, of
            which dropout and loss, but not the architecture, can be set anew. Else a new model.
        model_revision (default None): branch, tag or commit of that name on the Hub, of its
            tokenizer, too.
        init_from (default None): an autoregressive translator, a folder or a name on the Hub, whose
            weights and tokenizer a new model starts with: Marian, BART, mBART, M2M100, NLLB ... Its
            sizes are kept, but encoder_layers and decoder_layers may be fewer.
        kept_layers (default None): which of its layers those are: spread (what None means; first
            and last among them), first or last.
        teacher_source_lang, teacher_target_lang (default None): the code of the language in the
            tokenizer of init_from, where it knows several: eng_Latn, en_XX. None is the data's.
        license (default None): identifier for the model card, such as cc-by-4.0, which your data
            must allow.
        attn_implementation (default None): how attention is computed in this run: eager, sdpa or
            flash_attention_2. None is sdpa, but with bf16 on a CPU that computes it eager, which is
            several times faster there; the log says so.
        use_peft (default False): train an adapter of `model_name_or_path` (LoRA, Hu et al. 2021,
            arXiv 2106.09685), which is what gets saved; options and defaults as TRL has them. The
            extra "peft" is needed.
        lora_r (default 16): rank of the adapter's matrices.
        lora_alpha (default 32): their weight is alpha / r.
        lora_dropout (default 0.05): dropout in front of them.
        lora_target_modules (default None): names of the layers that get them, such as q_proj and
            v_proj, which is what None means, or all-linear.
        others (default None): in place of `CmlmConfig`'s defaults, or of the given model's.

    Example:
        >>> from axe_hf import ModelArguments
        >>> ModelArguments(d_model=256, axe_delta=1.5).given() == {"d_model": 256, "axe_delta": 1.5}
        True
    """

    model_name_or_path: str | None = None
    model_revision: str | None = None
    init_from: str | None = None
    kept_layers: Literal["spread", "first", "last"] | None = None
    teacher_source_lang: str | None = None
    teacher_target_lang: str | None = None
    license: str | None = None
    attn_implementation: str | None = None
    use_peft: bool = False
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    lora_target_modules: list[str] | None = None
    # Fields of CmlmConfig. None stands for "not given".
    d_model: int | None = None
    encoder_layers: int | None = None
    decoder_layers: int | None = None
    encoder_attention_heads: int | None = None
    decoder_attention_heads: int | None = None
    encoder_ffn_dim: int | None = None
    decoder_ffn_dim: int | None = None
    activation_function: str | None = None
    normalize_before: bool | None = None
    position_embedding_type: Literal["learned", "sinusoidal"] | None = None
    scale_embedding: bool | None = None
    layernorm_embedding: bool | None = None
    tie_word_embeddings: bool | None = None
    hide_length_token: bool | None = None
    dropout: float | None = None
    attention_dropout: float | None = None
    activation_dropout: float | None = None
    training_loss: Literal["axe", "cross_entropy"] | None = None
    axe_delta: float | None = None
    allow_repetition: bool | None = None
    axe_temperature: float | None = None
    label_smoothing: float | None = None
    length_loss_weight: float | None = None

    def __post_init__(self):
        require(CONFIG_RANGES, vars(self))
        if self.training_loss is not None:
            check_family(self)
        if self.init_from is not None and (other := self.model_name_or_path) is not None:
            got = f"got {other!r} and {self.init_from!r}"
            raise ValueError(f"Give either `model_name_or_path` or `init_from`, {got}.")
        for name in ("kept_layers", "teacher_source_lang", "teacher_target_lang"):
            if self.init_from is None and (value := getattr(self, name)) is not None:
                raise ValueError(f"`{name}` is {value!r}, but there is no `init_from` to read.")
        if self.model_revision is not None and self.model_name_or_path is None:
            raise ValueError("`model_revision` is one of `model_name_or_path`, which is not given.")
        require({"at least 1": "lora_r lora_alpha", "in [0, 1)": "lora_dropout"}, vars(self))
        for name in ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"):
            if not self.use_peft and (value := getattr(self, name)) != getattr(type(self), name):
                raise ValueError(f"`{name}` is {value!r}, but there is no adapter: add `use_peft`.")
        if self.use_peft and self.model_name_or_path is None:
            raise ValueError("`use_peft` adapts a trained CMLM: give it by `model_name_or_path`.")

    def given(self) -> dict[str, Any]:
        """The fields of `CmlmConfig` that were set, by name."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name in _CONFIG_DEFAULTS}
        return {name: value for name, value in own.items() if value is not None}
