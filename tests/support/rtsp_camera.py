#!/usr/bin/python3
"""Simulated camera: an H.264 stream served over RTSP on 127.0.0.1 in real time, with optional faults.

Runs with the system's Python, because the bindings of GStreamer are Debian packages: python3-gi,
gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good and gstreamer1.0-plugins-bad. The clips are raw H.264 (Annex B)
with one slice per frame and no B-frames; they are played in a loop, without re-encoding. Prints READY when it
listens.
"""

from __future__ import annotations

import argparse
import math
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - versions must be required before the import

PIPELINE = (
    "( appsrc name=source is-live=true format=time max-buffers=2"
    ' caps="video/x-h264,stream-format=byte-stream,alignment=au"'
    " ! h264parse config-interval=-1 ! rtph264pay pt=96 {} )"
)
ALL_PACKETS, SOME_PACKETS = "name=pay0", "! identity name=pay0 drop-probability={}"
SLICE_TYPES = {1, 5}  # coded slices of a non-IDR and of an IDR picture (H.264, table 7-1)
IDR = 5

# A camera that was suspended for longer than this skips frames instead of catching up.
MAX_LAG_S = 0.5


class CodedFrame(NamedTuple):
    """One access unit: a coded frame with the parameter sets before it."""

    key: bool
    data: bytes


def split_frames(clip: Path) -> list[CodedFrame]:
    """Split a raw H.264 file into access units."""
    found, unit = [], b""
    for nal in clip.read_bytes().replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]:
        unit += b"\0\0\0\1" + nal
        kind = nal[0] & 0x1F
        if kind in SLICE_TYPES:
            found.append(CodedFrame(kind == IDR, unit))
            unit = b""
    return found


class StreamPusher:
    """Pushes the frames of one RTSP session into its pipeline, paced by the clock regardless of the PTS."""

    def __init__(self, source: Any, frames: list[CodedFrame], options: argparse.Namespace) -> None:
        self._source, self._frames, self._options = source, frames, options
        self._sent = self._skipped = 0
        self._started = time.monotonic()
        source.connect("need-data", lambda *_: self._push())

    def _push(self) -> None:
        if self._options.live_since is not None:
            self._seek_to_now()
        elapsed_s = (self._sent - self._skipped) / self._options.fps
        if self._options.end_after_s is not None and elapsed_s >= self._options.end_after_s:
            self._source.emit("end-of-stream")
            return
        time.sleep(max(0.0, self._started + elapsed_s - time.monotonic()))
        frame = self._frames[self._sent % len(self._frames)]
        self._sent += 1
        if self._is_affected(frame, self._options.lose_every):
            self._push()
            return
        garbled = self._is_affected(frame, self._options.garble_every)
        buffer = Gst.Buffer.new_wrapped(frame.data[:6] + b"\xaa" * 64 if garbled else frame.data)
        buffer.pts = buffer.dts = int(self._pts_s(elapsed_s) * Gst.SECOND)
        self._source.emit("push-buffer", buffer)

    def _seek_to_now(self) -> None:
        """Skip to the next key frame if the playback lags behind the clock."""
        now_s, fps = time.time() - self._options.live_since, self._options.fps
        if now_s - self._sent / fps < MAX_LAG_S:
            return
        due = math.ceil(now_s * fps)
        while not self._frames[due % len(self._frames)].key:
            due += 1
        if self._sent == 0:
            self._skipped = due
            self._started += due / fps - now_s
        self._sent = due

    def _is_affected(self, frame: CodedFrame, every: int | None) -> bool:
        return every is not None and not frame.key and self._sent % every == 0

    def _pts_s(self, elapsed_s: float) -> float:
        options = self._options
        if options.pts_zero:
            return 0.0
        if options.pts_back_every_s:
            return float(elapsed_s % options.pts_back_every_s)
        return elapsed_s


def require_password(server: Any, factory: Any, user: str, password: str) -> None:
    """Accept only `user` with `password`."""
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth.new()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


def serve(options: argparse.Namespace) -> None:
    """Serve rtsp://ADDRESS:PORT/cam until SIGTERM."""
    Gst.init(None)
    frames = [frame for path in options.clips for frame in split_frames(path)]
    pushers: list[StreamPusher] = []
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_shared(True)
    packets = SOME_PACKETS.format(options.lose_packets) if options.lose_packets else ALL_PACKETS
    factory.set_launch(PIPELINE.format(packets))
    factory.connect(
        "media-configure",
        lambda _, media: pushers.append(StreamPusher(media.get_element().get_by_name("source"), frames, options)),
    )
    server = GstRtspServer.RTSPServer.new()
    server.set_address(options.address)
    server.set_service(str(options.port))
    if options.user:
        require_password(server, factory, options.user, options.password)
    server.get_mount_points().add_factory("/cam", factory)
    if not server.attach(None):
        raise SystemExit(f"port {options.port} is in use")
    print("READY", flush=True)
    loop = GLib.MainLoop()
    GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGTERM, loop.quit)
    loop.run()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument(
        "--live-since", type=float, help="Unix time at which playback started; clients join in the middle"
    )
    parser.add_argument("--end-after-s", type=float, help="end the stream regularly after this time")
    parser.add_argument("--lose-packets", type=float, help="fraction of RTP packets to drop")
    parser.add_argument("--lose-every", type=int, help="drop every Nth frame, except key frames")
    parser.add_argument("--garble-every", type=int, help="replace every Nth frame with noise, except key frames")
    parser.add_argument("--pts-zero", action="store_true", help="set every PTS to 0")
    parser.add_argument("--pts-back-every-s", type=float, help="interval after which the PTS jumps back to 0")
    serve(parser.parse_args())


if __name__ == "__main__":
    main()
