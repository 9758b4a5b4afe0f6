"""Load typed settings from YAML. Errors name file, line and key.

Beyond YAML itself,

    fps: ${FPS:-5}                        inserts an environment variable, with a default
    url: rtsp://me:${CAMERA_PW}@cam       inserts a required variable; if CAMERA_PW_FILE is set instead, the contents
                                          of that file
    password_file: /run/secrets/queue     reads the secret `password` from a file, without surrounding white space;
                                          an empty name is ignored
    text: $${FPS}                         is the literal text ${FPS}

No message contains the value of a secret key, of an environment variable or of a secret file.
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

from fer_stream.config.errors import (
    Loc,
    child_type,
    empty_value,
    format_errors,
    is_secret,
    join_path,
    secret_keys,
    submodel,
)
from fer_stream.config.settings import CHECK_FILES
from fer_stream.errors import ConfigError
from fer_stream.log import redact_secrets

S = TypeVar("S", bound=BaseModel)

_NULL = "tag:yaml.org,2002:null"
_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
# A thousand cameras with every key have 60,000. Nested anchors can expand a few lines to more than memory holds.
_MAX_VALUES = 100_000
# Raised by PyYAML for a value that does not match its tag, such as `0b_` or `!!bool 7`.
_VALUE_ERRORS = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError)
_ENV_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_VARIABLE = re.compile(r"([A-Za-z_]\w*)(?::-(.*))?", re.DOTALL)
# The text that PyYAML quotes after these words may be a password that begins with *, & or !.
_QUOTED = re.compile(r"(alias|anchor|handle|tag) ['\"].*", re.DOTALL)


def load(path: Path, model: type[S], *, environ: Mapping[str, str] | None = None, check_files: bool = False) -> S:
    """Load settings of the class `model` from a YAML file. Paths of secret files are relative to its folder.

    `check_files` requires that video files and certificates exist.

    Raises `ConfigError` with one line per fault: file, line, key, the expected value and, for an unknown key, the
    most similar one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: check the path of the configuration file.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text.") from None
    return parse(text, model, name=str(path), folder=path.parent, environ=environ, check_files=check_files)


def parse(
    text: str,
    model: type[S],
    *,
    name: str,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    check_files: bool = False,
) -> S:
    """Parse the text of a YAML file. `name` is its name in errors, `folder` its location.

    `environ` is the environment, by default that of the process. Raises `ConfigError` as `load` does.
    """
    document = _Document(name, folder or Path(), os.environ if environ is None else environ)
    try:
        return model.model_validate(document.read(text, model), context={CHECK_FILES: check_files})
    except RecursionError:
        faults = [f"{name} is nested too deeply."]
    except ValidationError as error:
        found = sorted(format_errors(error, model, document.raw), key=lambda fault: document.line(fault[0]))
        faults = [f"{name}:{document.line(loc)}: {text}" for loc, text in found]
    # Raised outside the handlers, because their exceptions contain the values.
    raise ConfigError("\n".join(faults))


class _Document:
    """Conversion of one YAML file to plain values."""

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str]) -> None:
        self.raw: dict[Loc, str] = {}
        """Text of the values that contain an environment variable, as written in the file."""
        self._name = name
        self._folder = folder
        self._environ = environ
        self._lines: dict[Loc, int] = {}
        self._faults: list[str] = []
        self._values = 0
        self._constructor = SafeConstructor()

    def read(self, text: str, model: type[BaseModel]) -> object:
        """Return the file as plain values. Raises `ConfigError`."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise ConfigError(self._syntax(error)) from None
        values = {} if root is None else self._value(root, model, ())
        if self._faults:
            raise ConfigError("\n".join(self._faults))
        return values

    def line(self, loc: Loc) -> int:
        """Return the line, counted from 1, of `loc` or of the group that contains it."""
        located = next((loc[:end] for end in range(len(loc), 0, -1) if loc[:end] in self._lines), ())
        return self._lines.get(located, 1)

    def _error(self, loc: Loc, text: str, line: int | None = None) -> None:
        self._faults.append(f"{self._name}:{line or self.line(loc)}: {redact_secrets(f'{join_path(loc)} {text}')}")

    def _value(self, node: yaml.Node, expected: object, loc: Loc) -> object:
        self._count()
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, expected, loc)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, expected, loc)
        if node.tag == _NULL:
            return empty_value(expected)
        if node.tag == _STR or is_secret(expected):
            return self._interpolate(node.value, loc)
        try:
            value = self._constructor.construct_object(node)
            repr(value)  # raises for a number of more than 4,300 digits, which no message can show
        except _VALUE_ERRORS:
            self._error(loc, "cannot be read: put the value in quotes.")
            return None
        return value

    def _count(self) -> None:
        self._values += 1
        if self._values > _MAX_VALUES:
            raise ConfigError(f"{self._name}: nested YAML anchors expand to more than {_MAX_VALUES:,} values.")

    def _sequence(self, node: yaml.SequenceNode, expected: object, loc: Loc) -> list[object]:
        values = []
        for index, item in enumerate(node.value):
            self._lines[(*loc, index)] = _line(item)
            values.append(self._value(item, child_type(expected, index), (*loc, index)))
        return values

    def _mapping(self, node: yaml.MappingNode, expected: object, loc: Loc) -> dict[str, object]:
        merged: dict[str, object] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                merged |= self._merged(value, expected, loc)
        own: dict[str, object] = {}
        for key, value in node.value:
            if key.tag != _MERGE:
                self._add_key(key, value, own, expected, loc)
        self._read_secrets(own, expected, loc)
        return merged | own

    def _add_key(
        self, key: yaml.Node, value: yaml.Node, values: dict[str, object], expected: object, loc: Loc
    ) -> None:
        """Add one key and its value. The key is its text, even if YAML would read it as a bool or a number."""
        if not isinstance(key, yaml.ScalarNode):
            self._error(loc, "contains a key that is not text.", _line(key))
            return
        inner = (*loc, key.value)
        if key.value in values:
            self._error(inner, f"is a duplicate key, first defined on line {self._lines[inner]}.", _line(key))
            return
        self._lines[inner] = _line(key)
        values[key.value] = self._value(value, child_type(expected, key.value), inner)

    def _merged(self, node: yaml.Node, expected: object, loc: Loc) -> dict[str, object]:
        """Return the keys merged by `<<: *anchor` or `<<: [*first, *second]`; the first takes precedence."""
        merged: dict[str, object] = {}
        for each in reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            self._count()
            if isinstance(each, yaml.MappingNode):
                merged |= self._mapping(each, expected, loc)
            else:
                self._error(loc, "merges a value that is not a mapping.", _line(each))
        return merged

    def _interpolate(self, text: str, loc: Loc) -> str:
        """Replace references to environment variables in `text`."""

        def fill(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            self.raw[loc] = text
            variable = _VARIABLE.fullmatch(match[1]) if match[0].endswith("}") else None
            if variable is None:
                self._error(
                    loc, "contains ${ without a variable: write ${NAME}, ${NAME:-default}, or $${ for a literal ${."
                )
                return ""
            value = self._variable(variable[1], loc)
            if value is None and variable[2] is None:
                self._error(loc, f"needs the environment variable {variable[1]}, which is not set.")
            return value or variable[2] or ""

        return _ENV_REFERENCE.sub(fill, text)

    def _variable(self, name: str, loc: Loc) -> str | None:
        """Return an environment variable, or the contents of the file that NAME_FILE names (container secrets)."""
        path = self._environ.get(f"{name}_FILE")
        if path is None or name in self._environ:
            return self._environ.get(name)
        return self._secret(path, loc, f"needs the file named by {name}_FILE")

    def _read_secrets(self, values: dict[str, object], expected: object, loc: Loc) -> None:
        """Replace every KEY_file of a secret KEY by the contents of that file."""
        group = submodel(expected)
        for key in secret_keys(group) if group else ():
            path = values.pop(f"{key}_file", None)
            if not path:
                continue
            inner = (*loc, f"{key}_file")
            if values.get(key) is not None:
                self._error(inner, f"conflicts with {key}: give one of the two.")
            values[key] = self._secret(str(path), inner, f"refers to {self.raw.get(inner, path)}")
            self._lines[(*loc, key)] = self._lines[inner]

    def _secret(self, path: str, loc: Loc, description: str) -> str:
        try:
            return (self._folder / path).read_text(encoding="utf-8").strip()
        except OSError as error:
            self._error(loc, f"{description}, which cannot be read: {error.strerror}.")
        except ValueError:
            self._error(loc, f"{description}, which is not UTF-8 text.")
        return ""

    def _syntax(self, error: yaml.YAMLError) -> str:
        """Describe a syntax error without the line that PyYAML quotes, which may contain a password."""
        if not isinstance(error, yaml.MarkedYAMLError):
            return f"{self._name} is not valid YAML: {' '.join(str(error).split())}."
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = _QUOTED.sub(r"\1", ", ".join(filter(None, (error.context, error.problem))))
        return f"{self._name}{line} is not valid YAML: {problem}."


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
