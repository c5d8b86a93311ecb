# The one table of public names, which type checkers read, and `axe_hf/__init__.py` when it runs.

from .cmlm.configuration_cmlm import CmlmConfig as CmlmConfig
from .cmlm.configuration_cmlm import MaskPredictGenerationConfig as MaskPredictGenerationConfig
from .cmlm.fused_loss_axe import linear_axe_loss as linear_axe_loss
from .cmlm.generation_cmlm import MaskPredictGenerationMixin as MaskPredictGenerationMixin
from .cmlm.generation_cmlm import MaskPredictOutput as MaskPredictOutput
from .cmlm.loss_axe import AlignedCrossEntropyLoss as AlignedCrossEntropyLoss
from .cmlm.loss_axe import AxeOutput as AxeOutput
from .cmlm.loss_axe import axe_loss as axe_loss
from .cmlm.modeling_cmlm import CmlmForConditionalGeneration as CmlmForConditionalGeneration
from .cmlm.modeling_cmlm import CmlmModel as CmlmModel
from .cmlm.modeling_cmlm import CmlmPreTrainedModel as CmlmPreTrainedModel
from .cmlm.modeling_cmlm import CmlmSeq2SeqLMOutput as CmlmSeq2SeqLMOutput
from .data import DataCollatorForCmlm as DataCollatorForCmlm
from .data import MaxTokensBatchSampler as MaxTokensBatchSampler
from .data import load_translations as load_translations
from .data import tokenize_translations as tokenize_translations
from .data import train_tokenizer as train_tokenizer
from .evaluation import TranslationMetric as TranslationMetric
from .export import ExportableDecoder as ExportableDecoder
from .export import ExportableEncoder as ExportableEncoder
from .export import ExportableHead as ExportableHead
from .export import ExportableMaskPredict as ExportableMaskPredict
from .export import export_onnx as export_onnx
from .export import export_program as export_program
from .export import load_exported as load_exported
from .history import format_history as format_history
from .hub import push_to_hub_with_code as push_to_hub_with_code
from .hub import save_pretrained_with_code as save_pretrained_with_code
from .pipeline import CmlmTranslationPipeline as CmlmTranslationPipeline
from .pipeline import register_pipeline as register_pipeline
from .plotting import plot_alignment as plot_alignment
from .plotting import plot_history as plot_history
from .plotting import plot_losses as plot_losses
from .quantization import quantize_int8 as quantize_int8
from .reference import axe_loss_definition as axe_loss_definition
from .training import AxeTrainer as AxeTrainer
from .training import AxeTrainingArguments as AxeTrainingArguments
from .training import DataArguments as DataArguments
from .training import EmaCallback as EmaCallback
from .training import ModelArguments as ModelArguments
from .training import average_checkpoints as average_checkpoints
from .training import run_training as run_training
from .translation import translate as translate
from .translation import translate_with_scores as translate_with_scores

__version__: str
