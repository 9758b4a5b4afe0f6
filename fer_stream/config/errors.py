"""Validation errors of settings as sentences with key, fault and cure.

A location (`Loc`) is the sequence of keys and indices that leads to a value. A key is secret if its type is
(`SecretStr`, `Secret`). No message contains the value of a secret key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Secret, SecretStr, ValidationError

from fer_stream.log import redact_secrets

Loc = tuple[int | str, ...]

_CONTAINERS = (dict, list, tuple)
_MESSAGES = {
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "tuple_type": "must be a list",
}
"""Replacements of pydantic's messages that mention Python types."""


def format_errors(
    error: ValidationError, model: type[BaseModel], raw: Mapping[Loc, str] = MappingProxyType({})
) -> Iterator[tuple[Loc, str]]:
    """Yield the location of each validation error of `model` and a sentence that names key, fault and cure.

    `raw` maps locations to the text shown in place of values that must not be shown.
    """
    for fault in error.errors(include_url=False):
        yield fault["loc"], redact_secrets(_sentence(fault, model, raw))


def join_path(loc: Loc) -> str:
    """Return a location as a dotted key."""
    return ".".join(map(str, loc)) or "the file"


def secret_keys(model: type[BaseModel]) -> list[str]:
    """Return the secret keys of a group of settings. Beside each KEY, a KEY_file is accepted."""
    return [key for key, field in model.model_fields.items() if is_secret(field.annotation)]


def is_secret(expected: object) -> bool:
    """Return whether values of this type are secret."""
    return any(isinstance(member, type) and issubclass(member, SecretStr | Secret) for member in _members(expected))


def submodel(expected: object) -> type[BaseModel] | None:
    """Return the group of settings in this type, if there is one."""
    return next(
        (member for member in _members(expected) if isinstance(member, type) and issubclass(member, BaseModel)), None
    )


def child_type(expected: object, step: int | str) -> object:
    """Return the type of the value at the key or index `step` of an `expected`; None if unknown."""
    if group := submodel(expected):
        field = group.model_fields.get(str(step))
        return field.annotation if field else None
    for member in _members(expected):
        if get_origin(member) in _CONTAINERS:
            return get_args(member)[get_origin(member) is dict]
    return None


def empty_value(expected: object) -> object:
    """Return the value of a key without one: None if allowed, otherwise an empty group or list."""
    members = _members(expected)
    if NoneType in members:
        return None
    if submodel(expected):
        return {}
    return next((origin() for member in members if (origin := get_origin(member)) in _CONTAINERS), None)


def _members(expected: object) -> list[object]:
    """Return the members of a union type, without `Annotated`."""
    if get_origin(expected) is Annotated:
        return _members(get_args(expected)[0])
    if get_origin(expected) in (Union, UnionType):
        return [member for side in get_args(expected) for member in _members(side)]
    return [expected]


def _type_at(model: type[BaseModel], loc: Loc) -> object:
    expected: object = model
    for step in loc:
        expected = child_type(expected, step)
    return expected


def _sentence(fault: Mapping[str, Any], model: type[BaseModel], raw: Mapping[Loc, str]) -> str:
    loc: Loc = fault["loc"]
    if fault["type"] == "extra_forbidden":
        return f"unknown setting {join_path(loc)!r}. {_suggestion(model, loc)}"
    if fault["type"] == "missing":
        return f"{join_path(loc)} is required."
    if loc[-1:] == ("[key]",):
        return f"invalid name {join_path(loc[:-1])!r}: {_lower(fault['msg'])}."
    message = _MESSAGES.get(fault["type"]) or _lower(fault["msg"].removeprefix("Value error, "))
    value = _safe_repr(fault["input"], loc, model, raw)
    return (f"{join_path(loc)}: " if loc else "") + message + (f", received {value}." if value else ".")


def _safe_repr(value: object, loc: Loc, model: type[BaseModel], raw: Mapping[Loc, str]) -> str:
    """Return the representation of a value, or nothing for secrets, groups and misplaced values.

    Redacted URLs are not shown either: the fault may be that the password is where none is looked for.
    """
    expected = _type_at(model, loc)
    group = submodel(expected) or any(get_origin(member) in _CONTAINERS for member in _members(expected))
    if expected is None or group or is_secret(expected) or isinstance(value, _CONTAINERS):
        return ""
    return raw.get(loc, repr(value))


def _suggestion(model: type[BaseModel], loc: Loc) -> str:
    """Return a hint for a key that `model` does not have."""
    group = submodel(_type_at(model, loc[:-1])) or model
    keys = list(group.model_fields)
    nearest = difflib.get_close_matches(str(loc[-1]), keys + [f"{key}_file" for key in secret_keys(group)], n=1)
    return f"Did you mean {nearest[0]!r}?" if nearest else f"Valid settings are {', '.join(keys)}."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
