"""Serialisation of the state of a timeline as JSON, so that reading it executes no code.

The state is a tree of dataclasses. A `Sample` can occur in it several times; it is written once and referenced by its
number, so that the restored state shares it in the same way.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np

from fer_stream.timeline.smoothing import Sample

if TYPE_CHECKING:
    from fer_stream.records import F32

T = TypeVar("T")

VERSION = 2


def encode_state(state: object) -> bytes:
    """Return the dataclass `state` as JSON."""
    samples = SampleTable()
    document = {"version": VERSION, "state": _dump(state, samples), "samples": samples.rows}
    return json.dumps(document, separators=(",", ":")).encode()


def decode_state(kind: type[T], data: bytes) -> T:
    """Return the dataclass of type `kind` in `data`. Raises `ValueError` if the format version differs."""
    document = json.loads(data)
    if document["version"] != VERSION:
        raise ValueError(f"Expected a timeline state of version {VERSION}, received {document['version']}")
    state: T = _loader(cast(Any, kind))(document["state"], SampleTable.read(document["samples"]))
    return state


class SampleTable:
    """Rows of the samples of a state, each of which is contained once."""

    def __init__(self) -> None:
        self.rows: list[list[object]] = []
        self._numbers: dict[int, int] = {}

    def number(self, sample: Sample) -> int:
        """Return the row number of `sample`, which is added if it is new."""
        if id(sample) not in self._numbers:
            self._numbers[id(sample)] = len(self.rows)
            probs, smoothed = _to_list(sample.probs), _to_list(sample.smoothed)
            label = (sample.evidence, sample.low_quality, sample.label)
            self.rows.append([sample.time_s, probs, sample.quality, smoothed, *label])
        return self._numbers[id(sample)]

    @staticmethod
    def read(rows: Sequence[Sequence[Any]]) -> list[Sample]:
        """Return the samples of `rows`, in order."""
        return [
            Sample(time_s, _to_array(probs), quality, _to_array(smoothed), *label)
            for time_s, probs, quality, smoothed, *label in rows
        ]


def _dump(value: Any, samples: SampleTable) -> Any:
    if isinstance(value, Sample):
        return samples.number(value)
    if isinstance(value, np.ndarray):
        return value.tolist()  # the doubles of JSON represent float32 exactly
    if isinstance(value, dict):
        return {key: _dump(item, samples) for key, item in value.items()}
    if isinstance(value, list | tuple | deque):
        return [_dump(item, samples) for item in value]
    if is_dataclass(value):
        return [_dump(getattr(value, name), samples) for name in _names(cast(Any, type(value)))]
    return value


_Loader = Callable[[Any, Sequence[Sample]], Any]


@cache
def _loader(kind: Any) -> _Loader:
    """Return a function that restores a value of the annotated type `kind`."""
    if kind is Sample:
        return lambda value, samples: samples[value]
    if is_dataclass(kind):
        return _dataclass_loader(kind)
    arguments = get_args(kind)
    if get_origin(kind) is np.ndarray:
        return lambda value, _: np.array(value, np.float32)
    if NoneType in arguments:
        present = _loader(next(one for one in arguments if one is not NoneType))
        return lambda value, samples: None if value is None else present(value, samples)
    if get_origin(kind) is dict:
        key_of, item = (int if arguments[0] is int else str), _loader(arguments[1])
        return lambda value, samples: {key_of(key): item(one, samples) for key, one in value.items()}
    if get_origin(kind) in (list, tuple, deque):
        container, item = get_origin(kind), _loader(arguments[0])
        return lambda value, samples: container(item(one, samples) for one in value)
    return lambda value, _: value


def _dataclass_loader(kind: Any) -> _Loader:
    hints = get_type_hints(kind)
    loaders = [_loader(hints[name]) for name in _names(kind)]
    return lambda value, samples: kind(*(load(item, samples) for load, item in zip(loaders, value, strict=True)))


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _to_list(values: F32 | None) -> list[float] | None:
    return None if values is None else values.tolist()


def _to_array(values: Sequence[float] | None) -> F32 | None:
    return None if values is None else np.array(values, np.float32)
