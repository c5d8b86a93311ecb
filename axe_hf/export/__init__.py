"""A model as graphs that run without this package: programs of `torch.export`, and ONNX files."""

from .parts import ExportableDecoderStep, ExportableEncoder
from .whole_decoding import ExportableMaskPredict
from .writing import export_onnx, export_program

__all__ = [
    "ExportableDecoderStep",
    "ExportableEncoder",
    "ExportableMaskPredict",
    "export_onnx",
    "export_program",
]
