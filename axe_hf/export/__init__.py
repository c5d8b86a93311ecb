"""A model as graphs that run without this package: programs of `torch.export`, and ONNX files."""

from .folder import export_model as export_model
from .modules import ExportableDecoderStep as ExportableDecoderStep
from .modules import ExportableEncoder as ExportableEncoder
from .modules import ExportableMaskPredict as ExportableMaskPredict
from .modules import export_program as export_program
from .running import ExportedCmlm as ExportedCmlm
from .running import is_exported as is_exported
from .running import load_exported as load_exported
from .writing import export_onnx as export_onnx
