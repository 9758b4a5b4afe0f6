"""Settings → the queue and the store, ours or somebody else's."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from threading import Event
from typing import TYPE_CHECKING, Literal

from fer_stream.broker.client import Link, open_link
from fer_stream.broker.lease import Lease
from fer_stream.broker.protocols import DeadReason, Overflow, Redelivery
from fer_stream.broker.queue import RedisQueue
from fer_stream.config import LiveSettings, LiveTimelineSettings, OverflowSettings, ServerSettings, SourceSettings
from fer_stream.store.protocol import Retention
from fer_stream.store.redis import RedisStore

if TYPE_CHECKING:
    from fer_stream.jobs.queue import RqJobs


def open_queue_link(settings: LiveSettings, stop: Event) -> Link:
    """The queue's server: the one that is named, or the private one of a running `serve`."""
    return open_link(_url(settings.queue, settings, "queue"), cluster=settings.queue.cluster, stop=stop)


def open_store_link(settings: LiveSettings, stop: Event, *, patience_s: float = 30.0) -> Link:
    """The store's server, as `open_queue_link`. While it is away, a call tries again for `patience_s`."""
    return open_link(_url(settings.store, settings, "store"), patience_s=patience_s, stop=stop)


def store_url(settings: LiveSettings) -> str:
    """Where the store is, with user and password. Raises `QueueError` where a private one does not run."""
    return _url(settings.store, settings, "store")


def _url(server: ServerSettings, settings: LiveSettings, role: Literal["queue", "store"]) -> str:
    if server.address:
        return server.address.get_secret_value()
    # Not at the top: containers, which name their servers, come without one.
    from fer_stream.broker.embedded import attach

    return attach(settings.state_dir, role)


def open_queue(
    link: Link,
    settings: LiveSettings,
    *,
    overflow: Overflow | None = None,
    lease: Lease | None = None,
    consumer: str | None = None,
    serves: Collection[int] | None = None,
    on_dead: Callable[[DeadReason], object] = lambda _: None,
) -> RedisQueue:
    """The queue on `link`, as the settings want it; for the rest see `RedisQueue`."""
    redelivery = settings.queue.redelivery
    return RedisQueue(
        link,
        shards=settings.queue.shards,
        overflow=overflow,
        lease=lease,
        redelivery=Redelivery(redelivery.visibility_timeout_s, redelivery.max_deliveries),
        consumer=consumer,
        serves=serves,
        idle_s=0.5,
        on_dead=on_dead,
    )


def open_store(link: Link, settings: LiveSettings, lease: Lease | None = None) -> RedisStore:
    """The store on `link`, as the settings want it."""
    kept = settings.store.retention
    retention = Retention(results=kept.max_frames, frames_s=kept.frames_s, segments_days=kept.segments_days)
    return RedisStore(link, lease=lease, retention=retention)


def open_jobs(link: Link, settings: LiveSettings) -> RqJobs:
    """The jobs on `link`, the store's, as the settings want them."""
    # Not at the top: most processes have nothing to do with rq.
    from fer_stream.jobs.queue import RqJobs

    return RqJobs(link, settings.jobs)


def overflow_of(source: SourceSettings) -> Overflow:
    """What happens when there are more faces than the workers can classify."""
    wanted: OverflowSettings = source.overflow
    drop = wanted.policy == "drop_oldest" or (wanted.policy == "auto" and source.kind == "camera")
    if drop:
        default = Overflow.live()
        return Overflow.live(wanted.capacity or default.capacity, wanted.max_age_s, default.expire_s)
    return Overflow.file(wanted.capacity or Overflow.file().capacity)


def timeline_of(settings: LiveSettings, source: str) -> LiveTimelineSettings:
    """The timeline of a source: at its rate, so that the next frame is no gap; also of one that is named no more.

    A source that waits for the workers is waited for in turn: its media time may run ahead of the clock.
    """
    known, timeline = settings.sources.get(source), settings.timeline
    if known and known.fps:
        timeline = timeline.at_rate(known.fps)
    if known and overflow_of(known).policy == "block":
        timeline = timeline.model_copy(update={"allowed_lateness_s": math.inf})
    return timeline
