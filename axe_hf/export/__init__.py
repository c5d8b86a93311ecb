"""A model as graphs that run without this package: programs of `torch.export`, and ONNX files."""

from .modules import ExportableDecoder as ExportableDecoder
from .modules import ExportableEncoder as ExportableEncoder
from .modules import ExportableHead as ExportableHead
from .modules import ExportableMaskPredict as ExportableMaskPredict
from .modules import export_program as export_program
from .running import ExportedCmlm as ExportedCmlm
from .running import is_exported as is_exported
from .running import load_exported as load_exported
from .writing import export_onnx as export_onnx
