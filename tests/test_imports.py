"""Imports that the layers of pyproject.toml do not cover: cycles, heavy libraries, and the size of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "fer_stream"
MAX_MODULES, MAX_LEVELS, MAX_PARAMETERS = 150, 9, 6

HEAVY = (
    "tensorflow", "keras", "redis", "cv2", "av", "onnxruntime", "openvino", "ai_edge_litert", "plotly", "fastapi",
    "starlette", "uvicorn", "matplotlib", "numpy",
)  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """The modules that are imported when the module at `path` is."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(child):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                names = {f"{child.module}.{alias.name}" for alias in child.names}
                found.update(names & MODULES.keys() or {child.module})
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


GRAPH = {name: imports(path) & MODULES.keys() - {name} for name, path in MODULES.items()}


def test_the_import_graph_is_shallow_and_has_no_cycles() -> None:
    level: dict[str, int] = {}
    for name in TopologicalSorter(GRAPH).static_order():
        level[name] = 1 + max((level[imported] for imported in GRAPH[name]), default=0)
    assert max(level.values()) <= MAX_LEVELS, sorted(level, key=lambda name: -level[name])[:5]


def has_code(path: Path) -> bool:
    """Return whether a module contains more than a docstring, unlike most `__init__.py` files."""
    return len(ast.parse(path.read_text()).body) > 1


def test_the_number_of_modules_is_limited() -> None:
    assert len([path for path in MODULES.values() if has_code(path)]) <= MAX_MODULES


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("fer_stream.cli")])
def test_functions_have_few_parameters(module: str) -> None:
    functions = (
        node
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert [each.name for each in functions if len(parameters(each)) > MAX_PARAMETERS] == []


@pytest.mark.parametrize("statement", ["import fer_stream", "import fer_stream.cli"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = f"{statement}; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)


def test_one_adapter_and_training_load_tensorflow() -> None:
    users = {name for name, path in MODULES.items() if {"tensorflow", "keras"} & imports(path)}
    assert {name for name in users if not name.startswith("fer_stream.training")} == {"fer_stream.classify.keras"}
    assert "tensorflow" not in imports(MODULES["fer_stream.training.fit"])
