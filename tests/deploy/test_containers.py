"""Images and the stack of docker-compose.yml, built and run with a container engine. The tests run in this order.

They need Docker and Compose; `.ci/run` starts an engine. If the engine has a network namespace of its own,
ENGINE_NETNS_PID is a process in it; camera and requests are run there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.role_locks import ROLES
from tests.conftest import encode_clip
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = [role for role in ROLES if role != "classify-gpu"]  # 6 GB of CUDA libraries
PROJECT = "fer-stream-test"
CAMERA_PORT, MIRROR_PORT = 18554, 18999
CAMERA_PASSWORD = "camera-s3cret"

GUIDE = (ROOT / "docs" / "how-to" / "deployment.md").read_text()

# Base image included. Measured: docs/how-to/deployment.md.
MAX_MB = {"capture": 900, "classify": 450, "timeline": 370, "jobs": 1050, "web": 380}


class Engine:
    """The container engine, and the stack as a user sees it who follows docs/how-to/deployment.md in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"/usr/bin:{os.environ['PATH']}"  # clients elsewhere may lack BuildKit
        self._docker = shutil.which("docker", path=path) or "docker"
        self._compose = str(Path(sys.executable).with_name("docker-compose"))
        netns = os.environ.get("ENGINE_NETNS_PID")
        self.namespace = ["nsenter", "--target", netns, "--net"] if netns else []
        self.environ = {**os.environ, "PATH": path, "DOCKER_BUILDKIT": "1", "COMPOSE_PROJECT_NAME": PROJECT,
                        "FER_STREAM_CONFIG": "./live.yaml"}  # fmt: skip

    def available(self) -> bool:
        try:
            return self._run([self._docker, "version"], check=False).returncode == 0
        except FileNotFoundError:
            return False

    def docker(self, *arguments: str, check: bool = True) -> str:
        """Run docker and return its output."""
        return self._run([self._docker, *arguments], check=check).stdout

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Docker Compose in the folder of the stack. A failure shows the ends of all logs."""
        completed = self._run([self._compose, *arguments], check=False)
        if check and completed.returncode:
            logs = self._run([self._compose, "logs", "--tail", "20"], check=False).stdout
            raise AssertionError(f"docker compose {' '.join(arguments)}:\n{completed.stderr}\n{logs}")
        return completed

    def _run(self, command: Sequence[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        completed = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False
        )
        assert not check or completed.returncode == 0, f"{command}: {completed.stdout}\n{completed.stderr}"
        return completed

    @cached_property
    def gateway(self) -> str:
        """Address of this machine as seen from containers with a network to the outside."""
        subnet = self.docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}")
        return str(next(ip_network(subnet.strip()).hosts()))

    def build(self, role: str) -> None:
        """Build an image with the arguments of the compose file, as `docker compose build` does."""
        configured = json.loads(self.compose("--profile", "*", "config", "--format", "json").stdout)
        service = configured["services"][role]
        arguments = {**service["build"]["args"], "FER_STREAM_MODELS_URL": f"http://{self.gateway}:{MIRROR_PORT}"}
        options = [option for key, value in arguments.items() for option in ("--build-arg", f"{key}={value}")]
        self.docker("build", "--target", role, "--tag", service["image"], *options, str(ROOT))

    def image(self, role: str) -> dict[str, Any]:
        """Return what `docker image inspect` reports."""
        [found] = json.loads(self.docker("image", "inspect", f"localhost/fer-stream/{role}:0.1.0"))
        return dict(found)

    def containers(self, service: str) -> list[dict[str, Any]]:
        """Return what `docker inspect` reports about the containers of a service, also stopped ones."""
        ids = self.compose("ps", "--all", "--quiet", service).stdout.split()
        return list(json.loads(self.docker("inspect", *ids))) if ids else []

    def restarted(self, container: str) -> bool:
        return self.docker("inspect", "--format", "{{.RestartCount}}", container).strip() != "0"

    def healthy(self, service: str) -> bool:
        states = [each["State"] for each in self.containers(service)]
        return bool(states) and all(state.get("Health", {}).get("Status") == "healthy" for state in states)

    def http(self, path: str, *options: str) -> tuple[int, str]:
        """Request a path of the page, with its token unless `options` are given; return status and body."""
        token = (self.folder / "secrets" / "web_token").read_text()
        authorization = ["--header", f"Authorization: Bearer {token}"]
        completed = subprocess.run(
            [*self.namespace, "curl", "--silent", "--max-time", "20", "--write-out", "\n%{http_code}",
             *(options or authorization), f"http://127.0.0.1:8080{path}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        body, _, status = completed.stdout.rpartition("\n")
        return int(status or 0), body

    def get(self, path: str) -> Any:
        """Return the JSON of a path, or None if there is no response."""
        status, body = self.http(path)
        return json.loads(body) if status == 200 else None


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("stack")
    engine = Engine(folder)
    if not engine.available():
        pytest.skip("needs a container engine: the command `docker version` fails")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_secrets.py", folder / "secrets"], check=True, capture_output=True
    )
    (folder / "secrets" / "camera_password").write_text(CAMERA_PASSWORD)
    settings = yaml.safe_load((ROOT / "configs" / "compose.yaml").read_text())
    url = f"rtsp://viewer:${{CAMERA_PASSWORD:-}}@{engine.gateway}:{CAMERA_PORT}/cam"
    settings["sources"] = {"door": {"url": url}}
    (folder / "live.yaml").write_text(yaml.safe_dump(settings))
    yield engine
    engine.compose("--profile", "*", "down", "--volumes", check=False)


@pytest.fixture(scope="module")
def mirror(engine: Engine, yunet_weights: Path) -> Iterator[None]:
    """Serve YuNet's weights to the builds."""
    command = [sys.executable, "-m", "http.server", str(MIRROR_PORT), "--directory", str(yunet_weights.parent)]
    server = subprocess.Popen([*engine.namespace, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield
    server.kill()
    server.wait()


@pytest.fixture(scope="module")
def camera(engine: Engine, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run an RTSP camera with a password: two faces, then nobody, repeated."""
    folder = tmp_path_factory.mktemp("camera")
    scenes = [
        encode_clip(clips / f"{name}.mp4", folder / f"{name}.h264", 480, 270) for name in ("two_faces", "no_face")
    ]
    options = ["--address", "0.0.0.0", "--port", str(CAMERA_PORT), "--user", "viewer", "--password", CAMERA_PASSWORD]
    command = ["/usr/bin/python3", str(ROOT / "tests/support/rtsp_camera.py"), *map(str, scenes), *options]
    process = subprocess.Popen([*engine.namespace, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "READY\n"
    yield
    process.kill()
    process.communicate()


@pytest.mark.parametrize("role", BUILT)
def test_image_is_small_and_contains_no_package_manager(engine: Engine, mirror: None, role: str) -> None:
    engine.build(role)
    image = engine.image(role)
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    assert image["Size"] / 1e6 < MAX_MB[role]
    absent = "! command -v pip && ! command -v apt-get && ! python -m pip --version"
    files = "test -z \"$(find / -name '*.keras' -not -path '/proc/*' 2>/dev/null)\""
    modules = "! python -c 'import tensorflow' && fer-stream --version"
    restricted = ["--rm", "--read-only", "--cap-drop", "ALL", "--network", "none", "--entrypoint", "sh"]
    script = f"{absent} 2>/dev/null && {files} && {modules} 2>/dev/null"
    assert engine.docker("run", *restricted, image["Id"], "-c", script) == "fer-stream 0.1.0\n"


def test_images_that_detect_faces_contain_the_weights_from_the_mirror(engine: Engine) -> None:
    for role in BUILT:
        image = f"localhost/fer-stream/{role}:0.1.0"
        listed = engine.docker("run", "--rm", "--network", "none", image, "models", "list")
        assert ("yunet-2023mar   present" in listed) == (role in ("capture", "jobs")), role


def test_image_of_cameras_has_the_fonts_of_recordings(engine: Engine) -> None:
    script = "from fer_stream.outputs.draw import _text; print(_text('happy', 20, bold=True).max())"
    options = ["--rm", "--network", "none", "--entrypoint", "python"]
    assert engine.docker("run", *options, "localhost/fer-stream/capture:0.1.0", "-c", script) == "255\n"


def test_list_of_fonts_is_prebuilt(engine: Engine) -> None:
    """Matplotlib replaces the copy if it is not valid for the fonts of the image."""
    script = "import matplotlib.font_manager, pathlib; print(*pathlib.Path('/tmp/matplotlib').rglob('fontlist*'))"
    options = [
        "--rm",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--entrypoint",
        "sh",
        "localhost/fer-stream/jobs:0.1.0",
        "-c",
    ]
    prebuilt = engine.docker("run", *options, "cp -rp /opt/fer-stream/matplotlib /tmp && sleep 1.1 && "
                             f'python -c "{script}" && stat -c %Y /tmp/matplotlib/fontlist* '
                             "/opt/fer-stream/matplotlib/fontlist*").split()  # fmt: skip
    assert prebuilt[1] == prebuilt[2]


def test_stack_becomes_healthy_and_is_restricted(engine: Engine, camera: None) -> None:
    engine.compose("up", "--detach", "--wait")
    for service in ("queue", "store", *BUILT):
        [container] = engine.containers(service)
        assert container["State"]["Health"]["Status"] == "healthy"
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["PidsLimit"] == 512, service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
    assert not engine.containers("prometheus"), "monitoring is a profile"


def test_page_requires_the_token(engine: Engine) -> None:
    assert engine.http("/api/v1/sources", "--header", "Accept: application/json")[0] == 401
    assert engine.http("/api/v1/sources")[0] == 200


def test_camera_with_a_password_produces_segments(engine: Engine) -> None:
    wait_for_segments(engine, 1)
    logs = engine.compose("logs").stdout
    assert CAMERA_PASSWORD not in logs


def wait_for_segments(engine: Engine, more: int) -> None:
    """Wait until the timeline has stored further segments."""
    before = stored_segments(engine)
    wait_until(
        lambda: len(stored_segments(engine) - before) >= more,
        180,
        describe=lambda: engine.compose("logs", "--tail", "20").stdout,
    )


def stored_segments(engine: Engine) -> set[tuple[int, float]]:
    """Return person and start of the stored segments of the camera."""
    found = engine.get("/api/v1/sources/door/timeline") or {"people": []}
    return {(person["person_id"], each["start_at"]) for person in found["people"] for each in person["segments"]}


def test_upload_produces_a_report(engine: Engine, clips: Path) -> None:
    status, body = engine.http("/api/v1/jobs", *token(engine), "--form", f"file=@{clips / 'one_face_smile.mp4'}")
    assert status == 201, body
    job = json.loads(body)["job_id"]
    wait_until(lambda: finished(engine, job), 300, describe=lambda: engine.get(f"/api/v1/jobs/{job}"))
    status, report = engine.http(f"/api/v1/jobs/{job}/report")
    assert status == 200
    assert "one_face_smile" in report


def token(engine: Engine) -> list[str]:
    return ["--header", f"Authorization: Bearer {(engine.folder / 'secrets' / 'web_token').read_text()}"]


def finished(engine: Engine, job: str) -> bool:
    found = engine.get(f"/api/v1/jobs/{job}") or {"state": "unknown"}
    assert found["state"] != "failed", found
    return bool(found["state"] == "done")


def test_three_workers_share_the_load(engine: Engine) -> None:
    # As documented: the number is kept in .env, not in the command.
    (engine.folder / ".env").write_text("FER_STREAM_CLASSIFY=3\n")
    engine.compose("up", "--detach", "--wait")
    assert len(engine.containers("classify")) == 3
    wait_until(lambda: min(predictions(engine)) > 0, 120, describe=lambda: predictions(engine))


def predictions(engine: Engine) -> list[float]:
    """Return the number of predictions of each worker."""
    script = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:9464/metrics').read().decode())"
    pages = [engine.docker("exec", each["Id"], "python", "-c", script) for each in engine.containers("classify")]
    return [sum(map(float, re.findall(r"^fer_predictions_total\{.*\} (\S+)", page, re.MULTILINE))) for page in pages]


def test_update_keeps_the_number_of_workers(engine: Engine) -> None:
    for role in BUILT:  # a new version
        engine.docker("tag", f"localhost/fer-stream/{role}:0.1.0", f"localhost/fer-stream/{role}:0.1.1")
    (engine.folder / ".env").write_text("FER_STREAM_CLASSIFY=3\nVERSION=0.1.1\n")
    update = re.findall(r"docker compose (up --detach --wait --no-deps .*)$", GUIDE, re.MULTILINE)
    assert [command.split()[4:] for command in update] == [["classify", "timeline", "jobs", "web"], ["capture"]]
    for command in update:
        engine.compose(*command.split())
    workers = engine.containers("classify")
    assert [each["Config"]["Image"] for each in workers] == ["localhost/fer-stream/classify:0.1.1"] * 3
    wait_for_segments(engine, 1)


def test_killed_processes_are_replaced_and_work_goes_on(engine: Engine) -> None:
    killed = {role: engine.containers(role)[0]["Id"] for role in BUILT}
    for container in killed.values():
        # Process 1 is Docker's init: kill its child, the process of fer-stream.
        engine.docker("exec", container, "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)", check=False)
    wait_until(
        lambda: all(map(engine.restarted, killed.values())) and all(map(engine.healthy, BUILT)),
        180,
        describe=lambda: engine.compose("ps", "--all").stdout,
    )
    wait_for_segments(engine, 1)


def test_work_goes_on_after_a_restart_of_queue_and_store(engine: Engine) -> None:
    before = len(engine.get("/api/v1/jobs"))
    engine.compose("restart", "queue", "store")
    wait_until(lambda: all(map(engine.healthy, ("queue", "store", *BUILT))), 180)
    wait_for_segments(engine, 1)
    assert len(engine.get("/api/v1/jobs")) == before


@pytest.fixture
def outside(engine: Engine) -> Iterator[tuple[str, int]]:
    """Address outside the machine of the engine: this machine, if the engine has a network namespace of its own."""
    if not engine.namespace:
        yield "1.1.1.1", 443
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, socket.create_server(("0.0.0.0", 0)) as server:
        probe.connect(("192.0.2.1", 9))  # selects the interface, sends nothing
        yield probe.getsockname()[0], server.getsockname()[1]


def test_only_captures_and_the_page_reach_other_networks(engine: Engine, outside: tuple[str, int]) -> None:
    script = f"import socket; socket.create_connection({outside}, timeout=5)"
    reached = {
        role
        for role in BUILT
        if engine.compose("exec", "-T", role, "python", "-c", script, check=False).returncode == 0
    }
    assert reached == {"capture", "web"}


def test_wrong_password_of_the_queue_is_reported(engine: Engine) -> None:
    options = ["--rm", "--no-deps", "--env", "FER_STREAM_PASSWORD_FILE=/etc/hostname"]
    outcome = engine.compose("run", *options, "classify", check=False)
    assert outcome.returncode == 6
    assert "fer-stream: redis://***@queue:6379/0 rejected the credentials" in outcome.stderr


def test_stop_ends_every_process_with_exit_code_0(engine: Engine) -> None:
    """A process that does not stop within `stop_grace_period` (15 s) is killed: exit code 137."""
    engine.compose("stop")
    codes = {(role, each["State"]["ExitCode"]) for role in BUILT for each in engine.containers(role)}
    assert codes == {(role, 0) for role in BUILT}


def test_down_keeps_the_data_and_down_with_volumes_removes_everything(engine: Engine) -> None:
    engine.compose("down")
    assert engine.docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}") == ""
    engine.compose("up", "--detach", "--wait", "web")
    [job] = engine.get("/api/v1/jobs")
    assert engine.http(f"/api/v1/jobs/{job['job_id']}/report")[0] == 200
    assert stored_segments(engine)
    engine.compose("--profile", "*", "down", "--volumes")
    for kind in ("volume", "network"):
        assert engine.docker(kind, "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}") == ""
