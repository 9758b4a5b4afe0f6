"""Settings → the queue and the store, ours or somebody else's."""

from __future__ import annotations

from threading import Event

from fer_stream.config import LiveSettings, OverflowSettings, SourceSettings
from fer_stream.leases import Lease
from fer_stream.queues.embedded import attach
from fer_stream.queues.queue import Overflow, Redelivery
from fer_stream.queues.redis import RedisQueue
from fer_stream.redis_link import Link, open_link
from fer_stream.timeline.redis import RedisStore
from fer_stream.timeline.store import Retention


def open_queue_link(settings: LiveSettings, stop: Event) -> Link:
    """The queue's server: the one that is named, or the private one of a running `serve`."""
    address = settings.queue.address
    url = address.get_secret_value() if address else attach(settings.state_dir, "queue")
    return open_link(url, cluster=settings.queue.cluster, stop=stop)


def open_store_link(settings: LiveSettings, stop: Event) -> Link:
    """The store's server, as `open_queue_link`."""
    address = settings.store.address
    url = address.get_secret_value() if address else attach(settings.state_dir, "store")
    return open_link(url, stop=stop)


def open_queue(
    link: Link,
    settings: LiveSettings,
    *,
    overflow: Overflow | None = None,
    lease: Lease | None = None,
    consumer: str | None = None,
) -> RedisQueue:
    """The queue on `link`, as the settings want it."""
    redelivery = settings.queue.redelivery
    return RedisQueue(
        link,
        shards=settings.queue.shards,
        overflow=overflow,
        lease=lease,
        redelivery=Redelivery(redelivery.after_s, redelivery.deliveries),
        consumer=consumer,
        idle_s=0.5,
    )


def open_store(link: Link, settings: LiveSettings, lease: Lease | None = None) -> RedisStore:
    """The store on `link`, as the settings want it."""
    kept = settings.store.retention
    retention = Retention(results=kept.results, results_s=kept.results_s, segments_days=kept.segments_days)
    return RedisStore(link, lease=lease, retention=retention)


def overflow_of(source: SourceSettings) -> Overflow:
    """What happens when there are more faces than the workers can classify."""
    wanted: OverflowSettings = source.overflow
    drop = wanted.policy == "drop_oldest" or (wanted.policy == "auto" and source.kind == "camera")
    if drop:
        default = Overflow.live()
        return Overflow.live(wanted.capacity or default.capacity, wanted.max_age_s, default.expire_s)
    return Overflow.file(wanted.capacity or Overflow.file().capacity)
