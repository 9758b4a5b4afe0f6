"""YAML → typed settings of any class, with file and line of whatever is wrong.

Beyond YAML itself,

    fps: ${FPS:-5}                        takes a value, or a part of one, from the environment
    url: rtsp://me:${CAMERA_PW}@cam       … where the variable must be set, because no default is given; where
                                          CAMERA_PW_FILE is set instead, from the file that this names
    password_file: /run/secrets/queue     reads the secret `password` from a file, without the blanks around it;
                                          an empty name is no file
    text: $${FPS}                         is the text ${FPS}

No complaint holds the value of a secret key, or what came from the environment or from a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import SafeConstructor

from fer_stream.config.errors import Loc, below, complaints, dotted, group_of, is_secret, nothing, secret_keys
from fer_stream.errors import ConfigError
from fer_stream.log import redact_secrets

S = TypeVar("S", bound=BaseModel)

_NULL = "tag:yaml.org,2002:null"
_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
# A thousand cameras with every key are 60,000. Anchors in anchors can make more of a few lines than memory holds.
_MOST_VALUES = 100_000
# What PyYAML raises for a value that its tag does not fit, as `0b_` or `!!bool 7`.
_NO_VALUE = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError)
_BORROWED = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_VARIABLE = re.compile(r"([A-Za-z_]\w*)(?::-(.*))?", re.DOTALL)
# What PyYAML quotes after these words may be a password that begins with *, & or !.
_NAMED = re.compile(r"(alias|anchor|handle|tag) ['\"].*", re.DOTALL)


def load(path: Path, model: type[S], *, environ: Mapping[str, str] | None = None) -> S:
    """Read settings of the class `model` from a YAML file; paths of secret files are relative to its folder.

    Raises `ConfigError`, one line per fault, each with file, line and key, what was expected there and, for an
    unknown key, the nearest name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: check the path of the settings.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no UTF-8 text.") from None
    return parse(text, model, name=str(path), folder=path.parent, environ=environ)


def parse(
    text: str, model: type[S], *, name: str, folder: Path | None = None, environ: Mapping[str, str] | None = None
) -> S:
    """Settings from the text of a YAML file that is called `name` in errors and lies in `folder`.

    `environ` is the environment, by default that of the process. Raises `ConfigError` as `load` does.
    """
    document = _Document(name, folder or Path(), os.environ if environ is None else environ)
    try:
        return model.model_validate(document.read(text, model))
    except RecursionError:
        faults = [f"{name} is nested without end."]
    except ValidationError as error:
        found = sorted(complaints(error, model, document.raw), key=lambda fault: document.line(fault[0]))
        faults = [f"{name}:{document.line(loc)}: {said}" for loc, said in found]
    # Not inside the handlers, whose exceptions hold the values.
    raise ConfigError("\n".join(faults))


class _Document:
    """One YAML file on its way to plain values."""

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str]) -> None:
        self.raw: dict[Loc, str] = {}
        """How the values that hold something of the environment stand in the file."""
        self._name = name
        self._folder = folder
        self._environ = environ
        self._lines: dict[Loc, int] = {}
        self._faults: list[str] = []
        self._values = 0
        self._constructor = SafeConstructor()

    def read(self, text: str, model: type[BaseModel]) -> object:
        """The whole file as plain values. Raises `ConfigError`."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise ConfigError(self._syntax(error)) from None
        values = {} if root is None else self._value(root, model, ())
        if self._faults:
            raise ConfigError("\n".join(self._faults))
        return values

    def line(self, loc: Loc) -> int:
        """The line, from 1, of `loc` or of the group around it."""
        known = next((loc[:end] for end in range(len(loc), 0, -1) if loc[:end] in self._lines), ())
        return self._lines.get(known, 1)

    def _complain(self, loc: Loc, text: str, line: int | None = None) -> None:
        self._faults.append(f"{self._name}:{line or self.line(loc)}: {redact_secrets(f'{dotted(loc)} {text}')}")

    def _value(self, node: yaml.Node, expected: object, loc: Loc) -> object:
        self._count()
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, expected, loc)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, expected, loc)
        if node.tag == _NULL:
            return nothing(expected)
        if node.tag == _STR or is_secret(expected):
            return self._filled(node.value, loc)
        try:
            value = self._constructor.construct_object(node)
            repr(value)  # raises for a number of more than 4,300 digits, which no complaint could show
        except _NO_VALUE:
            self._complain(loc, "cannot be read: put the value in quotes.")
            return None
        return value

    def _count(self) -> None:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise ConfigError(f"{self._name} has more than {_MOST_VALUES:,} values: do not put anchors into anchors.")

    def _sequence(self, node: yaml.SequenceNode, expected: object, loc: Loc) -> list[object]:
        values = []
        for index, item in enumerate(node.value):
            self._lines[(*loc, index)] = _line(item)
            values.append(self._value(item, below(expected, index), (*loc, index)))
        return values

    def _mapping(self, node: yaml.MappingNode, expected: object, loc: Loc) -> dict[str, object]:
        merged: dict[str, object] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                merged |= self._merged(value, expected, loc)
        own: dict[str, object] = {}
        for key, value in node.value:
            if key.tag != _MERGE:
                self._take(key, value, own, expected, loc)
        self._read_secrets(own, expected, loc)
        return merged | own

    def _take(self, key: yaml.Node, value: yaml.Node, values: dict[str, object], expected: object, loc: Loc) -> None:
        """Add one key and its value. A key is the text that stands there, also where YAML would read `no` or 7."""
        if not isinstance(key, yaml.ScalarNode):
            self._complain(loc, "has something here that is no key.", _line(key))
            return
        inner = (*loc, key.value)
        if key.value in values:
            self._complain(inner, f"stands here twice, first in line {self._lines[inner]}.", _line(key))
            return
        self._lines[inner] = _line(key)
        values[key.value] = self._value(value, below(expected, key.value), inner)

    def _merged(self, node: yaml.Node, expected: object, loc: Loc) -> dict[str, object]:
        """What `<<: *anchor` or `<<: [*first, *second]` brings, of which the first goes before."""
        merged: dict[str, object] = {}
        for each in reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            self._count()
            if isinstance(each, yaml.MappingNode):
                merged |= self._mapping(each, expected, loc)
            else:
                self._complain(loc, "merges something here that has no keys.", _line(each))
        return merged

    def _filled(self, text: str, loc: Loc) -> str:
        """`text` with what it takes from the environment."""

        def fill(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            self.raw[loc] = text
            variable = _VARIABLE.fullmatch(match[1]) if match[0].endswith("}") else None
            if variable is None:
                self._complain(
                    loc, "has a ${ without a variable: write ${NAME}, ${NAME:-default}, or $${ for a plain one."
                )
                return ""
            value = self._variable(variable[1], loc)
            if value is None and variable[2] is None:
                self._complain(loc, f"needs the environment variable {variable[1]}, which is not set.")
            return value or variable[2] or ""

        return _BORROWED.sub(fill, text)

    def _variable(self, name: str, loc: Loc) -> str | None:
        """An environment variable, or what the file holds that NAME_FILE names, as containers are given secrets."""
        path = self._environ.get(f"{name}_FILE")
        if path is None or name in self._environ:
            return self._environ.get(name)
        return self._secret(path, loc, f"needs the file that {name}_FILE names")

    def _read_secrets(self, values: dict[str, object], expected: object, loc: Loc) -> None:
        """Put the contents of a file in the place of every KEY_file beside a secret KEY."""
        group = group_of(expected)
        for key in secret_keys(group) if group else ():
            path = values.pop(f"{key}_file", None)
            if not path:
                continue
            inner = (*loc, f"{key}_file")
            if values.get(key) is not None:
                self._complain(inner, f"stands beside {key}: give one of the two.")
            values[key] = self._secret(str(path), inner, f"names {self.raw.get(inner, path)}")
            self._lines[(*loc, key)] = self._lines[inner]

    def _secret(self, path: str, loc: Loc, wanted: str) -> str:
        try:
            return (self._folder / path).read_text(encoding="utf-8").strip()
        except OSError as error:
            self._complain(loc, f"{wanted}, which cannot be read: {error.strerror}.")
        except ValueError:
            self._complain(loc, f"{wanted}, which is no UTF-8 text.")
        return ""

    def _syntax(self, error: yaml.YAMLError) -> str:
        """What is wrong, without the line in question, which PyYAML quotes: it may hold a password."""
        if not isinstance(error, yaml.MarkedYAMLError):
            return f"{self._name} is not YAML: {' '.join(str(error).split())}."
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = _NAMED.sub(r"\1", ", ".join(filter(None, (error.context, error.problem))))
        return f"{self._name}{line} is not YAML: {problem}."


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
