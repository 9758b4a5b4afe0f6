"""Who may import whom: the table of docs/explanation/architecture.md, held."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "fer_stream"


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "__init__.py"
    }


MODULES = modules()

ROOT = {"records", "errors"}
CORE = {
    "config.file", "config.groups", "config.jobs", "config.live", "config.servers", "config.source",
    "config.training", "config.web", "expected", "yamlfile", "metrics", "log", "weights", "capture.source",
    "faces.between", "faces.bytetrack", "faces.detector", "faces.tracker", "faces.cuts", "faces.crop", "faces.motion",
    "faces.quality", "faces.follow", "faces.turns", "jobs.job", "queues.queue", "queues.codec", "queues.memory",
    "classify.card", "classify.classifier", "timeline.smoothing", "timeline.segments", "timeline.builder",
    "timeline.counts", "timeline.person", "timeline.live", "timeline.keeper", "timeline.payload", "timeline.store",
    "timeline.memory", "training.progress", "writers.writer",
}  # fmt: skip
LINKS = {"redis_link", "leases", "onnx_session"}  # adapters that two stages share
LOOPS = {"pipeline"}
ASSEMBLY = {
    "build",
    "filejob",
    "batch",
    "api",
    *(name for name in MODULES if name.startswith(("jobs.", "service.")) and name != "jobs.job"),
}
ENTRY = {"cli", "cli_service", "cli_jobs", "cli_forget", "cli_training", "cli_model", "console"}

HEAVY = (
    "tensorflow",
    "keras",
    "redis",
    "cv2",
    "av",
    "onnxruntime",
    "openvino",
    "ai_edge_litert",
    "plotly",
    "fastapi",
    "starlette",
    "uvicorn",
    "matplotlib",
)


def layer(module: str) -> int:
    for number, members in enumerate((ROOT, CORE, set[str](), LOOPS, ASSEMBLY, ENTRY)):
        if module in members:
            return number
    return 2  # adapters


def imports(path: Path, *, at_top: bool = False) -> set[str]:
    """The modules that a file imports, in full; with `at_top` only what importing the file imports."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if at_top and (isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(child)):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.add(child.module)
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def ours(path: Path) -> set[str]:
    names = {name.removeprefix("fer_stream.") for name in imports(path) if name.startswith("fer_stream.")}
    return names & MODULES.keys()


def stage(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards(module: str) -> None:
    for imported in ours(MODULES[module]):
        same_room = layer(imported) == layer(module) and (layer(module) != 2 or stage(imported) == stage(module))
        shared = layer(module) == 2 and imported in LINKS
        assert layer(imported) < layer(module) or same_room or shared, f"{module} imports {imported}"


def test_the_loops_know_no_adapter() -> None:
    for module in LOOPS:
        assert all(layer(imported) < 2 for imported in ours(MODULES[module]))


def test_there_are_no_cycles() -> None:
    TopologicalSorter({module: ours(path) for module, path in MODULES.items()}).prepare()


def test_every_module_named_here_exists() -> None:
    assert MODULES.keys() >= ROOT | CORE | LOOPS | ASSEMBLY | ENTRY


def test_the_core_uses_no_heavy_library_but_image_functions() -> None:
    for module in ROOT | CORE | LOOPS:
        used = {name.partition(".")[0] for name in imports(MODULES[module])}
        assert used & set(HEAVY) <= {"cv2"}, module


@pytest.mark.parametrize("statement", ["import fer_stream", "import fer_stream.cli"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = f"{statement}; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {name.partition(".")[0] for name in loaded} & {*HEAVY, "numpy"}


def test_tensorflow_is_loaded_by_one_adapter_and_in_training_alone() -> None:
    users = {module for module, path in MODULES.items() if {"tensorflow", "keras"} & imports(path, at_top=True)}
    assert {module for module in users if stage(module) != "training"} == {"classify.keras"}
    assert "tensorflow" not in imports(MODULES["training.fit"])
