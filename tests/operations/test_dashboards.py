"""The Grafana dashboards and their provisioning, without Grafana."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer_stream.outputs.draw import COLOURS

ROOT = Path(__file__).resolve().parent.parent.parent
GRAFANA = ROOT / "configs" / "grafana"
COLUMNS = 24

Dashboard = dict[str, Any]


@pytest.fixture(params=["fleet", "camera"])
def dashboard(request: pytest.FixtureRequest, dashboards: dict[str, Dashboard]) -> Dashboard:
    return dashboards[request.param]


def data_source() -> Dashboard:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    return dict(source)


def test_there_are_two_dashboards(dashboards: dict[str, Dashboard]) -> None:
    assert {dashboard["uid"] for dashboard in dashboards.values()} == {"fer-stream-fleet", "fer-stream-camera"}


def test_dashboards_load_without_edits(dashboard: Dashboard) -> None:
    """There are no `__inputs`, no id of another Grafana, and a single data source, referenced by uid."""
    assert not dashboard.keys() & {"id", "__inputs", "__requires", "__elements"}
    assert dashboard["schemaVersion"] == 41
    used = [panel["datasource"] for panel in panels(dashboard)]
    used += [target["datasource"] for panel in panels(dashboard) for target in panel["targets"]]
    used += [variable["datasource"] for variable in dashboard["templating"]["list"]]
    assert all(one == {"type": "prometheus", "uid": data_source()["uid"]} for one in used)


def panels(dashboard: Dashboard) -> list[Dashboard]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_panels_do_not_overlap(dashboard: Dashboard) -> None:
    positions = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(position["x"] >= 0 and position["x"] + position["w"] <= COLUMNS for position in positions)
    for one, other in combinations(positions, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_panel_has_title_description_and_unit(dashboard: Dashboard) -> None:
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in {"short", "s", "percentunit", "bytes"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


def test_links_between_dashboards_are_valid(dashboards: dict[str, Dashboard]) -> None:
    links = [
        link["url"]
        for panel in panels(dashboards["fleet"])
        for link in panel["fieldConfig"]["defaults"].get("links", [])
    ]
    assert links
    assert all(link.startswith(f"/d/{dashboards['camera']['uid']}?var-source=") for link in links)
    assert [variable["name"] for variable in dashboards["camera"]["templating"]["list"]] == ["source"]


def test_emotions_have_the_same_colours_as_in_reports(dashboards: dict[str, Dashboard]) -> None:
    (panel,) = [panel for panel in panels(dashboards["camera"]) if panel["title"] == "Emotions over time"]
    assert {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    } == COLOURS


def test_dashboards_are_provisioned_from_their_mount_point() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/fer-stream.yml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = [volume for volume in compose["grafana"]["volumes"] if isinstance(volume, str)]
    assert f"./configs/grafana/dashboards:{provider['options']['path']}:ro" in mounts
    assert data_source()["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
