"""Services of docker-compose.yml, run with their commands, users and packages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

if TYPE_CHECKING:
    from tests.deploy.conftest import Stack

ROOT = Path(__file__).resolve().parent.parent.parent
WORKERS = ("capture", "classify", "timeline", "jobs", "web")


def write_settings(path: Path, clip: Path, weights: Path) -> None:
    """Write configs/compose.yaml with one source."""
    settings = yaml.safe_load((ROOT / "configs" / "compose.yaml").read_text())
    settings["sources"] = {"door": {"url": str(clip), "playback": "fast"}}
    settings["detector"] = {"weights": str(weights)}
    path.write_text(yaml.safe_dump(settings))


def test_services_process_sources_and_jobs_and_stop_cleanly(stack: Stack, clips: Path, yunet_weights: Path) -> None:
    write_settings(stack.config, clips / "one_face_smile.mp4", yunet_weights)
    stack.start_servers()
    for name in WORKERS:
        stack.start(name)
    for name in WORKERS:
        stack.wait(lambda name=name: stack.healthy(name), 120)  # type: ignore[misc]

    submitted = stack.run("jobs", "submit", str(clips / "no_face.mp4"), "--config", "/etc/fer-stream/live.yaml")
    assert submitted.returncode == 0, submitted.stderr
    store = stack.admin("store")
    stack.wait(lambda: store.zcard("fer:store:door:segments"), 120)
    stack.wait(lambda: list((stack.folder / "files" / "door").glob("*.segments.jsonl")))
    stack.wait(lambda: list((stack.folder / "state" / "jobs").rglob("no_face.timeline.json")), 120)

    page = f"http://127.0.0.1:{stack.web_port}/api/v1/sources"
    with pytest.raises(HTTPError, match="401"):
        urlopen(page)
    response = urlopen(Request(page, headers={"Authorization": f"Bearer {stack.secret('web_token')}"}))
    assert b"door" in response.read()

    codes = stack.stop(*WORKERS)
    assert codes == dict.fromkeys(WORKERS, 0), stack.logs()
    assert stack.denied() == []


def test_erase_works_with_the_permissions_of_the_timeline(stack: Stack, clips: Path, yunet_weights: Path) -> None:
    write_settings(stack.config, clips / "one_face_smile.mp4", yunet_weights)
    stack.start_servers()
    for name in WORKERS[:3]:
        stack.start(name)
    store = stack.admin("store")
    stack.wait(lambda: store.zcard("fer:store:door:segments"), 120)
    erase = ("erase", "door", "--config", "/etc/fer-stream/live.yaml", "--from", "2000-01-01", "--yes")
    # Repeated as documented: data in flight is stored after the command has run.
    stack.wait(lambda: stack.run("timeline", *erase, "--to", "2100-01-01").returncode == 0, 120)
    assert store.zcard("fer:store:door:segments") == 0
    assert stack.denied() == []
