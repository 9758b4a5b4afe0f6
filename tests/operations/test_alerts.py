"""Alert rules and Prometheus configurations, checked with promtool, and the runbook of the alerts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIGS = ROOT / "configs" / "prometheus"
RULE_TESTS = ROOT / "tests" / "operations" / "alerts.yml"
RUNBOOK = "https://github.com/fer-stream/fer-stream/blob/main/docs/how-to/monitoring.md#"

Promtool = Callable[..., str]


def test_alert_rules_are_valid(promtool: Promtool, alerts: list[dict[str, Any]]) -> None:
    output = promtool("check", "rules", "--lint=all", "--lint-fatal", CONFIGS / "alerts.yml")
    assert f"{len(alerts)} rules found" in output


@pytest.mark.parametrize("name", ["prometheus.yml", "serve.yml"])
def test_prometheus_configurations_are_valid(promtool: Promtool, name: str) -> None:
    assert "1 rule files found" in promtool("check", "config", CONFIGS / name)


def test_alerts_fire_when_expected_and_not_before(promtool: Promtool) -> None:
    assert "SUCCESS" in promtool("test", "rules", RULE_TESTS)


def test_rule_tests_detect_a_changed_threshold(promtool: Promtool, tmp_path: Path) -> None:
    shutil.copy(RULE_TESTS, tmp_path)
    rules = (CONFIGS / "alerts.yml").read_text().replace("> 0.2", "> 0.4")
    (tmp_path / "rules.yml").write_text(rules)
    tests = RULE_TESTS.read_text().replace("../../configs/prometheus/alerts.yml", "rules.yml")
    (tmp_path / RULE_TESTS.name).write_text(tests)
    with pytest.raises(AssertionError, match="FerStreamFramesDropped"):
        promtool("test", "rules", tmp_path / RULE_TESTS.name)


def test_every_alert_is_tested_firing_and_not_firing(alerts: list[dict[str, Any]]) -> None:
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts}
    firing = {case["alertname"] for case in cases if case.get("exp_alerts")}
    firing |= set(re.findall(r'ALERTS{alertname="(\w+)"', RULE_TESTS.read_text()))
    assert firing == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


def test_every_alert_has_a_section_in_the_runbook(alerts: list[dict[str, Any]]) -> None:
    sections = re.findall(r"^### (\w+)$", (ROOT / "docs" / "how-to" / "monitoring.md").read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in alerts]
    for rule in alerts:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["runbook_url"] == RUNBOOK + rule["alert"].lower()
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}


def test_prometheus_discovers_all_compose_services() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    (job,) = yaml.safe_load((CONFIGS / "prometheus.yml").read_text())["scrape_configs"]
    static = {target.partition(":")[0] for group in job["static_configs"] for target in group["targets"]}
    by_dns = {name for group in job["dns_sd_configs"] for name in group["names"]}
    assert static | by_dns == {"capture", "classify", "timeline", "jobs", "web"}
    assert static | by_dns <= compose.keys()


def test_second_capture_is_discovered_with_its_line_enabled(promtool: Promtool, tmp_path: Path) -> None:
    (block,) = re.findall(
        r"```yaml\n(services:.*?)```", (ROOT / "docs" / "how-to" / "deployment.md").read_text(), re.DOTALL
    )
    shutil.copytree(CONFIGS, tmp_path / "prometheus")
    edited = tmp_path / "prometheus" / "prometheus.yml"
    edited.write_text(edited.read_text().replace("# - {targets: [capture-1", "- {targets: [capture-1"))
    promtool("check", "config", edited)
    (job,) = yaml.safe_load(edited.read_text())["scrape_configs"]
    captures = [group["targets"] for group in job["static_configs"] if group["labels"] == {"role": "capture"}]
    assert sorted(captures) == sorted([f"{name}:9464"] for name in yaml.safe_load(block)["services"])
