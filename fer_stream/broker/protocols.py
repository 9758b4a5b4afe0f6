"""Protocols of the queue of face crops and of the journal of predictions, and their value types.

A capture enqueues a crop, a worker receives it, and acknowledges it by publishing its prediction to the journal.
Until then the crop is in flight: if the worker dies, it is delivered again. Each crop is counted under one outcome:
enqueued = acknowledged + dropped + dead + pending, where pending crops are waiting or in flight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from fer_stream.records import EndOfStream, Face, FaceCrop, FrameHeader, Gap, Prediction, source_of


@dataclass(frozen=True, slots=True)
class Delivery:
    """A crop in flight. `entry_id` is the queue's id of it; `attempt` counts its deliveries from 1."""

    crop: FaceCrop
    entry_id: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Counts:
    """Number of crops of one stream by outcome."""

    enqueued: int = 0
    acked: int = 0
    dropped: int = 0
    dead: int = 0

    @property
    def pending(self) -> int:
        """Crops waiting or in flight. A stream is complete when its end was received and this is 0."""
        return self.enqueued - self.acked - self.dropped - self.dead


@dataclass(frozen=True, slots=True)
class Overflow:
    """Policy for crops that arrive faster than they are classified.

    `drop_oldest` keeps at most `capacity` waiting crops of a source, none older than `max_age_s`, and counts those it
    drops; crops in flight are kept. `block` makes `enqueue` wait until fewer than `capacity` crops of the source are
    waiting or in flight, and drops none. Crops of a source that sends nothing for `expire_s` expire, so that faces
    are never kept longer.
    """

    policy: Literal["drop_oldest", "block"]
    capacity: int
    max_age_s: float | None
    expire_s: float

    @classmethod
    def live(cls, capacity: int = 64, max_age_s: float = 2.0, expire_s: float = 60.0) -> Overflow:
        """Return the policy for cameras, which drops old crops. 64 crops are 2 s of two faces at 15 fps."""
        return cls("drop_oldest", capacity, max_age_s, expire_s)

    @classmethod
    def file(cls, capacity: int = 256, expire_s: float = 86_400.0) -> Overflow:
        """Return the policy for files, which drops nothing. 256 crops fill the batches of a few workers."""
        return cls("block", capacity, None, expire_s)


DeadReason = Literal["deliveries", "unreadable"]
"""Reason for a dead letter: the maximum number of deliveries was reached, or the bytes are not a valid crop."""
DEAD_REASONS: tuple[DeadReason, ...] = get_args(DeadReason)


@dataclass(frozen=True, slots=True)
class Redelivery:
    """Redelivery of crops that a worker does not acknowledge.

    A crop is delivered again `visibility_timeout_s` after its last delivery, which must exceed the time of the
    slowest batch. After `max_deliveries` it becomes a dead letter, without its pixels.
    """

    visibility_timeout_s: float = 10.0
    max_deliveries: int = 3


class MessageQueue(Protocol):
    """Queue of face crops from captures to classification workers, with counts of the outcomes.

    Every method raises `QueueError` if the queue cannot be reached.
    """

    def enqueue(self, crops: Sequence[FaceCrop]) -> int:
        """Add `crops`, oldest first; return the number of crops, old or new, dropped by the overflow policy.

        Raises `QueueFull` if shutdown ends a blocked call, and `LeaseLost` if another process now captures the
        source.
        """
        ...

    def receive(self, max_items: int, batch_timeout_s: float) -> list[Delivery]:
        """Return the next batch of at most `max_items` crops, fair between sources; empty if none arrives.

        Waits for the first crop up to the queue's poll timeout, then up to `batch_timeout_s` for the batch to fill. A
        redelivered crop is returned alone, because it may be the reason why its last worker died.
        """
        ...

    def ack(self, results: Sequence[tuple[Delivery, Prediction]]) -> int:
        """Publish predictions and acknowledge their crops, atomically per crop; return the number published.

        Crops that were acknowledged, dropped or dead-lettered in the meantime are skipped.
        """
        ...

    def depth(self) -> int:
        """Return the number of pending crops."""
        ...

    def counts(self, stream_id: str) -> Counts:
        """Return the counts of the crops of one stream."""
        ...

    def oldest_pending(self, sources: Collection[str]) -> Mapping[str, FaceCrop | None]:
        """Return the oldest pending crop of each source: all predictions of earlier crops are published.

        The value is None if the crop cannot be decoded. Sources without pending crops are omitted.
        """
        ...


JournalMessage = Face | Prediction | FrameHeader | Gap | EndOfStream
"""Message from captures and workers to the timeline. A `Face` alone is one that is not classified."""

JOURNAL_START = "0"
"""Position before the first entry of every journal."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry of a journal. `message` is None if its bytes cannot be decoded: count the entry and continue."""

    source: str
    position: str
    message: JournalMessage | None


def journal_source(message: JournalMessage) -> str:
    """Return the source to whose journal `message` belongs."""
    match message:
        case Prediction():
            return source_of(message.face.key.stream_id)
        case Face():
            return source_of(message.key.stream_id)
        case _:
            return source_of(message.stream_id)


class Journal(Protocol):
    """Messages of captures and workers per source, kept until the timeline has processed them.

    Every method raises `QueueError` if the journal cannot be reached.
    """

    def append(self, messages: Sequence[JournalMessage]) -> None:
        """Append messages of any sources. Raises `LeaseLost` if another process now captures a source."""
        ...

    def read(self, after: Mapping[str, str], max_per_source: int, max_wait_s: float) -> list[JournalEntry]:
        """Return the entries after position `after[source]` of each source, in order within a source.

        Waits up to `max_wait_s` for the first entry. Empty means that all sources were read to their ends.
        """
        ...

    def is_valid_position(self, source: str, position: str) -> bool:
        """Return whether `position` was issued by this journal.

        False after a server lost its data: if its clock was set back as well, new entries have positions before
        `position` and would be skipped. Then read the journal from `JOURNAL_START`.
        """
        ...

    def trim(self, source: str, through: str) -> None:
        """Delete the entries of `source` up to and including the position `through`."""
        ...
