"""Settings → Redis clients and the queue, journal, store and jobs on them.

The only module of `service` that creates Redis adapters. The servers are those of the settings, or the embedded ones
of a running `fer-stream serve`.
"""

from __future__ import annotations

import math
from threading import Event
from typing import TYPE_CHECKING, Literal

from fer_stream.broker.client import RedisClient, open_client
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.protocols import Overflow, Redelivery
from fer_stream.broker.queue import RedisQueue
from fer_stream.store.protocol import Retention
from fer_stream.store.redis import RedisStore

if TYPE_CHECKING:
    from fer_stream.broker.consumer import ConsumerOptions
    from fer_stream.broker.lease import Lease
    from fer_stream.config.live import LiveSettings, LiveTimelineSettings, OverflowSettings, SourceSettings
    from fer_stream.config.servers import ServerSettings
    from fer_stream.jobs.queue import RqJobs


def connect_queue(settings: LiveSettings, stop: Event) -> RedisClient:
    """Connect to the queue server: the configured one, or the embedded one of a running `serve`."""
    return open_client(_url(settings.queue, settings, "queue"), cluster=settings.queue.cluster, stop=stop)


def connect_store(settings: LiveSettings, stop: Event, *, retry_timeout_s: float = 30.0) -> RedisClient:
    """Connect to the store server like `connect_queue`. Retry calls for `retry_timeout_s` while it is unreachable."""
    return open_client(_url(settings.store, settings, "store"), retry_timeout_s=retry_timeout_s, stop=stop)


def store_url(settings: LiveSettings) -> str:
    """Return the URL of the store with user and password. Raises `QueueError` if an embedded one does not run."""
    return _url(settings.store, settings, "store")


def _url(server: ServerSettings, settings: LiveSettings, role: Literal["queue", "store"]) -> str:
    if server.address:
        return server.address.get_secret_value()
    # Not at module level: containers use external servers and have no embedded one.
    from fer_stream.broker.embedded import attach

    return attach(settings.state_dir, role)


def open_queue(
    client: RedisClient,
    settings: LiveSettings,
    *,
    overflow: Overflow | None = None,
    lease: Lease | None = None,
    consumer: ConsumerOptions | None = None,
) -> RedisQueue:
    """Create the queue on `client`; see `RedisQueue` for the keyword arguments."""
    redelivery = settings.queue.redelivery
    return RedisQueue(
        client,
        shards=settings.queue.shards,
        overflow=overflow,
        lease=lease,
        redelivery=Redelivery(redelivery.visibility_timeout_s, redelivery.max_deliveries),
        consumer=consumer,
    )


def open_journal(client: RedisClient, settings: LiveSettings, lease: Lease | None = None) -> RedisJournal:
    """Create the journal on `client`, the connection to the queue server."""
    return RedisJournal(client, shards=settings.queue.shards, lease=lease)


def open_store(client: RedisClient, settings: LiveSettings, lease: Lease | None = None) -> RedisStore:
    """Create the store on `client`."""
    limits = settings.store.retention
    retention = Retention(results=limits.max_frames, frames_s=limits.frames_s, segments_days=limits.segments_days)
    return RedisStore(client, lease=lease, retention=retention)


def open_jobs(client: RedisClient, settings: LiveSettings) -> RqJobs:
    """Create the job client on `client`, the connection to the store."""
    # Not at module level: most processes do not use rq.
    from fer_stream.jobs.queue import RqJobs

    return RqJobs(client, settings.jobs)


def overflow_for(source: SourceSettings) -> Overflow:
    """Return the overflow policy of a source: what happens if the workers cannot keep up."""
    overflow: OverflowSettings = source.overflow
    drop = overflow.policy == "drop_oldest" or (overflow.policy == "auto" and source.kind == "camera")
    if drop:
        default = Overflow.live()
        return Overflow.live(overflow.capacity or default.capacity, overflow.max_age_s, default.expire_s)
    return Overflow.file(overflow.capacity or Overflow.file().capacity)


def timeline_settings(settings: LiveSettings, source: str) -> LiveTimelineSettings:
    """Return the timeline settings of a source, also of one that was removed from the settings.

    They are adapted to the frame rate, so that the interval between two frames is not a gap. A source that blocks
    while the queue is full may be late without limit, because its media time does not follow the clock.
    """
    source_settings, timeline = settings.sources.get(source), settings.timeline
    if source_settings and source_settings.fps:
        timeline = timeline.at_rate(source_settings.fps)
    if source_settings and overflow_for(source_settings).policy == "block":
        timeline = timeline.model_copy(update={"allowed_lateness_s": math.inf})
    return timeline
