"""Non-autoregressive translation on Transformers: CMLM, Aligned Cross Entropy, Mask-Predict."""

import ast
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

__version__ = "0.1.0"


def _public_names() -> dict[str, str]:
    """The public names and their modules, of which `__init__.pyi` is the one table."""
    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = (line for line in tree.body if isinstance(line, ast.ImportFrom))
    return dict(sorted((name.name, line.module or "") for line in imports for name in line.names))


_MODULE_OF = _public_names()
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    # PyTorch, datasets or the Trainer stand behind most names: each is found on first use.
    if name in _MODULE_OF:
        return globals().setdefault(
            name, getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        )
    if name in {module.split(".")[0] for module in _MODULE_OF.values()}:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Registration(MetaPathFinder):
    """Makes the Auto classes know the model when Transformers is there, and loads neither before.

    It sees the imports of Transformers and of this package's modules, and registers at the end of
    the first behind which none of them is half loaded: a module of ours that is imported first
    brings Transformers along in its middle.
    """

    num_half_loaded = 0

    def find_spec(self, fullname: str, *args: Any) -> ModuleSpec | None:
        if fullname != "transformers" and not fullname.startswith(f"{__name__}."):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, *args) for finder in others)
        spec = next(filter(None, specs), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader.exec_module = partial(self._load, spec.loader.exec_module)  # type: ignore
        return spec

    def _load(self, load: Callable[[ModuleType], None], module: ModuleType) -> None:
        self.num_half_loaded += 1
        try:
            load(module)
        finally:
            self.num_half_loaded -= 1
        self.register_if_due()

    def register_if_due(self) -> None:
        if self.num_half_loaded or "transformers" not in sys.modules or self not in sys.meta_path:
            return
        sys.meta_path.remove(self)
        from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer

        from .cmlm.configuration_cmlm import CmlmConfig
        from .cmlm.modeling_cmlm import CmlmForConditionalGeneration, CmlmModel
        from .data.tokenizer import CmlmTokenizer
        from .fairseq.tokenization_fairseq import FairseqTokenizer

        AutoConfig.register("cmlm", CmlmConfig, exist_ok=True)
        AutoModel.register(CmlmConfig, CmlmModel, exist_ok=True)
        AutoModelForSeq2SeqLM.register(CmlmConfig, CmlmForConditionalGeneration, exist_ok=True)
        # Both are known by name; the last is that of a folder which names none.
        AutoTokenizer.register(CmlmConfig, FairseqTokenizer, exist_ok=True)
        AutoTokenizer.register(CmlmConfig, CmlmTokenizer, exist_ok=True)


_registration = _Registration()
sys.meta_path.insert(0, _registration)
_registration.register_if_due()
