"""Who may import whom, and what `import axe_hf` may load."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import axe_hf

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "axe_hf"

# A new part of axe_hf, a module or folder right under it, must be entered in one of these.
LEAVES = {"kernels", "data", "evaluation", "output", "reference", "pipeline", "declarations"}
LEAVES |= {"languages"}
JOINERS = {
    "quantization",
    "training",
    "translation",
    "rescoring",
    "history",
    "plotting",
    "hub",
    "export",
    "documents",
    "fairseq",
}
MAY_IMPORT = {
    "cmlm": {"kernels"},
    **{part: set() for part in LEAVES},
    # The canvas is the model's: its masks and the label that is not scored are written there.
    "data": {"cmlm"},
    "evaluation": {"languages"},
    "adapters": {"cmlm", "output"},  # what training leaves in place of a model
    "reference": {"cmlm"},  # the checks at the door of the loss, no arithmetic
    **{part: {"cmlm"} | LEAVES | JOINERS for part in JOINERS},
    # What is learned from teachers is what training begins with.
    "teachers": {"cmlm"} | LEAVES | JOINERS - {"training"},
    "training": {"adapters", "cmlm", "teachers"} | LEAVES | JOINERS,
    # What people meet a trained model by.
    "serving": {"cmlm"} | LEAVES | JOINERS,
    "demo": {"cmlm"} | LEAVES | JOINERS,
}
# The one door from what travels with a checkpoint to what needs the package: a class method there
# is where users look for it. It stands in a function, in a `try`.
DOOR = ("cmlm/modeling_cmlm.py", "axe_hf.teachers.warm_start")
# These use what any user can: names that axe_hf or one of its parts exports.
PUBLIC_NAMES_ONLY = {"__main__", "cli", "commands", "quickstart"}
# The table of decoding settings, which commands read before PyTorch is loaded.
ALSO_PUBLIC = {"axe_hf.cmlm.configuration_mask_predict"}

HEAVY = (
    "datasets",
    "evaluate",
    "fastapi",
    "gradio",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "sacrebleu",
    "triton",
)


class Import(NamedTuple):
    path: Path
    line: int
    level: int  # dots before the module, 0 for an absolute import
    module: str  # absolute, "axe_hf.cmlm.loss_axe"
    name: str | None  # what `from module import` names, None for `import module`
    is_tried: bool  # stands inside a try

    def __str__(self):
        return f"{self.path.relative_to(REPOSITORY)}:{self.line} imports {self.module} {self.name}"


def imports_of(path: Path) -> list[Import]:
    """All imports of a file, wherever they stand."""
    package = path.relative_to(REPOSITORY).parent.parts
    found = []

    def visit(node: ast.AST, is_tried: bool):
        if isinstance(node, ast.Import):
            found.extend(Import(path, node.lineno, 0, a.name, None, is_tried) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                found.append(Import(path, node.lineno, node.level, module, alias.name, is_tried))
        for field, value in ast.iter_fields(node):
            inside = is_tried or (isinstance(node, ast.Try) and field == "body")
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


def is_door(item: Import) -> bool:
    """Whether an import is the exception `DOOR`, as it has to stand."""
    where = item.path.relative_to(PACKAGE).as_posix() if item.path.is_relative_to(PACKAGE) else ""
    return (where, item.module) == DOOR and item.is_tried and item.level == 0


def part_of(path: Path) -> str:
    """The part of axe_hf that a file belongs to: a module or folder right under axe_hf."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_part(item: Import) -> str | None:
    """The part of axe_hf that an import reaches for, None where it leaves axe_hf alone."""
    names = item.module.split(".")
    if names[0] != "axe_hf":
        return None
    if len(names) > 1:
        return names[1]
    is_part = item.name and any((PACKAGE / f"{item.name}{end}").exists() for end in ("", ".py"))
    return item.name if is_part else "axe_hf"


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
LAYERED = [path for path in MODULES if part_of(path) not in PUBLIC_NAMES_ONLY]
OUTSIDE = [path for path in MODULES if part_of(path) in PUBLIC_NAMES_ONLY]
OUTSIDE += sorted((REPOSITORY / "examples").rglob("*.py"))
CMLM = [path for path in MODULES if part_of(path) == "cmlm"]


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", LAYERED, ids=name_of)
def test_imports_point_one_way(path):
    part = part_of(path)
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what axe_hf/{part} may import"
    allowed = MAY_IMPORT[part] | {part, None}
    found = [item for item in imports_of(path) if not is_door(item)]
    wrong = [str(item) for item in found if imported_part(item) not in allowed]
    assert not wrong, f"{part} may import {sorted(MAY_IMPORT[part])} of axe_hf"


def test_no_part_needs_itself_by_way_of_others():
    needs = {part_of(path): set() for path in MODULES}
    for path in MODULES:
        for item in imports_of(path):
            if not is_door(item):
                needs[part_of(path)] |= {imported_part(item)} - {None, "axe_hf", part_of(path)}
    TopologicalSorter(needs).prepare()  # raises CycleError


def test_no_module_needs_itself_by_way_of_others():
    """Module by module; a folder's `__init__` is its front."""
    modules = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in MODULES}
    modules = {name for name in modules if not name.endswith(".__init__")}
    needs = {}
    for path in MODULES:
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        items = [item for item in imports_of(path) if not is_door(item)]
        found = {item.module for item in items}
        found |= {f"{item.module}.{item.name}" for item in items}
        needs[name] = (found & modules) - {name}
    TopologicalSorter(needs).prepare()  # raises CycleError


@pytest.mark.parametrize("path", OUTSIDE, ids=name_of)
def test_commands_and_examples_use_public_names_only(path):
    for item in imports_of(path):
        names = item.module.split(".")
        is_own = path.is_relative_to(PACKAGE) and imported_part(item) == part_of(path)
        if names[0] != "axe_hf" or is_own or item.module in ALSO_PUBLIC:
            continue
        assert len(names) <= 2 and not names[-1].startswith("_"), f"{item}: not a public module"
        if len(names) == 2 or imported_part(item) == item.name:
            assert not (item.name or "").startswith("_"), f"{item}: a private name"
        elif item.name:
            assert item.name in [*axe_hf.__all__, "__version__"], f"{item}: not in __all__"


@pytest.mark.parametrize("path", CMLM, ids=name_of)
def test_what_travels_with_a_checkpoint_imports_siblings_only(path):
    """Transformers copies `from .sibling import name` and nothing else, and ignores a `try`."""
    for item in imports_of(path):
        if imported_part(item) == "kernels":
            assert item.level == 0 and item.is_tried, f"{item}: kernels are absolute, in a try"
        elif item.level:
            sibling = item.module.removeprefix("axe_hf.cmlm.")
            assert item.level == 1 and (PACKAGE / "cmlm" / f"{sibling}.py").is_file(), str(item)


@pytest.mark.parametrize("path", CMLM, ids=name_of)
def test_relative_imports_begin_their_line_and_nothing_else_looks_like_one(path):
    """Transformers finds them by regular expression: text would be taken for an import, and an
    import behind a semicolon would be missed."""
    text = path.read_text(encoding="utf-8")
    looks_like = {
        text.count("\n", 0, match.start(1)) + 1
        for match in re.finditer(r"^\s*((?:from|import)\s+\.)", text, re.MULTILINE)
    }
    assert looks_like == {item.line for item in imports_of(path) if item.level}


THROUGH_THE_DOOR = "import sys, axe_hf.cmlm.modeling_cmlm; print('axe_hf.teachers' in sys.modules)"


def test_there_is_one_door_and_nothing_goes_through_it_at_import(run_alone_behind_torch):
    doors = [item for path in CMLM for item in imports_of(path) if is_door(item)]
    assert len(doors) == 1
    assert run_alone_behind_torch(THROUGH_THE_DOOR) == "False"


def test_cmlm_is_flat():
    assert [path for path in CMLM if path.parent != PACKAGE / "cmlm"] == []


def run_alone(program: str) -> str:
    """What a program prints in a process of its own, which must not complain."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


# PyTorch takes seconds to import and knows nothing of us: it is loaded once, and a child is forked
# from there for each program. Where there is no fork, the programs get a new Python each.
FORKS = """
import accelerate, json, os, sys, tempfile, traceback
import torch._dynamo, torch.distributed, torch.utils.checkpoint, tokenizers, safetensors.torch
programs, found = json.loads(sys.argv[1]), []
assert not {"transformers", "axe_hf"} & set(sys.modules)
for program in programs:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            code = 1
            try:
                exec(program, {"__name__": "__main__"})
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0), err.seek(0)
        found.append([code, out.read().decode(), err.read().decode()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def run_alone_behind_torch():
    """What one of our programs prints in a process of its own, which must not complain, and which
    has imported neither Transformers nor us before."""
    if not hasattr(os, "fork"):
        return run_alone
    programs = [THROUGH_THE_DOOR, *map(knows_the_model, WHATEVER_IS_FIRST)]
    command = [sys.executable, "-c", FORKS, json.dumps(programs)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True)
    found = dict(zip(programs, json.loads(done.stdout), strict=True))

    def run(program):
        code, printed, complaints = found[program]
        assert (code, complaints) == (0, "")
        return printed.strip()

    return run


def test_importing_the_package_is_cheap_and_silent():
    names = (*HEAVY, "torch", "transformers")
    program = "import sys, axe_hf; from axe_hf.cmlm.configuration_mask_predict import SETTINGS;"
    program += f"print(sorted(set({names!r}) & set(sys.modules)))"
    assert run_alone(program) == "[]"
    # What Transformers loads by itself is not ours: where Triton is installed, torch brings it
    # along.
    program = "import sys, transformers.modeling_utils; before = set(sys.modules); import axe_hf; "
    program += f"print(sorted(set({HEAVY!r}) & (set(sys.modules) - before)))"
    assert run_alone(program) == "[]"


WHATEVER_IS_FIRST = [
    "import axe_hf; from transformers import AutoModelForSeq2SeqLM",
    "from transformers import AutoModelForSeq2SeqLM; import axe_hf",
    "import axe_hf.cmlm.loss_axe",
    "from axe_hf.cmlm.modeling_cmlm import CmlmModel",
    "import axe_hf.data.collator",
    "import axe_hf.training.trainer",
    "import axe_hf.pipeline",
    "from axe_hf import *; import pickle; pickle.loads(pickle.dumps(CmlmConfig()))",
]


def knows_the_model(imports):
    """A program that asks the auto classes for a model, after these imports."""
    return (
        f"{imports}\nimport sys\nfrom transformers import AutoConfig, AutoModelForSeq2SeqLM as "
        "Auto\nsizes = {'vocab_size': 20, 'd_model': 8, 'encoder_layers': 1, 'decoder_layers': 1}\n"
        "model = Auto.from_config(AutoConfig.for_model('cmlm', **sizes))\n"
        "assert type(model) is "
        "sys.modules['axe_hf.cmlm.modeling_cmlm'].CmlmForConditionalGeneration\nprint(type(model).__name__)"
    )


@pytest.mark.parametrize("imports", WHATEVER_IS_FIRST)
def test_whatever_is_imported_first_the_auto_classes_know_the_model(
    run_alone_behind_torch, imports
):
    program = knows_the_model(imports)
    assert run_alone_behind_torch(program) == "CmlmForConditionalGeneration"


def test_each_public_name_stands_once_in_the_table_and_in_a_part_that_can_be_reached():
    table = (PACKAGE / "__init__.pyi").read_text(encoding="utf-8")
    names = [
        alias.asname for line in ast.walk(ast.parse(table)) for alias in getattr(line, "names", [])
    ]
    assert sorted(names) == axe_hf.__all__
    assert inspect.ismodule(axe_hf.data) and inspect.ismodule(axe_hf.cmlm)


@pytest.mark.parametrize("name", axe_hf.__all__)
def test_every_public_name_has_a_docstring_with_an_example(name):
    text = inspect.cleandoc(getattr(axe_hf, name).__doc__ or "")
    assert "Example" in text and ">>> " in text, f"axe_hf.{name} shows no example"


def test_public_names_are_sorted_and_found_by_dir():
    assert axe_hf.__all__ == sorted(axe_hf.__all__)
    assert set(axe_hf.__all__) <= set(dir(axe_hf))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = axe_hf.no_such_name
