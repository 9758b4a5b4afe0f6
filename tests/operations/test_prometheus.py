"""The real Prometheus on the running service: a camera that is killed, a file that is played, a source that goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fer_stream.capture.disconnect import REASONS

if TYPE_CHECKING:
    from tests.conftest import Camera
    from tests.operations.conftest import Expression, Operated

# What Prometheus and the configuration of this project put on every series, and the series that Prometheus makes.
OF_TARGETS = {"job", "instance", "role"}
OF_PROMETHEUS = {"up": OF_TARGETS, "ALERTS": {"alertname", "alertstate", "severity"}}


@pytest.fixture(scope="module")
def camera(lasting_camera: Callable[..., Camera], film: Path) -> Camera:
    return lasting_camera((film,)).start()


@pytest.fixture(scope="module")
def live(operate: Callable[..., Operated], camera: Camera, clips: Path, prometheus: str) -> Operated:
    """Everything of `serve`, on a camera and a short film, seen by Prometheus for a while."""
    patience = {"open_timeout_s": 2, "stall_timeout_s": 1, "reconnect_min_s": 0.1, "reconnect_max_s": 0.5}
    sources: dict[str, Any] = {
        "door": {"url": camera.url(), **patience},
        "film": {"url": str(clips / "one_face_smile.mp4"), "playback": "fast"},
    }
    live = operate(sources=sources)
    live.serve()
    live.watch(prometheus)
    live.wait(lambda: (live.value('sum(increase(fer_faces_labelled_total{source="door"}[15s]))') or 0) > 10)
    return live


def scraped(live: Operated) -> dict[str, list[Mapping[str, str]]]:
    """The samples of all processes by name: their labels, with those of their target."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for role, address in live.roles.items():
        _, text = live.page(role, "/metrics")
        target = {"job": "fer-stream", "role": role, "instance": address}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append({**sample.labels, **target})
    return found


def of_source(live: Operated, name: str) -> Iterator[str]:
    for metric, series in scraped(live).items():
        yield from (f"{metric}{dict(labels)}" for labels in series if labels.get("source") == name)


def test_every_process_is_found_and_answers(live: Operated) -> None:
    targets = live.ask("targets")["activeTargets"]
    assert {target["labels"]["role"] for target in targets} == set(live.roles)
    assert {"capture", "classify", "timeline"} <= set(live.roles)
    assert [target["lastError"] for target in targets if target["health"] != "up"] == []


def test_every_process_is_alive_and_ready(live: Operated) -> None:
    for role in live.roles:
        live.wait(lambda role=role: live.page(role, "/readyz")[0] == 200)  # type: ignore[misc]
        assert live.page(role, "/healthz")[0] == 200


def test_the_rules_are_loaded_and_can_be_worked_out(live: Operated, alerts: list[dict[str, Any]]) -> None:
    live.wait(lambda: all(rule["health"] != "unknown" for rule in rules(live)))
    assert [rule["name"] for rule in rules(live)] == [rule["alert"] for rule in alerts]
    assert [(rule["name"], rule["lastError"]) for rule in rules(live) if rule["health"] != "ok"] == []


def rules(live: Operated) -> list[dict[str, Any]]:
    return [rule for group in live.ask("rules")["groups"] for rule in group["rules"]]


def test_the_numbers_are_those_of_the_service(live: Operated) -> None:
    live.wait(lambda: live.value('fer_camera_up{source="door"}') == 1)
    assert live.value('time() - fer_camera_last_frame_timestamp_seconds{source="door"}') == pytest.approx(0, abs=30)
    assert live.value("fer_queue_consumers") == 1
    assert live.value("sum(fer_dead_letter_total)") == 0
    assert live.value('count(fer_reconnects_total{source="door"})') == len(REASONS)
    # Nothing of the film is lost, to its end.
    put, labelled = 'fer_crops_enqueued_total{source="film"}', 'sum(fer_faces_labelled_total{source="film"})'
    live.wait(lambda: (live.value(put) or 0) == live.value(labelled) != 0)
    live.wait(lambda: (live.value("histogram_quantile(0.95, rate(fer_end_to_end_seconds_bucket[15s]))") or 0) > 0)


def test_only_the_owner_of_a_shard_tells_of_its_queue(live: Operated) -> None:
    samples = scraped(live)
    for name in ("fer_queue_depth", "fer_queue_oldest_age_seconds", "fer_queue_consumers"):
        assert [(labels["role"], labels["shard"]) for labels in samples[name]] == [("timeline", "0")]


def test_every_metric_and_label_that_is_asked_for_is_there(live: Operated, expressions: list[Expression]) -> None:
    samples = {name: [set(labels) for labels in series] for name, series in scraped(live).items()}
    samples |= {name: [labels] for name, labels in OF_PROMETHEUS.items()}
    asked = {(one.where, use.metric, use.labels) for one in expressions for use in one.uses}
    assert len({metric for _, metric, _ in asked}) > 25
    unknown = [use for use in asked if not any(use[2] <= labels for labels in samples.get(use[1], []))]
    assert unknown == []


def test_every_expression_of_the_dashboards_gives_something(live: Operated, expressions: list[Expression]) -> None:
    live.wait(lambda: live.value("count(count_over_time(fer_redis_up[1m]) > 15)"))
    for one in expressions:
        if one.where.startswith("alert "):
            continue
        data = live.ask("query", query=one.filled("door"))
        assert data["resultType"] == "vector", one
        assert data["result"], one
        assert all(one.legend <= series["metric"].keys() for series in data["result"]), one


def test_a_camera_that_is_killed_is_missed_until_it_is_back(live: Operated, camera: Camera) -> None:
    live.wait(lambda: live.alert("FerStreamNoFrames", source="door") is None)
    camera.kill()
    live.wait(lambda: live.alert("FerStreamNoFrames", source="door") == "firing")
    status, body = live.page("capture", "/readyz")
    assert (status, "door (refused)" in body or "door (ended)" in body) == (503, True), body
    assert live.page("capture", "/healthz")[0] == 200
    assert live.value('fer_camera_up{source="door"}') == 0
    camera.start()
    live.wait(lambda: live.alert("FerStreamNoFrames", source="door") is None)
    live.wait(lambda: live.page("capture", "/readyz")[0] == 200)
    assert (live.value('sum(fer_reconnects_total{source="door"})') or 0) >= 1


def test_the_series_of_a_removed_source_go(live: Operated) -> None:
    assert list(of_source(live, "film"))
    film = live.settings["sources"].pop("film")
    live.reload()
    live.wait(lambda: not list(of_source(live, "film")))
    assert list(of_source(live, "door"))
    live.settings["sources"]["film"] = film
    live.reload()
    live.wait(lambda: any("fer_faces_labelled_total" in series for series in of_source(live, "film")))
