"""The page when something goes wrong on the way: in a real browser, on stores that tests fill."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fer_stream.records import ClosedSegment, LabelledFrame
from fer_stream.store.protocol import CameraState, Checkpoint, Preview

if TYPE_CHECKING:
    from tests.web.conftest import Opener, Web

NOTHING = Checkpoint("1-0", b"", {})


class CutOff:
    """Breaks off in the middle the first GET of each of `paths` that has a body, and takes it out of them."""

    def __init__(self, app: ASGIApp, paths: set[str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope.get("method") == "GET" else None

        async def half(message: Message) -> None:
            body = message.get("body", b"")
            if body and path in self._paths:
                self._paths.discard(path)
                message = {**message, "body": body[: len(body) // 2], "more_body": True}
            await send(message)

        await self._app(scope, receive, half)


def cut_off(web: Web, *paths: str) -> set[str]:
    """Have the first answers for `paths` cut off; those that are not yet."""
    left = {f"/api/v1{path}" for path in paths}
    web.app.middleware_stack = None
    web.app.add_middleware(CutOff, paths=left)
    return left


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 36), "grey").save(file, "JPEG")
    return file.getvalue()


# Answers that break off


def test_an_answer_that_breaks_off_is_asked_for_again(web: Web, open_page: Opener) -> None:
    web.store.set_state("door", CameraState(True, time.time()))
    left = cut_off(web, "/jobs", "/sources")
    page = open_page(f"{web.address}/#/jobs", fine=("ERR_",))
    expect(page.get_by_text("No file was handed in yet.")).to_be_visible()
    assert left == {"/api/v1/sources"}
    page.get_by_role("link", name="Cameras").click()
    with page.expect_response(lambda response: response.url.endswith("/sources")):
        pass
    assert left == set()
    with page.expect_response(lambda response: response.url.endswith("/sources"), timeout=30_000) as again:
        pass
    assert again.value.status == 200


def test_pictures_go_on_after_one_that_was_cut_off_and_one_that_is_none(web: Web, open_page: Opener) -> None:
    web.store.set_state("door", CameraState(True, time.time(), width=640, height=360))
    cut_off(web, "/sources/door/preview.jpg")
    page = open_page(f"{web.address}/#/cameras/door", fine=("ERR_",))
    got: list[str] = []
    page.on("response", lambda response: got.append(response.url) if response.status == 200 else None)
    show(web, page, b"no picture", lambda: len([url for url in got if url.endswith("preview.jpg")]) == 2)
    show(web, page, jpeg(), lambda: page.locator("canvas.picture").get_attribute("data-frame"))


def show(web: Web, page: Page, picture: bytes, until: Callable[[], object]) -> None:
    """Send a picture of the door again and again."""
    deadline_s = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline_s
        web.store.set_preview("door", Preview("door@5", 3, 640, 360, picture))
        page.wait_for_timeout(100)


# Uploads


def slowly(page: Page) -> None:
    """From now on an upload of 300 KB takes seconds."""
    wire = page.context.new_cdp_session(page)
    wire.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000},
    )


def choose(page: Page, folder: Path, *names: str) -> Locator:
    """Hand in files of these names; where the page tells of those that are not sent."""
    for name in names:
        (folder / f"{name}.mp4").write_bytes(bytes(300_000))
    page.get_by_label("Choose files").set_input_files([folder / f"{name}.mp4" for name in names])
    return page.get_by_role("region", name="Hand in a file").get_by_role("listitem")


def sent(web: Web) -> set[str]:
    return {job.name for job in web.jobs.list()}


def test_uploads_go_on_while_other_pages_are_looked_at(web: Web, open_page: Opener, tmp_path: Path) -> None:
    page = open_page(f"{web.address}/#/jobs")
    slowly(page)
    expect(choose(page, tmp_path, *"abcd")).to_have_count(4)
    page.get_by_role("link", name="Cameras").click()
    expect(page.get_by_role("heading", level=1, name="Cameras")).to_be_visible()
    wait(page, lambda: sent(web) == set("abcd"))
    page.get_by_role("link", name="Recorded jobs").click()
    expect(page.get_by_role("region", name="Jobs").get_by_role("heading", level=3)).to_have_text([*"dcba"])
    expect(page.get_by_text("waiting to be sent")).to_have_count(0)


def test_an_outage_in_between_stops_no_upload(web: Web, open_page: Opener, tmp_path: Path) -> None:
    left = cut_off(web)
    page = open_page(f"{web.address}/#/jobs", fine=("ERR_",))
    slowly(page)
    choose(page, tmp_path, *"ab")

    def told_nothing_until_all_is_sent() -> bool:
        left.add("/api/v1/jobs")
        return sent(web) == {"a", "b"}

    wait(page, told_nothing_until_all_is_sent)


def test_a_file_that_waits_is_taken_back_and_one_that_is_being_sent_breaks_off(
    web: Web, open_page: Opener, tmp_path: Path
) -> None:
    page = open_page(f"{web.address}/#/jobs")
    slowly(page)
    lines = choose(page, tmp_path, *"abcd")
    page.get_by_role("button", name="Cancel the upload of b.mp4").click()
    expect(lines.get_by_role("heading")).to_have_text(["a.mp4", "c.mp4", "d.mp4"])
    wait(page, lambda: sent(web) == {"a"})
    page.get_by_role("button", name="Cancel the upload of c.mp4").click()
    expect(page.get_by_text("The upload was cancelled.")).to_be_visible()
    wait(page, lambda: sent(web) == {"a", "d"})
    page.get_by_role("button", name="Close").click()
    expect(lines).to_have_count(0)


def wait(page: Page, holds: Callable[[], object]) -> None:
    """Let the page work until something holds."""
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s, "waited in vain"
        page.wait_for_timeout(50)


# Streams


@pytest.mark.parametrize("hash_", ["#/", "#/cameras/door"])
def test_a_page_says_that_all_streams_are_taken_and_begins_when_one_is_free(
    make_web: Callable[..., Web], open_page: Opener, frame: Callable[..., LabelledFrame], hash_: str
) -> None:
    web = make_web(max_streams=1)
    web.store.set_state("door", CameraState(True, time.time(), width=640, height=360))
    with web.client.stream("GET", "/api/v1/live"):
        page = open_page(f"{web.address}/{hash_}", fine=("503",))
        expect(page.get_by_text("All 1 live streams are taken. Close another page")).to_be_visible()
    expect(page.get_by_text("All 1 live streams are taken.")).to_be_hidden()
    wait(page, lambda: web.metric("fer_web_streams") == 1)


LOOK_AWAY = """hidden => {
  Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_tab_out_of_sight_gives_its_stream_back(
    web: Web, open_page: Opener, frame: Callable[..., LabelledFrame]
) -> None:
    web.store.set_state("door", CameraState(True, time.time(), width=640, height=360))
    web.store.publish("door", [frame(0)])
    page = open_page(f"{web.address}/#/cameras/door")
    wait(page, lambda: web.metric("fer_web_streams") == 1)
    page.evaluate(LOOK_AWAY, True)
    wait(page, lambda: web.metric("fer_web_streams") == 0)
    page.evaluate(LOOK_AWAY, False)
    wait(page, lambda: web.metric("fer_web_streams") == 1)


def test_what_was_missed_out_of_sight_is_told_by_the_service(web: Web, open_page: Opener) -> None:
    page = open_page(web.address)
    found = page.evaluate(
        """async () => {
          const { Recent } = await import("./recent.js");
          const recent = new Recent();
          const add = (at) => recent.add({ stream_id: "a@1", at, faces: [] });
          add(100);
          add(101);
          recent.reopen();
          const before = recent.blanks(0, 120);
          recent.settleGaps([{ from: 90, to: 95 }, { from: 105, to: 108 }]);
          add(130);
          add(131);
          add(140);
          return [before, recent.blanks(0, 140)];
        }"""
    )
    assert [[(blank["from"], blank["to"]) for blank in blanks] for blanks in found] == [
        [],
        [(90, 95), (105, 108), (131, 140)],
    ]


# Crowds


def test_who_is_there_has_a_lane_however_many_passed_by(
    web: Web, open_page: Opener, segment: Callable[..., ClosedSegment]
) -> None:
    now = time.time()
    clerk = segment(now - 110, length_s=105, track=99)
    passers_by = [segment(now - 100 + 3 * number, track=number) for number in range(1, 26)]
    web.store.set_state("door", CameraState(True, now, width=640, height=360))
    web.store.commit("door", NOTHING, [clerk, *passers_by], [])
    page = open_page(f"{web.address}/#/cameras/door")
    chart = page.get_by_role("region", name="Last minutes")
    expect(chart).to_contain_text("and 6 more")
    assert "left" not in chart.inner_text()
    names = page.evaluate(
        """async () => {
          const { seenLast } = await import("./recent.js");
          const people = [[10, 90], [20, 30], [40, 50], [60, 95]].map(([from, to]) => ({ spans: [{ from, to }] }));
          return seenLast(people, 2).map(({ spans }) => spans[0].from);
        }"""
    )
    assert names == [10, 60]


def test_a_crowd_drives_out_nobody_who_is_still_there(web: Web, open_page: Opener) -> None:
    page = open_page(web.address)
    found = page.evaluate(
        """async () => {
          const { Recent } = await import("./recent.js");
          const recent = new Recent();
          for (let second = 0; second < 200; second += 1) {
            const faces = [{ person_id: -1, label: "happy" }, { person_id: second, label: "sad" }];
            recent.add({ stream_id: "a@1", at: 1000 + second, faces });
          }
          const people = recent.people(0);
          return { count: people.length, first: people[0].number, spans: people[0].spans };
        }"""
    )
    assert found == {"count": 100, "first": -1, "spans": [{"label": "happy", "from": 1000, "to": 1199}]}


# Clocks


@pytest.fixture
def playing(web: Web, frame: Callable[..., LabelledFrame], epoch: int) -> Iterator[None]:
    """Meanwhile the door has a new result every 0.1 s."""
    over = threading.Event()

    def play() -> None:
        while not over.wait(0.1):
            web.store.publish("door", [frame(int(10 * (time.time() - epoch / 1000)))])

    player = threading.Thread(target=play)
    player.start()
    yield
    over.set()
    player.join()


@pytest.mark.usefixtures("playing")
def test_a_browser_whose_clock_is_wrong_shows_what_is_now(
    web: Web, open_page: Opener, segment: Callable[..., ClosedSegment]
) -> None:
    now = time.time()
    web.store.set_state("door", CameraState(True, now - 20, width=640, height=360))
    web.store.commit("door", NOTHING, [segment(now - 30)], [])
    page = open_page("about:blank")
    page.add_init_script("{ const now = Date.now; Date.now = () => now() + 600_000; }")
    page.goto(web.address)
    expect(page.get_by_role("listitem")).to_contain_text("1 face now")
    expect(page.get_by_role("listitem")).to_contain_text(re.compile(r"up since [\d:]+ \(\d\d s\)"))
    page.get_by_role("link", name="door").click()
    chart = page.get_by_role("region", name="Last minutes").get_by_role("img")
    expect(chart).to_have_attribute("aria-label", re.compile("Timeline of 2 people"))
