"""Timeline processes that hold several shards."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.request import urlopen

import pytest

from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.lease import is_held
from fer_stream.config.live import LiveSettings
from fer_stream.records import shard_of
from fer_stream.service.supervisor import divide_shards
from fer_stream.store.redis import lease_key

if TYPE_CHECKING:
    from tests.service.conftest import ExpectedResults, Service

SHARDS = 3
CLIP = "leave_and_return"


def names() -> list[str]:
    """Return the name of one source per shard."""
    by_shard = {shard_of(name, SHARDS): name for name in (f"cam{number}" for number in range(20))}
    return [by_shard[shard] for shard in range(SHARDS)]


def holders(live: Service) -> set[bytes]:
    """Return the names of the processes that hold the leases of the shards."""
    keys = [lease_key(shard) for shard in range(SHARDS)]
    tokens = cast(list[bytes | None], live.store_client.call(lambda client: client.mget(keys)))
    return {token.partition(b":")[0] if token else b"" for token in tokens}


@pytest.mark.parametrize(
    ("processes", "expected"),
    [(None, [[0], [1], [2]]), (1, [[0, 1, 2]]), (2, [[0, 2], [1]]), (9, [[0], [1], [2]])],
)
def test_shards_are_divided_among_processes(processes: int | None, expected: list[list[int]]) -> None:
    settings = LiveSettings.model_validate({"queue": {"shards": 3}, "workers": {"timelines": processes}})
    assert [list(shards) for shards in divide_shards(settings)] == expected


def test_one_process_computes_all_shards(
    service: Callable[..., Service],
    expected_results: Callable[[str], ExpectedResults],
    clips: Path,
    free_port: Callable[[], int],
) -> None:
    expected, port = expected_results(CLIP), free_port()
    sources = {name: {"url": str(clips / f"{CLIP}.mp4"), "playback": "fast"} for name in names()}
    live = service(
        sources=sources,
        queue={"shards": SHARDS},
        workers={"timelines": 1},
        metrics={"port": port},
        jobs={"workers": 0},
    )
    live.serve()
    live.wait_for_servers()
    for name in sources:
        live.wait(lambda name=name: expected.is_complete_in(live, name))  # type: ignore[misc]
        expected.assert_equal_in(live, name)
    assert len(live.children("timeline")) == 1
    assert len(holders(live)) == 1
    page = urlopen(f"http://127.0.0.1:{port + 2}/metrics").read().decode()
    assert all(f'fer_queue_depth{{shard="{shard}"}}' in page for shard in range(SHARDS))
    for server in ("queue", "store"):
        assert f'fer_redis_memory_max_bytes{{server="{server}"}} 5.36870912e+08' in page
    assert urlopen(f"http://127.0.0.1:{port + 2}/readyz").status == 200
    assert live.stop() == [0]
    assert live.logged("worker_ready", role="timeline") == SHARDS


def test_another_process_takes_over_each_shard(
    service: Callable[..., Service], expected_results: Callable[[str], ExpectedResults], clips: Path
) -> None:
    expected = expected_results(CLIP)
    sources = {name: {"url": str(clips / f"{CLIP}.mp4"), "playback": "realtime"} for name in names()}
    live = service(sources=sources, queue={"shards": SHARDS})
    shards = [option for shard in range(SHARDS) for option in ("--shard", str(shard))]
    with EmbeddedServer(live.state_dir, "queue"), EmbeddedServer(live.state_dir, "store"):
        first = live.worker("timeline", *shards)
        live.wait(lambda: live.logged("worker_ready", role="timeline") == SHARDS)
        live.worker("timeline", *shards)
        live.wait(lambda: live.logged("standing_by") == SHARDS)
        live.worker("classify")
        live.worker("capture")
        live.wait(lambda: all(len(live.rows(name)) > 10 for name in sources))
        first.send_signal(signal.SIGKILL)
        for name in sources:
            live.wait(lambda name=name: expected.is_complete_in(live, name))  # type: ignore[misc]
            expected.assert_equal_in(live, name)
        assert live.stop()[1:] == [0, 0, 0]
        assert not any(is_held(live.store_client, lease_key(shard)) for shard in range(SHARDS))


def test_shard_that_does_not_exist_is_an_error(service: Callable[..., Service]) -> None:
    live = service(queue={"shards": SHARDS})
    assert live.worker("timeline", "--shard", "3").wait(60) == 2
    assert "--shard 3 must be less than queue.shards, which is 3" in " ".join(live.log_text().split())
