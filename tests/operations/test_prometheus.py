"""Prometheus scraping the running service: alerts, dashboards, a killed camera and a removed source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fer_stream.capture.disconnect import REASONS

if TYPE_CHECKING:
    from tests.conftest import Camera
    from tests.operations.conftest import Expression, MonitoredService

# Labels that Prometheus adds to every series, and series that it creates itself.
TARGET_LABELS = {"job", "instance", "role"}
PROMETHEUS_SERIES = {"up": TARGET_LABELS, "ALERTS": {"alertname", "alertstate", "severity"}}


@pytest.fixture(scope="module")
def camera(module_rtsp_camera: Callable[..., Camera], camera_clip: Path) -> Camera:
    return module_rtsp_camera((camera_clip,)).start()


@pytest.fixture(scope="module")
def live(operate: Callable[..., MonitoredService], camera: Camera, clips: Path, prometheus: str) -> MonitoredService:
    """`serve` with a camera and a short file, scraped by Prometheus."""
    timeouts = {"open_timeout_s": 2, "stall_timeout_s": 1, "reconnect_min_s": 0.1, "reconnect_max_s": 0.5}
    sources: dict[str, Any] = {
        "door": {"url": camera.url(), **timeouts},
        "clip": {"url": str(clips / "one_face_smile.mp4"), "playback": "fast"},
    }
    live = operate(sources=sources)
    live.serve()
    live.watch(prometheus)
    live.wait(lambda: (live.value('sum(increase(fer_faces_labelled_total{source="door"}[15s]))') or 0) > 10)
    return live


def scraped(live: MonitoredService) -> dict[str, list[Mapping[str, str]]]:
    """Return the label sets of all samples of all processes, by metric name, including target labels."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for role, address in live.roles.items():
        _, text = live.page(role, "/metrics")
        target = {"job": "fer-stream", "role": role, "instance": address}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append({**sample.labels, **target})
    return found


def of_source(live: MonitoredService, name: str) -> Iterator[str]:
    for metric, series in scraped(live).items():
        yield from (f"{metric}{dict(labels)}" for labels in series if labels.get("source") == name)


def test_every_process_is_discovered_and_scraped(live: MonitoredService) -> None:
    targets = live.query_api("targets")["activeTargets"]
    assert {target["labels"]["role"] for target in targets} == set(live.roles)
    assert {"capture", "classify", "timeline"} <= set(live.roles)
    assert [target["lastError"] for target in targets if target["health"] != "up"] == []


def test_every_process_becomes_alive_and_ready(live: MonitoredService) -> None:
    for role in live.roles:
        live.wait(lambda role=role: live.page(role, "/readyz")[0] == 200)  # type: ignore[misc]
        assert live.page(role, "/healthz")[0] == 200


def test_alert_rules_are_loaded_and_evaluated(live: MonitoredService, alerts: list[dict[str, Any]]) -> None:
    live.wait(lambda: all(rule["health"] != "unknown" for rule in rules(live)))
    assert [rule["name"] for rule in rules(live)] == [rule["alert"] for rule in alerts]
    assert [(rule["name"], rule["lastError"]) for rule in rules(live) if rule["health"] != "ok"] == []


def rules(live: MonitoredService) -> list[dict[str, Any]]:
    return [rule for group in live.query_api("rules")["groups"] for rule in group["rules"]]


def test_metrics_match_the_state_of_the_service(live: MonitoredService) -> None:
    live.wait(lambda: live.value('fer_camera_up{source="door"}') == 1)
    assert live.value('time() - fer_camera_last_frame_timestamp_seconds{source="door"}') == pytest.approx(0, abs=30)
    assert live.value("fer_queue_consumers") == 1
    assert live.value("sum(fer_dead_letter_total)") == 0
    assert live.value('count(fer_reconnects_total{source="door"})') == len(REASONS)
    # All faces of the file are labelled.
    enqueued, labelled = 'fer_crops_enqueued_total{source="clip"}', 'sum(fer_faces_labelled_total{source="clip"})'
    live.wait(lambda: (live.value(enqueued) or 0) == live.value(labelled) != 0)
    live.wait(lambda: (live.value("histogram_quantile(0.95, rate(fer_end_to_end_seconds_bucket[15s]))") or 0) > 0)


def test_only_the_lease_holder_exports_shard_metrics(live: MonitoredService) -> None:
    samples = scraped(live)
    for name in ("fer_queue_depth", "fer_queue_oldest_age_seconds", "fer_queue_consumers"):
        assert [(labels["role"], labels["shard"]) for labels in samples[name]] == [("timeline", "0")]


def test_all_metrics_and_labels_in_expressions_exist(live: MonitoredService, expressions: list[Expression]) -> None:
    samples = {name: [set(labels) for labels in series] for name, series in scraped(live).items()}
    samples |= {name: [labels] for name, labels in PROMETHEUS_SERIES.items()}
    used = {(one.where, use.metric, use.labels) for one in expressions for use in one.uses}
    assert len({metric for _, metric, _ in used}) > 25
    unknown = [use for use in used if not any(use[2] <= labels for labels in samples.get(use[1], []))]
    assert unknown == []


def test_every_dashboard_expression_returns_data(live: MonitoredService, expressions: list[Expression]) -> None:
    live.wait(lambda: live.value("count(count_over_time(fer_redis_up[1m]) > 15)"))
    for one in expressions:
        if one.where.startswith("alert "):
            continue
        data = live.query_api("query", query=one.filled("door"))
        assert data["resultType"] == "vector", one
        assert data["result"], one
        assert all(one.legend <= series["metric"].keys() for series in data["result"]), one


def test_alert_fires_for_a_killed_camera_until_it_returns(live: MonitoredService, camera: Camera) -> None:
    live.wait(lambda: live.alert("FerStreamNoFrames", source="door") is None)
    camera.kill()
    live.wait(lambda: live.alert("FerStreamNoFrames", source="door") == "firing")
    assert [live.page("capture", path)[0] for path in ("/readyz", "/healthz")] == [200, 200]
    # A dead camera raises one alert.
    firing = [one["labels"] for one in live.query_api("alerts")["alerts"] if one["state"] == "firing"]
    assert [labels["alertname"] for labels in firing if labels.get("source") == "door"] == ["FerStreamNoFrames"]
    assert live.value('fer_camera_up{source="door"}') == 0
    camera.start()
    live.wait(lambda: live.alert("FerStreamNoFrames", source="door") is None)
    assert (live.value('sum(fer_reconnects_total{source="door"})') or 0) >= 1


def test_series_of_a_removed_source_disappear(live: MonitoredService) -> None:
    assert list(of_source(live, "clip"))
    clip = live.settings["sources"].pop("clip")
    live.reload()
    live.wait(lambda: not list(of_source(live, "clip")))
    assert list(of_source(live, "door"))
    live.settings["sources"]["clip"] = clip
    live.reload()
    live.wait(lambda: any("fer_faces_labelled_total" in series for series in of_source(live, "clip")))
