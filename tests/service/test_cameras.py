"""`fer-stream serve` with RTSP cameras that fail, recover and change. `pytest -rP` prints recovery times."""

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

# Short timeouts for fast tests.
TIMEOUTS = {
    "open_timeout_s": 2,
    "stall_timeout_s": 1,
    "no_frame_timeout_s": 10,
    "reconnect_min_s": 0.1,
    "reconnect_max_s": 0.5,
}


def source(camera: Camera, **settings: Any) -> dict[str, Any]:
    return {"url": camera.url(), **TIMEOUTS, **settings}


def test_cameras_recover_after_a_crash_or_a_late_start(
    service: Callable[..., Service], rtsp_camera: Callable[..., Camera], camera_clip: Path
) -> None:
    cameras = {name: rtsp_camera((camera_clip,)) for name in ("front", "back", "late")}
    live = service(sources={name: source(camera) for name, camera in cameras.items()})
    cameras["front"].start()
    cameras["back"].start()
    live.serve()
    live.wait_for_servers()
    for name in ("front", "back"):
        live.wait(lambda name=name: live.stream_id(name) and live.camera_reason(name) == "up")  # type: ignore[misc]
    live.wait(lambda: live.camera_reason("late") == "refused")
    assert live.store.latest("late") is None
    cameras["late"].start()
    print(f"absent at the start: first result {live.wait_for_results('late'):.1f} s after the start of the camera")
    sessions = {name: live.stream_id(name) for name in cameras}

    cameras["back"].kill()
    noticed_s = live.wait(lambda: live.camera_reason("back") in ("ended", "network", "refused"))
    live.wait_for_results("front")
    cameras["back"].start()
    recovered_s = live.wait_for_results("back")
    print(f"killed: state changed after {noticed_s:.1f} s; first result {recovered_s:.1f} s after the restart")
    live.wait(lambda: live.camera_reason("back") == "up" and live.store.gaps("back", 0, FOREVER))
    ((reason, start_s, end_s),) = live.gaps("back")
    assert (reason in ("ended", "network"), start_s < end_s) == (True, True)
    live.wait(lambda: live.store.gaps("late", 0, FOREVER))
    ((reason, start_s, _),) = live.gaps("late")
    assert (reason, start_s) == ("refused", unix_time(sessions["late"], 0))
    assert [live.unexplained_gaps(name) for name in cameras] == [[], [], []]
    assert live.gaps("front") == []

    assert {name: live.stream_id(name) for name in cameras} == sessions
    assert all(live.has_no_duplicates(name) for name in cameras)
    assert live.stop() == [0]


def test_faulty_cameras_do_not_affect_others(
    service: Callable[..., Service],
    rtsp_camera: Callable[..., Camera],
    camera_clip: Path,
    small_camera_clip: Path,
    canary: str,
) -> None:
    cameras = {
        "jumps": rtsp_camera((camera_clip,), "--pts-back-every-s", "0.5"),
        "zero": rtsp_camera((camera_clip,), "--pts-zero"),
        "lossy": rtsp_camera((camera_clip,), "--lose-packets", "0.02"),
        "resized": rtsp_camera((small_camera_clip, camera_clip)),
        "locked": rtsp_camera((camera_clip,), "--user", "viewer", "--password", "another"),
    }
    user = f"viewer:{quote(canary, safe='')}@"
    sources = {name: source(camera, fps=5, url=camera.url(user)) for name, camera in cameras.items()}
    sources["lossy"]["transport"] = "udp"
    live = service(sources=sources)
    for camera in cameras.values():
        camera.start()
    live.serve()
    live.wait_for_servers()
    readable = cameras.keys() - {"locked"}
    for name in readable:
        live.wait(lambda name=name: len(live.results(name)) > 30)  # type: ignore[misc]
    live.wait(lambda: live.camera_reason("locked") == "unauthorized")
    assert live.store.latest("locked") is None
    for name in readable:
        results = live.results(name)
        times = [frame.time_s for frame in results]
        assert len({frame.stream_id for frame in results}) == 1
        assert times == sorted(times)
        # Timestamps follow the setting of 5 fps, whatever the timestamps of the camera are.
        assert (len(times) - 1) / (times[-1] - times[0]) < 6
        assert any(frame.faces for frame in results)
        assert live.unexplained_gaps(name) == []
        assert live.has_no_duplicates(name)
    # Boxes refer to the current frame size.
    widths = {int(face.xyxy[2] - face.xyxy[0]) for frame in live.results("resized") for face in frame.faces}
    print(f"widths of faces while the frame size changes: {min(widths)} to {max(widths)} px")
    assert max(widths) > 1.5 * min(widths)
    assert live.stop() == [0]


def test_stalled_camera_recovers_and_does_not_block_the_shutdown(
    service: Callable[..., Service], rtsp_camera: Callable[..., Camera], camera_clip: Path
) -> None:
    camera = rtsp_camera((camera_clip,)).start()
    live = service(sources={"front": source(camera, stall_timeout_s=3, open_timeout_s=5)})
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: live.camera_reason("front") == "up" and live.stream_id("front"))
    session = live.stream_id("front")
    camera.freeze()
    noticed_s = live.wait(lambda: live.camera_reason("front") == "stalled")
    camera.thaw()
    recovered_s = live.wait_for_results("front")
    print(
        f"stalled: state changed after {noticed_s:.1f} s; first result {recovered_s:.1f} s after the camera resumed"
    )
    live.wait(lambda: live.camera_reason("front") == "up" and live.store.gaps("front", 0, FOREVER))
    assert [reason for reason, _, _ in live.gaps("front")] == ["stalled"]
    assert live.stream_id("front") == session
    camera.freeze()
    assert live.stop() == [0]
    assert live.logged("process_killed") == 0


def test_sighup_affects_only_changed_sources(
    service: Callable[..., Service], rtsp_camera: Callable[..., Camera], camera_clip: Path
) -> None:
    camera = rtsp_camera((camera_clip,)).start()
    names = ("kept", "changed", "removed")
    live = service(sources={name: source(camera, fps=5) for name in names})
    serve = live.serve()
    live.wait_for_servers()
    for name in names:
        live.wait(lambda name=name: live.stream_id(name))  # type: ignore[misc]
    sessions = {name: live.stream_id(name) for name in names}
    capture = live.children("capture")

    live.config.write_text("sources: {kept: {url: 1, colour: red}}")
    serve.send_signal(signal.SIGHUP)
    live.wait(lambda: live.logged("configuration_reload_failed"))
    live.configure(
        sources={
            "kept": source(camera, fps=5),
            "changed": source(camera, fps=5, ignore_zones=[[0, 0, 1, 0.1]]),
            "added": source(camera, fps=5),
        }
    )
    serve.send_signal(signal.SIGHUP)
    live.wait(lambda: live.stream_id("added"))
    live.wait(lambda: live.stream_id("changed") != sessions["changed"])
    assert "added=['added']" in live.log_text()
    last = live.newest("removed")
    for name in ("kept", "changed", "added"):
        live.wait_for_results(name)
    assert live.newest("removed") == last
    assert live.stream_id("kept") == sessions["kept"]
    assert live.store.gaps("kept", 0, FOREVER) == []
    assert live.children("capture") == capture
    assert live.stop() == [0]
