"""`fer-stream serve` on real RTSP cameras that fail, come back and change. `pytest -rP` prints recovery times."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream.timeline.store import START, position_of

if TYPE_CHECKING:
    from tests.conftest import Camera
    from tests.service.conftest import Service

FOREVER = 1e10

# Settings that do not let a test wait.
PATIENCE = {"open_timeout_s": 2, "stall_s": 1, "no_picture_s": 10, "retry_first_s": 0.1, "retry_max_s": 0.5}


def source(camera: Camera, **settings: Any) -> dict[str, Any]:
    return {"url": camera.url(), **PATIENCE, **settings}


def newest(live: Service, name: str) -> str:
    latest = live.store.latest(name)
    return position_of(latest) if latest else START


def more_results(live: Service, name: str, within_s: float = 60) -> float:
    """Wait for results of a source that are newer than those it has; how many seconds it took."""
    before = newest(live, name)
    return live.wait(lambda: newest(live, name) != before, within_s)


def reason(live: Service, name: str) -> str | None:
    """Why the camera is down; `up` where it is not, None where nobody knows."""
    state = live.store.state(name)
    return None if state is None else "up" if state.up else state.reason


def gaps(live: Service, name: str) -> list[tuple[str, float, float]]:
    """The gaps of a source in the store, which must stand in its file too."""
    found = [(one.gap.reason, one.gap.start_s, one.gap.end_s) for one in live.store.gaps(name, 0, FOREVER)]
    live.wait(lambda: len(live.lines(name, "gap")) >= len(found))
    assert [(line["reason"], line["start_s"], line["end_s"]) for line in live.lines(name, "gap")] == found
    return found


def nothing_twice(live: Service, name: str) -> bool:
    """Does every frame and person have one row at the most?"""
    rows = [(*row.split(",")[:3], row.rsplit(",", 2)[1]) for row in live.dated_rows(name)]
    return len(set(rows)) == len(rows) > 0


def test_one_camera_is_killed_another_comes_late(
    service: Callable[..., Service], rtsp_camera: Callable[..., Camera], film: Path
) -> None:
    cameras = {name: rtsp_camera((film,)) for name in ("front", "back", "late")}
    live = service(sources={name: source(camera) for name, camera in cameras.items()})
    cameras["front"].start()
    cameras["back"].start()
    live.serve()
    live.wait_for_servers()
    for name in ("front", "back"):
        live.wait(lambda name=name: live.stream_id(name) and reason(live, name) == "up")  # type: ignore[misc]
    live.wait(lambda: reason(live, "late") == "refused")
    assert live.store.latest("late") is None
    cameras["late"].start()
    print(f"absent at start: first result {more_results(live, 'late'):.1f} s after the camera was there")
    epochs = {name: live.stream_id(name) for name in cameras}

    cameras["back"].kill()
    noticed_s = live.wait(lambda: reason(live, "back") in ("ended", "network", "refused"))
    more_results(live, "front")
    cameras["back"].start()
    recovered_s = more_results(live, "back")
    print(f"killed: its state says so after {noticed_s:.1f} s; first result {recovered_s:.1f} s after it was back")
    live.wait(lambda: reason(live, "back") == "up" and live.store.gaps("back", 0, FOREVER))
    ((why, start_s, end_s),) = gaps(live, "back")
    assert (why in ("ended", "network"), start_s < end_s) == (True, True)
    live.wait(lambda: live.store.gaps("late", 0, FOREVER))
    ((why, start_s, _),) = gaps(live, "late")
    assert (why, start_s) == ("refused", 0)
    assert gaps(live, "front") == []

    assert {name: live.stream_id(name) for name in cameras} == epochs
    assert live.stop() == [0]
    assert all(nothing_twice(live, name) for name in cameras)


def test_a_camera_falls_silent_and_the_service_ends_while_a_read_hangs(
    service: Callable[..., Service], rtsp_camera: Callable[..., Camera], film: Path
) -> None:
    camera = rtsp_camera((film,)).start()
    live = service(sources={"front": source(camera, stall_s=3, open_timeout_s=5)})
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: reason(live, "front") == "up")
    epoch = live.stream_id("front")
    camera.freeze()
    noticed_s = live.wait(lambda: reason(live, "front") == "stalled")
    camera.thaw()
    recovered_s = more_results(live, "front")
    print(f"silent: its state says so after {noticed_s:.1f} s; first result {recovered_s:.1f} s after it went on")
    live.wait(lambda: reason(live, "front") == "up" and live.store.gaps("front", 0, FOREVER))
    assert [why for why, _, _ in gaps(live, "front")] == ["stalled"]
    assert live.stream_id("front") == epoch
    camera.freeze()
    assert live.stop() == [0]
    assert "killed" not in live.said()


def test_sighup_changes_the_sources_concerned_and_no_other(
    service: Callable[..., Service], rtsp_camera: Callable[..., Camera], film: Path
) -> None:
    camera = rtsp_camera((film,)).start()
    names = ("stays", "changes", "goes")
    live = service(sources={name: source(camera, fps=5) for name in names})
    serve = live.serve()
    live.wait_for_servers()
    for name in names:
        live.wait(lambda name=name: live.stream_id(name))  # type: ignore[misc]
    epochs = {name: live.stream_id(name) for name in names}
    capture = live.children("capture")

    live.config.write_text("sources: {stays: {url: 1, colour: red}}")
    serve.send_signal(signal.SIGHUP)
    live.wait(lambda: "the new settings are left alone" in live.said())
    live.configure(
        sources={
            "stays": source(camera, fps=5),
            "changes": source(camera, fps=5, ignore=[[0, 0, 1, 0.1]]),
            "comes": source(camera, fps=5),
        }
    )
    serve.send_signal(signal.SIGHUP)
    live.wait(lambda: live.stream_id("comes"))
    live.wait(lambda: live.stream_id("changes") != epochs["changes"])
    last = newest(live, "goes")
    for name in ("stays", "changes", "comes"):
        more_results(live, name)
    assert newest(live, "goes") == last
    assert live.stream_id("stays") == epochs["stays"]
    assert live.store.gaps("stays", 0, FOREVER) == []
    assert live.children("capture") == capture
    assert live.stop() == [0]
