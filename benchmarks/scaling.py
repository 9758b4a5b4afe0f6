"""Figures of docs/how-to/scaling.md: throughput of one Redis server and memory per entry.

    python -m benchmarks.scaling [--seconds 5] [--shards 1 4]
    python -m benchmarks.scaling --plan 1000 --fps 5 --faces 2

The first form measures with the embedded Valkey servers of `serve` and the queue, journal and store of the service.
Enqueue, receive and acknowledge run in a single process; a server handles more with several clients. The second form
estimates the resources for a number of cameras.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from math import ceil
from pathlib import Path

import numpy as np

from fer_stream.broker.client import RedisClient, open_client
from fer_stream.broker.consumer import ConsumerOptions
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.protocols import Overflow
from fer_stream.broker.queue import RedisQueue
from fer_stream.broker.source_registry import SourceKeys
from fer_stream.records import (
    Face,
    FaceCrop,
    FaceKey,
    FrameHeader,
    LabelledFace,
    LabelledFrame,
    Prediction,
    Quality,
    Segment,
    stream_id_of,
)
from fer_stream.store.protocol import START, Checkpoint
from fer_stream.store.redis import Keys as StoreKeys
from fer_stream.store.redis import RedisStore

_CONSUMER = ConsumerOptions(poll_timeout_s=0.1)
BATCH = 32
ENTRIES = 5_000
RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.ones(7)).astype(np.float32)
OK = Quality(0.8, "ok")
NOW_S = time.time()


# Assumptions of docs/how-to/scaling.md, which explains them.
FRAMES_PER_CORE = 180
FACES_PER_CORE = {"AVX2": 600, "AVX-512 VNNI": 2_500}
CROPS_PER_NODE = 3_500
SOURCES_PER_SHARD = 64
SHARDS_PER_NODE = 4
FRAMES_PER_STORE = 5_000
BYTES_PER_CROP, MAX_AGE_S = 2_500, 2
BYTES_PER_FRAME, BYTES_PER_FACE, RESULTS, RESULTS_S = 136, 244, 20_000, 3_600


def plan(cameras: int, fps: float, faces: float) -> dict[str, str]:
    """Estimate the resources of `cameras` at `fps` with `faces` faces per frame."""
    frames, crops = cameras * fps, cameras * fps * faces
    nodes = ceil(crops / CROPS_PER_NODE)
    shards = max(ceil(cameras / SOURCES_PER_SHARD), SHARDS_PER_NODE * nodes if nodes > 1 else 1)
    kept = min(RESULTS, fps * RESULTS_S) * (BYTES_PER_FRAME + faces * BYTES_PER_FACE)
    return {
        "cameras": f"{cameras:,}",
        "frames/s": f"{frames:,.0f}",
        "faces/s": f"{crops:,.0f}",
        "capture cores": f"{ceil(frames / FRAMES_PER_CORE):,}",
        **{f"worker cores, {kind}": f"{ceil(crops / each):,}" for kind, each in FACES_PER_CORE.items()},
        "queue nodes": f"{nodes:,}",
        "shards": f"{shards:,}",
        "queue memory": f"{crops * MAX_AGE_S * BYTES_PER_CROP / 1e6:,.1f} MB",
        "stores": f"{ceil(frames / FRAMES_PER_STORE):,}",
        "store memory": f"{cameras * kept / 1e9:,.2f} GB",
    }


def crop(source: str, index: int) -> FaceCrop:
    key = FaceKey(stream_id_of(source, round(1000 * NOW_S)), 1, index)
    box = np.array([101.25, 80.5, 180.75, 190.5], np.float32)
    pixels = RNG.integers(0, 256, (48, 48), np.uint8)
    return FaceCrop(Face(key, index / 15, NOW_S, box, 0.9, OK), pixels)


def prediction(one: FaceCrop) -> Prediction:
    return Prediction(one.face, PROBS, "vgg-s-1")


def memory_bytes(link: RedisClient, key: str) -> int:
    """Return the bytes that the server needs for `key` including all entries."""
    return link.call(lambda client: client.memory_usage(key, samples=0)) or 0


def rate_per_s(work: Callable[[], int], seconds: float) -> float:
    """Return the sum of the results of `work` per second."""
    done, started_s = 0, time.perf_counter()
    while time.perf_counter() < started_s + seconds:
        done += work()
    return done / (time.perf_counter() - started_s)


def measure_sizes(queue_link: RedisClient, store_link: RedisClient) -> None:
    """Print the bytes per entry."""
    keys, name = SourceKeys("door", 1), "door"
    crops = [crop(name, index) for index in range(ENTRIES)]
    queue = RedisQueue(queue_link, overflow=Overflow.file(ENTRIES), consumer=_CONSUMER)
    for first in range(0, ENTRIES, BATCH):
        queue.enqueue(crops[first : first + BATCH])
    print(f"queued crop:             {memory_bytes(queue_link, keys.crops) / ENTRIES:7.0f} bytes in the queue server")
    journal = RedisJournal(queue_link)
    journal.append(
        [FrameHeader(one.face.key.stream_id, one.face.key.frame_index, one.face.time_s, 1) for one in crops]
    )
    marks = memory_bytes(queue_link, keys.predictions)
    print(f"frame in the journal:    {marks / ENTRIES:7.0f} bytes")
    journal.append([prediction(one) for one in crops])
    print(f"face in the journal:     {(memory_bytes(queue_link, keys.predictions) - marks) / ENTRIES:7.0f} bytes")
    queue_link.call(lambda client: client.flushall())

    store, store_keys = RedisStore(store_link), StoreKeys(name)
    for faces in (0, 1, 2):
        store_link.call(lambda client: client.flushall())
        store.publish(name, [labelled(name, index, faces) for index in range(ENTRIES)])
        used = memory_bytes(store_link, store_keys.results) / ENTRIES
        print(f"result with {faces} faces:     {used:7.0f} bytes in the store server")
    stream = stream_id_of(name, round(1000 * NOW_S))
    segments = [Segment(stream, 1, "happy", at, at + 1.5, 0.8) for at in range(ENTRIES)]
    store.commit(name, Checkpoint(START, b"", {}), segments, [])
    print(f"segment:                 {memory_bytes(store_link, store_keys.segments) / ENTRIES:7.0f} bytes")
    store_link.call(lambda client: client.flushall())


def labelled(source: str, index: int, faces: int) -> LabelledFrame:
    face = LabelledFace(1, np.array([101.25, 80.5, 180.75, 190.5], np.float32), 0.9, OK, PROBS, PROBS, "happy")
    return LabelledFrame(stream_id_of(source, round(1000 * NOW_S)), index, index / 15, (face,) * faces)


def measure_rates(link: RedisClient, shards: int, seconds: float) -> None:
    """Print the crops per second of one server with `shards` shards of one source each."""
    names = one_source_per_shard(shards)
    queue = RedisQueue(link, shards=shards, overflow=Overflow.file(1_000_000), consumer=_CONSUMER)
    crops = {name: [crop(name, index) for index in range(BATCH)] for name in names}

    def enqueue() -> int:
        for batch in crops.values():
            queue.enqueue(batch[:3])
        return 3 * len(crops)

    print(f"{shards} shards: enqueued     {rate_per_s(enqueue, seconds):7.0f} crops/s, three per call")

    def work() -> int:
        batch = queue.receive(BATCH, 0)
        return queue.ack([(one, prediction(one.crop)) for one in batch])

    waiting = queue.depth()
    done = rate_per_s(lambda: work() if queue.depth() > BATCH else idle(), min(seconds, waiting / 20_000))
    print(f"{shards} shards: acknowledged {done:7.0f} crops/s, received and acknowledged in batches of {BATCH}")
    link.call(lambda client: client.flushall())


def idle() -> int:
    time.sleep(0.001)
    return 0


def one_source_per_shard(shards: int) -> list[str]:
    found: dict[int, str] = {}
    number = 0
    while len(found) < shards:
        found.setdefault(SourceKeys(f"camera-{number}", shards).shard, f"camera-{number}")
        number += 1
    return list(found.values())


def table(plans: list[dict[str, str]]) -> list[str]:
    """Return the rows of a Markdown table."""
    rows = [list(plans[0]), ["---:"] * len(plans[0]), *(list(each.values()) for each in plans)]
    return [f"| {' | '.join(row)} |" for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--plan", type=int, nargs="+", metavar="CAMERAS")
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--faces", type=float, default=2.0)
    options = parser.parse_args()
    if options.plan:
        for row in table([plan(cameras, options.fps, options.faces) for cameras in options.plan]):
            print(row)
        return
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer(Path(folder), role)) for role in ("queue", "store")]
        queue, store = (open_client(server.url) for server in servers)
        measure_sizes(queue, store)
        for shards in options.shards:
            measure_rates(queue, shards, options.seconds)
        queue.close()
        store.close()


if __name__ == "__main__":
    main()
