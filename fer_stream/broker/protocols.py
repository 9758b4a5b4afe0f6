"""What carries face crops to the workers, and what carries everything said about them to the timeline.

A crop is put by a capture, taken by a worker, and settled when its prediction is in the journal. Until then the
worker has it on loan: if the worker dies, the crop is handed out again. Whatever happens to it, it is counted
once: put = settled + dropped + dead + still open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from fer_stream.broker.codec import Message
from fer_stream.records import FaceCrop, Gap, Prediction, source_of


@dataclass(frozen=True, slots=True)
class Delivery:
    """A crop on loan. `entry` is the queue's own name for it, `attempt` counts its deliveries from 1."""

    crop: FaceCrop
    entry: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the crops of one stream."""

    put: int = 0
    settled: int = 0
    dropped: int = 0
    dead: int = 0

    @property
    def open(self) -> int:
        """Crops that wait or are in work. A stream is complete when its end was seen and this is 0."""
        return self.put - self.settled - self.dropped - self.dead


@dataclass(frozen=True, slots=True)
class Overflow:
    """What happens when crops come faster than they are classified.

    `drop_oldest` lets at most `capacity` crops of a source wait, none for longer than `max_age_s`, and counts
    what it drops; crops in work are not touched. `block` lets `put` wait until fewer than `capacity` crops of
    the source wait or are in work, and drops nothing. `expire_s` is the backstop for crops of a source that
    stays silent: faces do not outlive it.
    """

    policy: Literal["drop_oldest", "block"]
    capacity: int
    max_age_s: float | None
    expire_s: float

    @classmethod
    def live(cls, capacity: int = 64, max_age_s: float = 2.0, expire_s: float = 60.0) -> Overflow:
        """For cameras, where old crops are worth nothing. 64 are 2 s of 15 fps with two faces."""
        return cls("drop_oldest", capacity, max_age_s, expire_s)

    @classmethod
    def file(cls, capacity: int = 256, expire_s: float = 86_400.0) -> Overflow:
        """For files, of which nothing is lost. 256 are enough for a few workers to have full batches."""
        return cls("block", capacity, None, expire_s)


DeadReason = Literal["deliveries", "unreadable"]
"""Why a crop is given up: it was delivered too often in vain, or its bytes are no crop."""
DEAD_REASONS: tuple[DeadReason, ...] = get_args(DeadReason)


@dataclass(frozen=True, slots=True)
class Redelivery:
    """When a crop is taken from a worker that does not settle it.

    `after_s` must exceed the time of the slowest batch. A crop that was delivered `deliveries` times in vain is
    not tried again: it goes to the dead letters, without its pixels.
    """

    after_s: float = 10.0
    deliveries: int = 3


class MessageQueue(Protocol):
    """Takes face crops from captures to workers, and counts what becomes of each."""

    def put(self, crops: Sequence[FaceCrop]) -> int:
        """Add `crops`, oldest first; how many, old or new, were dropped to make room.

        Raises `QueueFull` where a blocked put is told to stop, `LeaseLost` where another process captures this
        source by now, `QueueError` where the queue cannot be reached.
        """
        ...

    def take(self, max_items: int, max_wait_s: float) -> list[Delivery]:
        """The next batch, fair between the sources: this is the micro-batcher.

        Waits for a first crop for as long as the queue was told to idle, then up to `max_wait_s` for the batch to
        fill. Empty means that nothing came. A crop that was delivered before comes alone, for it may be why its
        last worker died.
        """
        ...

    def settle(self, done: Sequence[tuple[Delivery, Prediction]]) -> int:
        """Publish predictions and give back their crops, each pair as one step; how many were published.

        A crop that was settled, dropped or buried by someone else in the meantime is left out.
        """
        ...

    def depth(self) -> int:
        """How many crops wait or are in work."""
        ...

    def counts(self, stream_id: str) -> Counts:
        """What became of the crops of one stream so far."""
        ...

    def oldest(self, sources: Collection[str]) -> Mapping[str, FaceCrop | None]:
        """The oldest crop that waits or is in work of each source: all before it have their predictions out.

        None where it cannot be read. A source without any is left out.
        """
        ...


START = "0"
"""The position before the first entry of every journal."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a journal. `message` is None where its bytes cannot be read: count it and go on."""

    source: str
    position: str
    message: Message | None


def journal_source(message: Message) -> str:
    """The source whose journal `message` belongs to."""
    match message:
        case Gap():
            return message.source
        case Prediction():
            return source_of(message.key.stream_id)
        case _:
            return source_of(message.stream_id)


class Journal(Protocol):
    """Keeps, per source, what captures and workers say, until the timeline has made use of it."""

    def append(self, messages: Sequence[Message]) -> None:
        """Add messages of any sources. Raises `LeaseLost` and `QueueError` as `MessageQueue.put` does."""
        ...

    def read(self, after: Mapping[str, str], max_per_source: int, max_wait_s: float) -> list[Entry]:
        """What follows the position `after[source]` of each source, in order within a source.

        Waits up to `max_wait_s` for a first entry. Empty means that all sources were read to their ends.
        """
        ...

    def knows(self, source: str, position: str) -> bool:
        """Is `position` from this journal?

        Not where a server lost everything: with its clock set back, what it holds since would seem to have been
        read. It must be read from `START`.
        """
        ...

    def trim(self, source: str, through: str) -> None:
        """Forget the entries of `source` up to and with the position `through`."""
        ...
