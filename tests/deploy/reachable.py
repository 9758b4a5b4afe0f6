"""Static search for the packages that a process can import, lazy imports included.

The search starts at functions and follows names. A module that is imported adds its top level with all routes
(decorated functions); a function or class whose name is used adds its body with all methods. So a process that uses
one function of `factory` reaches the imports of that function only.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = "fer_stream"
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Code(NamedTuple):
    """A function or class of a module, or with an empty name its top level."""

    module: str
    name: str = ""


def third_party(entries: Sequence[Code], dynamic: Mapping[Code, Iterable[Code]]) -> dict[str, Code]:
    """Return the third-party packages (top-level modules) that `entries` reach, and which code imports each.

    `dynamic` replaces the search in code that imports by a name in a variable, or only under a condition: it maps the
    code to what it reaches.
    """
    if unknown := [entry for entry in entries if not _exists(entry)]:
        raise ValueError(f"There is no {unknown}")
    found: dict[str, Code] = {}
    seen: set[Code] = set()
    waiting = [each for entry in entries for each in (entry, Code(entry.module))]
    while waiting:
        code = waiting.pop()
        if code in seen:
            continue
        seen.add(code)
        for reached in dynamic[code] if code in dynamic else _references(code):
            package = reached.module.partition(".")[0]
            if package == PACKAGE:
                waiting += (reached, Code(reached.module))
            elif package not in sys.stdlib_module_names:
                found.setdefault(package, code)
    return found


def _references(code: Code) -> Iterator[Code]:
    """Yield everything that `code` imports or uses by name."""
    module = _load(code.module)
    if module is None:
        return
    definitions = _definitions(module)
    # Commands of the command line are registered as well, but run only if they are named.
    routes = not code.module.startswith(f"{PACKAGE}.cli")
    top_level = [
        node for node in module.body if not isinstance(node, _Definition) or (routes and _is_registered(node))
    ]
    statements = top_level if not code.name else [definitions[code.name]] if code.name in definitions else []
    local = dict(_imports(statements))
    yield from (Code(reached.module) for reached in local.values())
    names = {**{name: Code(code.module, name) for name in definitions}, **dict(_imports(top_level)), **local}
    for node in _walk(statements):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in names:
                yield _resolve(names[name], attribute)
            case ast.Name(id=name) if name in names:
                yield names[name]


def _exists(code: Code) -> bool:
    module = _load(code.module)
    return module is not None and (not code.name or code.name in _definitions(module))


def _definitions(module: ast.Module) -> dict[str, _Definition]:
    return {node.name: node for node in module.body if isinstance(node, _Definition)}


def _imports(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, Code]]:
    """Yield each name that statements import, and what it refers to."""
    for node in _walk(statements):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name, Code(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, _resolve(Code(node.module), alias.name)


def _resolve(code: Code, attribute: str) -> Code:
    """Return what `attribute` of a module is: another module, or a name in it."""
    if code.name:
        return code
    submodule = f"{code.module}.{attribute}"
    return Code(submodule) if _load(submodule) else Code(code.module, attribute)


@cache
def _load(name: str) -> ast.Module | None:
    """Return the module `name` of fer_stream, or None if there is none."""
    if name.partition(".")[0] != PACKAGE:
        return None
    base = ROOT.joinpath(*name.split("."))
    path = next((each for each in (base.with_suffix(".py"), base / "__init__.py") if each.is_file()), None)
    return ast.parse(path.read_text()) if path else None


def _is_registered(node: _Definition) -> bool:
    """Return whether a definition has a decorator of an object, such as `@router.get`, which may call it."""
    return any(isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) for each in node.decorator_list)


def _walk(nodes: Iterable[ast.stmt]) -> Iterator[ast.AST]:
    """Yield all nodes except blocks that only type checkers read."""
    waiting: list[ast.AST] = [*nodes]
    while waiting:
        node = waiting.pop()
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            waiting += ast.iter_child_nodes(node)
