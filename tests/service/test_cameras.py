"""`fer-stream serve` on real RTSP cameras that fail, come back and change. `pytest -rP` prints recovery times."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fer_stream.records import unix_time

if TYPE_CHECKING:
    from tests.conftest import Camera
    from tests.service.conftest import Service

FOREVER = 1e10

# Settings that do not let a test wait.
PATIENCE = {
    "open_timeout_s": 2,
    "stall_timeout_s": 1,
    "no_frame_timeout_s": 10,
    "reconnect_min_s": 0.1,
    "reconnect_max_s": 0.5,
}


def source(camera: Camera, **settings: Any) -> dict[str, Any]:
    return {"url": camera.url(), **PATIENCE, **settings}


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
        live.wait(lambda name=name: live.stream_id(name) and live.reason(name) == "up")  # type: ignore[misc]
    live.wait(lambda: live.reason("late") == "refused")
    assert live.store.latest("late") is None
    cameras["late"].start()
    print(f"absent at start: first result {live.more_results('late'):.1f} s after the camera was there")
    epochs = {name: live.stream_id(name) for name in cameras}

    cameras["back"].kill()
    noticed_s = live.wait(lambda: live.reason("back") in ("ended", "network", "refused"))
    live.more_results("front")
    cameras["back"].start()
    recovered_s = live.more_results("back")
    print(f"killed: its state says so after {noticed_s:.1f} s; first result {recovered_s:.1f} s after it was back")
    live.wait(lambda: live.reason("back") == "up" and live.store.gaps("back", 0, FOREVER))
    ((why, start_s, end_s),) = live.gaps("back")
    assert (why in ("ended", "network"), start_s < end_s) == (True, True)
    live.wait(lambda: live.store.gaps("late", 0, FOREVER))
    ((why, start_s, _),) = live.gaps("late")
    assert (why, start_s) == ("refused", unix_time(epochs["late"], 0))
    assert [live.holes(name) for name in cameras] == [[], [], []]
    assert live.gaps("front") == []

    assert {name: live.stream_id(name) for name in cameras} == epochs
    assert all(live.nothing_is_twice(name) for name in cameras)
    assert live.stop() == [0]


def test_odd_cameras_cost_nobody_else_anything(
    service: Callable[..., Service], rtsp_camera: Callable[..., Camera], film: Path, small_film: Path, canary: str
) -> None:
    cameras = {
        "jumps": rtsp_camera((film,), "--pts-back-every-s", "0.5"),
        "zero": rtsp_camera((film,), "--pts-zero"),
        "lossy": rtsp_camera((film,), "--lose-packets", "0.02"),
        "resized": rtsp_camera((small_film, film)),
        "locked": rtsp_camera((film,), "--user", "viewer", "--password", "another"),
    }
    user = f"viewer:{quote(canary, safe='')}@"
    sources = {name: source(camera, fps=5, url=camera.url(user)) for name, camera in cameras.items()}
    sources["lossy"]["transport"] = "udp"
    live = service(sources=sources)
    for camera in cameras.values():
        camera.start()
    live.serve()
    live.wait_for_servers()
    seen = cameras.keys() - {"locked"}
    for name in seen:
        live.wait(lambda name=name: len(live.results(name)) > 30)  # type: ignore[misc]
    live.wait(lambda: live.reason("locked") == "unauthorized")
    assert live.store.latest("locked") is None
    for name in seen:
        results = live.results(name)
        times = [frame.time_s for frame in results]
        assert len({frame.stream_id for frame in results}) == 1
        assert times == sorted(times)
        # A time that is kept: five pictures a second, whatever the camera says of its own.
        assert (len(times) - 1) / (times[-1] - times[0]) < 6
        assert any(frame.faces for frame in results)
        assert live.holes(name) == []
        assert live.nothing_is_twice(name)
    # Boxes are those of either size of the picture.
    widths = {int(face.xyxy[2] - face.xyxy[0]) for frame in live.results("resized") for face in frame.faces}
    print(f"widths of faces while the picture changes its size: {min(widths)} to {max(widths)} px")
    assert max(widths) > 1.5 * min(widths)
    assert live.stop() == [0]


def test_a_camera_falls_silent_and_the_service_ends_while_a_read_hangs(
    service: Callable[..., Service], rtsp_camera: Callable[..., Camera], film: Path
) -> None:
    camera = rtsp_camera((film,)).start()
    live = service(sources={"front": source(camera, stall_timeout_s=3, open_timeout_s=5)})
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: live.reason("front") == "up" and live.stream_id("front"))
    epoch = live.stream_id("front")
    camera.freeze()
    noticed_s = live.wait(lambda: live.reason("front") == "stalled")
    camera.thaw()
    recovered_s = live.more_results("front")
    print(f"silent: its state says so after {noticed_s:.1f} s; first result {recovered_s:.1f} s after it went on")
    live.wait(lambda: live.reason("front") == "up" and live.store.gaps("front", 0, FOREVER))
    assert [why for why, _, _ in live.gaps("front")] == ["stalled"]
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
            "changes": source(camera, fps=5, ignore_zones=[[0, 0, 1, 0.1]]),
            "comes": source(camera, fps=5),
        }
    )
    serve.send_signal(signal.SIGHUP)
    live.wait(lambda: live.stream_id("comes"))
    live.wait(lambda: live.stream_id("changes") != epochs["changes"])
    last = live.newest("goes")
    for name in ("stays", "changes", "comes"):
        live.more_results(name)
    assert live.newest("goes") == last
    assert live.stream_id("stays") == epochs["stays"]
    assert live.store.gaps("stays", 0, FOREVER) == []
    assert live.children("capture") == capture
    assert live.stop() == [0]
