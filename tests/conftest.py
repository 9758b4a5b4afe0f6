"""Fixtures shared by all tests: test material, real servers and cameras, and small file systems."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

import av
import hypothesis
import numpy as np
import pytest
import redis

from fer_stream.broker.embedded import EmbeddedServer
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every run and on machines of any speed. benchmarks/fuzz searches for new ones.
hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")
CANARY = "canary/p@ss#w0rd"
CANARY_IN_URL = quote(CANARY, safe="")

# No test downloads weights, except from a server of its own.
os.environ["FER_STREAM_OFFLINE"] = "1"

GSTREAMER = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
BINDINGS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


# Markers by path; everything else is a unit test. The first match counts.
_MARKERS = {
    "tests/cli/": "e2e",
    "tests/deploy/test_containers.py": "e2e",
    "tests/deploy/test_stack.py": "e2e",
    "tests/deploy/test_users.py": "e2e",
    "tests/jobs/": "e2e",
    "tests/operations/test_prometheus.py": "e2e",
    "tests/operations/test_roles.py": "e2e",
    "tests/service/": "e2e",
    "tests/test_docs.py": "e2e",
    "tests/test_end_to_end.py": "e2e",
    "tests/test_wheel.py": "e2e",
    "tests/web/test_page": "e2e",
    "tests/benchmarks/": "integration",
    "tests/broker/": "integration",
    "tests/capture/": "integration",
    "tests/classify/": "integration",
    "tests/deploy/": "integration",
    "tests/faces/test_detectors.py": "integration",
    "tests/operations/": "integration",
    "tests/outputs/": "integration",
    "tests/store/": "integration",
    "tests/support/": "integration",
    "tests/test_imports.py": "integration",
    "tests/test_memory.py": "integration",
    "tests/test_model_files.py": "integration",
    "tests/test_pipeline.py": "integration",
    "tests/training/": "integration",
    "tests/web/": "integration",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(ROOT).as_posix()
        marker = next((marker for prefix, marker in _MARKERS.items() if path.startswith(prefix)), "unit")
        item.add_marker(marker)


def _material() -> Path:
    return Path(os.environ.get("FER_STREAM_TEST_DATA", ROOT.parent / "shared"))


def _require(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs {path.name}, which is not redistributable; set FER_STREAM_TEST_DATA to its folder")
    return path


@pytest.fixture(scope="session")
def clips() -> Path:
    """Folder of real clips."""
    return _require(_material() / "clips")


@pytest.fixture(scope="session")
def yunet_weights() -> Path:
    """YuNet weights whose checksum opencv_zoo publishes."""
    return _require(_material() / "detectors" / "face_detection_yunet_2023mar.onnx")


@pytest.fixture(scope="session")
def fer2013() -> Path:
    """FER-2013 as one NPZ file."""
    return _require(_material() / "data" / "fer2013.npz")


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Portrait of a smiling astronaut (NASA, public domain), a PNG of 512 × 512 px."""
    from skimage import data, io

    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    io.imsave(path, data.astronaut())  # type: ignore[no-untyped-call]
    return path


@pytest.fixture(scope="session")
def heads(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sprites for `tests.support.synthetic`: a bright and a dark head image of two people each."""
    import cv2

    folder = tmp_path_factory.mktemp("heads")
    head = cv2.imread(str(portrait))[20:240, 110:330]  # type: ignore[index]
    alpha = np.zeros(head.shape[:2], np.uint8)
    cv2.circle(alpha, (110, 110), 108, 255, -1)
    for person, image in (("left", head), ("right", head[:, ::-1])):
        (folder / person).mkdir()
        for name, light in (("bright", 1.0), ("dark", 0.7)):
            cv2.imwrite(str(folder / person / f"{name}.png"), np.dstack([(image * light).astype(np.uint8), alpha]))
    return folder


@pytest.fixture(scope="session")
def canary() -> str:
    """Password of the Redis server and the Cluster. It must not appear in any message or key."""
    return CANARY


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an embedded Valkey server."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey"), "queue") as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that starts redis-server in a folder with given options and waits until it answers."""
    started: list[subprocess.Popen[bytes]] = []
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("needs redis-server: apt-get install redis-server")

    def start(folder: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [binary, "--port", str(port), "--dir", str(folder), "--save", "", "--loglevel", "warning", *options],
            stdout=subprocess.DEVNULL,
        )
        started.append(process)
        client = redis.Redis(port=port, password=CANARY if "--requirepass" in options else None)
        wait_until(client.ping, 10, describe=lambda: "redis-server does not answer", ignore=redis.ConnectionError)
        client.close()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return a function that finds a free port, whose port + 10,000 is free for the bus of a Cluster as well."""

    def find() -> int:
        for _ in range(1000):
            with socket.socket() as probe, socket.socket() as bus:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1]) - 10_000
                if port < 1024:
                    continue
                try:
                    bus.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise OSError("no free port")

    return find


@pytest.fixture(scope="session")
def redis_url(
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
) -> str:
    port = free_port()
    redis_server(tmp_path_factory.mktemp("redis"), port, "--requirepass", CANARY)
    return f"redis://:{CANARY_IN_URL}@127.0.0.1:{port}"


@pytest.fixture(scope="session")
def cluster_url(
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
) -> Iterator[str]:
    """URL of a Cluster of three primaries that share the 16,384 slots."""
    ports = [free_port() for _ in range(3)]
    options = ("--requirepass", CANARY, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    with ExitStack() as stack:
        for port in ports:
            redis_server(tmp_path_factory.mktemp("node"), port, *options)
        nodes = [stack.enter_context(redis.Redis(port=port, password=CANARY, protocol=2)) for port in ports]
        bounds = [0, 5461, 10_923, 16_384]
        for node, first, end in zip(nodes, bounds, bounds[1:], strict=False):
            node.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        for port in ports[1:]:
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port)
        wait_until(
            lambda: all(_is_complete(node) for node in nodes), 20, describe=lambda: "the Cluster is incomplete"
        )
        yield f"redis://:{CANARY_IN_URL}@127.0.0.1:{ports[0]}"


def _is_complete(node: redis.Redis) -> bool:
    info: dict[str, str] = node.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
    return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3")


class Camera:
    """RTSP camera that can be started, killed, and suspended with its sockets open."""

    def __init__(self, clips: tuple[Path, ...], faults: tuple[str, ...]) -> None:
        self._command = ["/usr/bin/python3", str(ROOT / "tests/support/rtsp_camera.py"), *map(str, clips), *faults]
        self._process: subprocess.Popen[str] | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]

    def url(self, userinfo: str = "", path: str = "/cam") -> str:
        return f"rtsp://{userinfo}127.0.0.1:{self.port}{path}"

    def start(self) -> Camera:
        process = subprocess.Popen([*self._command, "--port", str(self.port)], stdout=subprocess.PIPE, text=True)
        self._process = process
        assert process.stdout is not None
        assert process.stdout.readline() == "READY\n"
        return self

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@pytest.fixture(scope="session")
def _gstreamer() -> None:
    found = subprocess.run(["/usr/bin/python3", "-c", BINDINGS], check=False, capture_output=True)
    if found.returncode:
        pytest.skip(f"needs an RTSP server: apt-get install {GSTREAMER}")


@pytest.fixture(scope="session")
def camera_clip(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of two faces, 480 × 270 px, as sent by cameras: raw H.264, one slice per frame, no B-frames."""
    return encode_clip(clips / "two_faces.mp4", tmp_path_factory.mktemp("camera") / "face.h264", 480, 270)


@pytest.fixture(scope="session")
def small_camera_clip(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`camera_clip` in 240 × 136 px."""
    return encode_clip(clips / "two_faces.mp4", tmp_path_factory.mktemp("camera") / "small.h264", 240, 136)


def encode_clip(clip: Path, path: Path, width: int, height: int) -> Path:
    """Encode a clip as raw H.264 at 15 fps, one slice per frame, without B-frames."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = 5
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "sliced-threads=0:scenecut=0"}
        for index, frame in enumerate(source.decode(video=0)):
            scaled = frame.reformat(width, height, "yuv420p")
            scaled.pts, scaled.time_base = index, Fraction(1, 15)
            container.mux(stream.encode(scaled))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def rtsp_camera(_gstreamer: None) -> Iterator[Callable[..., Camera]]:
    """Return a factory of stopped cameras: `rtsp_camera(clips, "--pts-zero")`. The clips are raw H.264."""
    yield from _cameras()


@pytest.fixture(scope="module")
def module_rtsp_camera(_gstreamer: None) -> Iterator[Callable[..., Camera]]:
    """Return the factory of `rtsp_camera` for all tests of a module."""
    yield from _cameras()


def _cameras() -> Iterator[Callable[..., Camera]]:
    cameras: list[Camera] = []

    def make(clips: tuple[Path, ...], *faults: str) -> Camera:
        cameras.append(Camera(clips, faults))
        return cameras[-1]

    yield make
    for each in cameras:
        each.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that mounts a file system of the given KiB until the end of the test."""
    mounted: list[Path] = []

    def mount(kib: int) -> Path:
        if os.geteuid() != 0:
            pytest.skip("needs root to mount a small file system")
        disk = tmp_path / f"disk{len(mounted)}"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(disk)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting is not permitted here")
        mounted.append(disk)
        return disk

    yield mount
    for disk in mounted:
        subprocess.run(["umount", str(disk)], check=True)
