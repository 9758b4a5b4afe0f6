"""Recordings are playable files of some minutes, also after crashes and disk errors."""

from __future__ import annotations

import http.server
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Literal

import av
import numpy as np
import pytest

from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.config.live import RecordingSettings
from fer_stream.errors import OutputError, OutputUnavailable
from fer_stream.outputs.recording import VideoRecorder
from fer_stream.records import U8, Frame, LabelledFace, LabelledFrame, Quality, stream_id_of
from tests.support.waiting import wait_until

NEW_YEAR = 1767225600.0
"""2026-01-01T00:00:00Z"""

STREAM = stream_id_of("door", round(1000 * NEW_YEAR))
FPS = 10
PROBS = np.full(7, 1 / 7, np.float32)
FACE = LabelledFace(3, np.array([60, 40, 110, 100], np.float32), 0.9, Quality(0.8, "ok"), PROBS, PROBS, "happy")

MakeRecorder = Callable[..., VideoRecorder]


class Clock:
    now_s = NEW_YEAR

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(clock: Clock) -> MakeRecorder:
    def make(
        directory: Path, *, redact: Literal["none", "blur", "black"] = "none", retention_days: int | None = None
    ) -> VideoRecorder:
        settings = RecordingSettings(dir=directory, segment_s=60.0, redact=redact, retention_days=retention_days)
        return VideoRecorder(settings, "door", clock=clock)

    return make


def gray_image(width: int = 176, height: int = 144, level: int = 128) -> U8:
    return np.full((height, width, 3), level, np.uint8)


def noise(index: int) -> U8:
    return np.random.default_rng(index).integers(0, 255, (144, 176, 3), np.uint8)


def record(
    recorder: VideoRecorder,
    times_s: Sequence[float],
    image: Callable[[int], U8] = lambda index: gray_image(),
    faces: Callable[[int], tuple[LabelledFace, ...]] = lambda index: (FACE,),
    stream_id: str = STREAM,
) -> None:
    """Add frames at `times_s` as fast as the encoder accepts them."""
    before = recorder.written + recorder.dropped
    for index, time_s in enumerate(times_s):
        frame = Frame(stream_id, index, time_s, 0.0, ArrayPixels(image(index)))
        recorder.add(frame, LabelledFrame(stream_id, index, time_s, faces(index)))
        # Redaction delays frames by half a second.
        minimum = before + index - FPS
        wait_until(lambda minimum=minimum: recorder.written + recorder.dropped >= minimum)  # type: ignore[misc]


def steps(start_s: float, number: int) -> list[float]:
    return [start_s + index / FPS for index in range(number)]


def decode(path: Path) -> tuple[list[float], list[U8]]:
    """Return the times and the images, uint8 (height, width, 3) BGR, of a video."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = [float(frame.pts * frame.time_base) for frame in frames if frame.pts is not None and frame.time_base]
        return times, [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in frames]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "door").iterdir())


# Contents


def test_new_file_begins_at_every_multiple_of_the_segment_length(recorder: MakeRecorder, tmp_path: Path) -> None:
    recording = recorder(tmp_path)
    record(recording, steps(58.0, 45))
    recording.close()
    assert names(tmp_path) == ["2026-01-01T000058.000Z.mp4", "2026-01-01T000100.000Z.mp4"]
    first, second = (decode(tmp_path / "door" / name)[0] for name in names(tmp_path))
    assert first == pytest.approx(steps(0.0, 20), abs=1e-4)
    assert second == pytest.approx(steps(0.0, 25), abs=1e-4)
    assert (recording.written, recording.dropped) == (45, 0)


def test_faces_are_drawn_on_a_copy_of_the_frame(recorder: MakeRecorder, tmp_path: Path) -> None:
    image = gray_image()
    recording = recorder(tmp_path)
    record(recording, steps(0.0, 10), lambda _: image)
    recording.close()
    _, images = decode(tmp_path / "door" / names(tmp_path)[0])
    assert (image == 128).all()
    changed = np.abs(images[-1].astype(int) - 128).max(axis=2) > 30
    assert changed[38:102, 58:112].any()
    assert not changed[120:, :40].any()


@pytest.mark.parametrize("odd", [(175, 143), (1, 1)])
def test_frames_of_any_size_are_recorded(recorder: MakeRecorder, tmp_path: Path, odd: tuple[int, int]) -> None:
    recording = recorder(tmp_path)
    record(recording, steps(0.0, 12), lambda _: gray_image(*odd), lambda _: ())
    recording.close()
    assert len(decode(tmp_path / "door" / names(tmp_path)[0])[0]) == 12


def test_gap_new_size_and_new_session_begin_a_file(recorder: MakeRecorder, tmp_path: Path) -> None:
    recording = recorder(tmp_path)
    record(recording, [*steps(0.0, 10), *steps(5.0, 10)], lambda i: gray_image() if i < 15 else gray_image(320, 240))
    record(recording, steps(0.0, 10), stream_id=stream_id_of("door", round(1000 * NEW_YEAR) + 10_000))
    recording.close()
    assert names(tmp_path) == [
        "2026-01-01T000000.000Z.mp4",
        "2026-01-01T000005.000Z.mp4",
        "2026-01-01T000005.500Z.mp4",
        "2026-01-01T000010.000Z.mp4",
    ]
    decoded = [decode(tmp_path / "door" / name) for name in names(tmp_path)]
    assert [(len(times), images[0].shape[:2]) for times, images in decoded] == [
        (10, (144, 176)), (5, (144, 176)), (5, (240, 320)), (10, (144, 176)),
    ]  # fmt: skip


@pytest.mark.parametrize("redact", ["black", "blur"])
def test_redacted_face_is_visible_in_no_frame(recorder: MakeRecorder, tmp_path: Path, redact: str) -> None:
    """The face is detected only in every fourth frame; its nose, in every frame, is bright."""

    def nose(_: int) -> U8:
        image = gray_image(level=20)
        image[66:72, 82:88] = 255
        return image

    recording = recorder(tmp_path, redact=redact)
    record(recording, steps(0.0, 30), nose, lambda index: (FACE,) if index % 4 == 2 else ())
    recording.close()
    times, images = decode(tmp_path / "door" / names(tmp_path)[0])
    assert len(times) == 30
    assert max(int(image[66:72, 82:88].max()) for image in images) < 150


def test_detections_in_dropped_frames_are_redacted_in_others(
    recorder: MakeRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pixels of the frame with the detection are dropped; its boxes still apply."""
    monkeypatch.setattr("fer_stream.outputs.recording._MAX_QUEUED_BYTES", 2 * gray_image().nbytes)
    blocked, go = Event(), Event()

    def wait(*_: object) -> None:
        blocked.set()
        assert go.wait(20)

    monkeypatch.setattr("fer_stream.outputs.recording.recover_partial", wait)
    recording = recorder(tmp_path, redact="black")
    assert blocked.wait(20)
    for index in range(6):
        frame = Frame(STREAM, index, index / FPS, 0.0, ArrayPixels(gray_image(level=200)))
        recording.add(frame, LabelledFrame(STREAM, index, index / FPS, (FACE,) if index == 3 else ()))
    go.set()
    recording.close()
    times, images = decode(tmp_path / "door" / names(tmp_path)[0])
    assert (len(times), recording.dropped) == (2, 4)
    assert all(image[70, 85].max() < 60 for image in images)


# Playback


@pytest.mark.parametrize(("truncated", "length_s"), [(False, "8.0"), (True, "6.0")])
def test_recording_is_playable_in_a_browser(
    recorder: MakeRecorder, tmp_path: Path, truncated: bool, length_s: str
) -> None:
    recording = recorder(tmp_path)
    record(recording, steps(0.0, 80), noise)
    recording.close()
    path = tmp_path / "door" / "2026-01-01T000000.000Z.mp4"
    if truncated:
        data = path.read_bytes()
        path.unlink()
        path.with_name(f".{path.name}").write_bytes(data[: round(0.9 * len(data))])
        recorder(tmp_path).close()
    assert play(path) == f"{length_s} s, 176×144, position 3.5 s"


PAGE = """<!doctype html><video muted src="video.mp4"></video><script>
const video = document.querySelector("video"), report = text => fetch("/report", {method: "POST", body: text});
video.onerror = () => report(video.error.message);
video.onloadeddata = () => { video.currentTime = 3.5; };
video.onseeked = () => report(
  `${video.duration.toFixed(1)} s, ${video.videoWidth}×${video.videoHeight}, position ${video.currentTime} s`);
</script>"""


def play(video: Path) -> str:
    """Return what the page reports after Chromium loaded `video` and sought to 3.5 s."""
    reports: list[str] = []
    reported = Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = video.read_bytes() if self.path == "/video.mp4" else PAGE.encode()
            byte_range = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start, end = (
                (int(byte_range[1]), int(byte_range[2] or len(body) - 1)) if byte_range else (0, len(body) - 1)
            )
            self.send_response(206 if byte_range else 200)
            self.send_header("Content-Type", "video/mp4" if self.path == "/video.mp4" else "text/html; charset=utf-8")
            self.send_header("Content-Length", str(end + 1 - start))
            if byte_range:
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(body)}")
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(body[start : end + 1])

        def do_POST(self) -> None:
            reports.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            reported.set()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += [f"--user-data-dir={video.parent / 'profile'}", f"http://127.0.0.1:{server.server_port}/"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as browser:
            reported.wait(60)
            os.killpg(browser.pid, signal.SIGKILL)
        server.shutdown()
    assert reports, "no report from the page"
    return reports[0]


# Crashes


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_recording as t
settings = t.RecordingSettings(dir=Path(sys.argv[1]), segment_s=600.0, retention_days=None)
recording = t.VideoRecorder(settings, "door", clock=lambda: t.NEW_YEAR)
t.record(recording, t.steps(0.0, 200), t.noise)
t.wait_until(lambda: recording.written == 200)
print("recorded", flush=True)
sys.stdin.read()
"""


def test_file_of_a_killed_process_is_playable(recorder: MakeRecorder, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "recorded\n"
        child.kill()
    assert names(tmp_path) == [".2026-01-01T000000.000Z.mp4"]
    (tmp_path / "door" / ".2026-01-01T000100.000Z.mp4").write_bytes(
        bytes(4096)
    )  # of a process killed before its first frame
    recorder(tmp_path).close()
    assert names(tmp_path) == ["2026-01-01T000000.000Z.mp4"]
    path = tmp_path / "door" / names(tmp_path)[0]
    # At most one fragment and the lookahead of x264 are missing.
    assert len(decode(path)[0]) >= 200 - 2 * FPS - 20


def test_recorder_without_frames_creates_no_file(recorder: MakeRecorder, tmp_path: Path) -> None:
    recorder(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


# Disks


def test_recording_resumes_after_a_full_disk(
    recorder: MakeRecorder, clock: Clock, small_disk: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fer_stream")
    disk = small_disk(512)
    recording = recorder(disk)
    added: list[int] = []

    def add_noise(index: int) -> U8:
        added.append(index)
        return noise(index)

    with pytest.raises(OutputUnavailable, match=r"door: the disk is full.*Free space"):
        record(recording, steps(0.0, 600), add_noise)
    wait_until(lambda: recording.written + recording.dropped == len(added))
    (partial,) = names(disk)
    assert partial == "2026-01-01T000000.000Z.mp4"
    assert decode(disk / "door" / partial)[0][0] == 0

    lost = recording.dropped
    record(recording, steps(60.0, 5), noise)  # before the next attempt
    wait_until(lambda: recording.dropped == lost + 5)
    (disk / "door" / partial).unlink()
    clock.now_s += 1
    record(recording, steps(120.0, 5), noise)
    recording.close()
    [event] = caplog.records
    assert (event.getMessage(), vars(event)["output"], vars(event)["source"]) == (
        "writing_resumed",
        "recording",
        "door",
    )
    assert names(disk) == ["2026-01-01T000200.000Z.mp4"]
    assert len(decode(disk / "door" / names(disk)[0])[0]) == 5


def test_missing_directory_is_reported(recorder: MakeRecorder, tmp_path: Path) -> None:
    recording = recorder(tmp_path / "unmounted")
    record(recording, [0.0])
    with pytest.raises(OutputUnavailable, match=r"no longer exists.*mount its disk"):
        recording.close()
    assert recording.dropped == 1
    assert not (tmp_path / "unmounted").exists()


# Retention


def test_expired_recordings_are_deleted(recorder: MakeRecorder, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "door").mkdir()
    for name in ("2025-12-29T235900.000Z.mp4", "2025-12-30T000000.000Z.mp4", "2025-12-01.jpg"):
        (tmp_path / "door" / name).write_text("old")
    recording = recorder(tmp_path, retention_days=2)
    record(recording, steps(0.0, 3))
    recording.close()
    assert names(tmp_path) == ["2025-12-01.jpg", "2025-12-30T000000.000Z.mp4", "2026-01-01T000000.000Z.mp4"]


def test_expired_recording_that_cannot_be_deleted_is_reported(
    recorder: MakeRecorder, clock: Clock, tmp_path: Path
) -> None:
    (tmp_path / "door" / "2025-12-29T235900.000Z.mp4").mkdir(parents=True)
    recording = recorder(tmp_path, retention_days=2)
    record(recording, [0.0])
    with pytest.raises(OutputError, match="Cannot delete 1 expired"):
        recording.close()
    assert "2026-01-01T000000.000Z.mp4" in names(tmp_path)
    assert recording.written == 1


def test_unexpected_error_is_raised_in_the_caller(recorder: MakeRecorder, tmp_path: Path) -> None:
    recording = recorder(tmp_path)
    broken = replace(FACE, label="invalid")
    record(recording, [0.0], faces=lambda _: (broken,))
    with pytest.raises(KeyError):
        recording.close()
