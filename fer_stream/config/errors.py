"""What a class of settings expects at a place, and what is said of a value that does not fit.

A place is a `Loc`, the keys and indices on the way there. A key is secret where its class says so (`SecretStr`,
`Secret`); no complaint holds the value of one.
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
_SAID = {
    "dict_type": "expected keys and values here",
    "model_type": "expected keys and values here",
    "tuple_type": "expected a list here",
}
"""In place of pydantic's own words, which are about Python."""


def complaints(
    error: ValidationError, model: type[BaseModel], raw: Mapping[Loc, str] = MappingProxyType({})
) -> Iterator[tuple[Loc, str]]:
    """The place of each fault that pydantic found in values for `model`, and a sentence that names key and cure.

    `raw` holds what to show in place of values that must not be shown.
    """
    for fault in error.errors(include_url=False):
        yield fault["loc"], redact_secrets(_sentence(fault, model, raw))


def dotted(loc: Loc) -> str:
    """A place in words."""
    return ".".join(map(str, loc)) or "the file"


def secret_keys(model: type[BaseModel]) -> list[str]:
    """The keys of a class of settings whose values are secret: beside each KEY there may be a KEY_file."""
    return [key for key, field in model.model_fields.items() if is_secret(field.annotation)]


def is_secret(expected: object) -> bool:
    """Is a value of this type a secret?"""
    return any(isinstance(kind, type) and issubclass(kind, SecretStr | Secret) for kind in _kinds(expected))


def group_of(expected: object) -> type[BaseModel] | None:
    """The class of settings in this type, if there is one."""
    return next((kind for kind in _kinds(expected) if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def below(expected: object, step: int | str) -> object:
    """The type of what stands at the key or index `step` of an `expected`; None where that is unknown."""
    if group := group_of(expected):
        field = group.model_fields.get(str(step))
        return field.annotation if field else None
    for kind in _kinds(expected):
        if get_origin(kind) in _CONTAINERS:
            return get_args(kind)[get_origin(kind) is dict]
    return None


def nothing(expected: object) -> object:
    """What a key without a value stands for: no value where that is one, else an empty group or list."""
    kinds = _kinds(expected)
    if NoneType in kinds:
        return None
    if group_of(expected):
        return {}
    return next((origin() for kind in kinds if (origin := get_origin(kind)) in _CONTAINERS), None)


def _kinds(expected: object) -> list[object]:
    """The types that a type stands for: the sides of a union, without what `Annotated` adds."""
    if get_origin(expected) is Annotated:
        return _kinds(get_args(expected)[0])
    if get_origin(expected) in (Union, UnionType):
        return [kind for side in get_args(expected) for kind in _kinds(side)]
    return [expected]


def _at(model: type[BaseModel], loc: Loc) -> object:
    expected: object = model
    for step in loc:
        expected = below(expected, step)
    return expected


def _sentence(fault: Mapping[str, Any], model: type[BaseModel], raw: Mapping[Loc, str]) -> str:
    loc: Loc = fault["loc"]
    if fault["type"] == "extra_forbidden":
        return f"{dotted(loc)} is no setting; {_nearest(model, loc)}"
    if fault["type"] == "missing":
        return f"{dotted(loc)} is missing."
    if loc[-1:] == ("[key]",):
        return f"{dotted(loc[:-1])} cannot be called so: {_lower(fault['msg'])}."
    message = _SAID.get(fault["type"]) or _lower(fault["msg"].removeprefix("Value error, "))
    shown = _shown(fault["input"], loc, model, raw)
    return (f"{dotted(loc)}: " if loc else "") + message + (f", received {shown}." if shown else ".")


def _shown(value: object, loc: Loc, model: type[BaseModel], raw: Mapping[Loc, str]) -> str:
    """What may be shown of a value: nothing of a secret, of a group, or of what is not where it belongs.

    Not even a redacted URL: what makes it wrong may be that its password is where none is looked for.
    """
    expected = _at(model, loc)
    group = group_of(expected) or any(get_origin(kind) in _CONTAINERS for kind in _kinds(expected))
    if expected is None or group or is_secret(expected) or isinstance(value, _CONTAINERS):
        return ""
    return raw.get(loc, repr(value))


def _nearest(model: type[BaseModel], loc: Loc) -> str:
    """A hint for a key that `model` does not know."""
    group = group_of(_at(model, loc[:-1])) or model
    known = list(group.model_fields)
    nearest = difflib.get_close_matches(str(loc[-1]), known + [f"{key}_file" for key in secret_keys(group)], n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"known here are {', '.join(known)}."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
