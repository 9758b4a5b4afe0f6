"""A live service, a Prometheus that scrapes it, and the parsed expressions of dashboards and alerts."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import promql_parser
import pytest
import yaml

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Use:
    """A reference to a metric in an expression, and the labels that the metric must have."""

    metric: str
    labels: frozenset[str]


@dataclass(frozen=True)
class Expression:
    """A PromQL expression, its location, and the labels in its legend."""

    where: str
    text: str
    legend: frozenset[str] = field(default=frozenset())

    def filled(self, source: str) -> str:
        """Return the expression as Grafana sends it for one camera."""
        text = self.text.replace("$__rate_interval", "15s").replace("$__range", "1m")
        return text.replace("$source", source)

    @property
    def uses(self) -> list[Use]:
        return list(_uses(promql_parser.parse(self.filled("x")), frozenset()))


def _uses(node: Any, wanted: frozenset[str]) -> Iterator[Use]:
    """Yield the metrics in a syntax tree with the labels that matchers and enclosing aggregations use."""
    match node:
        case promql_parser.VectorSelector():
            yield Use(str(node.name), wanted | {matcher.name for matcher in node.matchers.matchers})
        case promql_parser.MatrixSelector():
            yield from _uses(node.vector_selector, wanted)
        case promql_parser.AggregateExpr():
            by = frozenset(node.modifier.labels) if node.modifier else frozenset()
            yield from _uses(node.expr, by)
        case promql_parser.Call():
            of_buckets = frozenset({"le"}) if node.func.name == "histogram_quantile" else frozenset()
            for argument in node.args:
                yield from _uses(argument, wanted | of_buckets)
        case promql_parser.BinaryExpr():
            yield from _uses(node.lhs, wanted)
            yield from _uses(node.rhs, wanted)
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr():
            yield from _uses(node.expr, wanted)


@pytest.fixture(scope="session")
def alerts() -> list[dict[str, Any]]:
    """The alerting rules."""
    groups = yaml.safe_load((ROOT / "configs/prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="session")
def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards by file name."""
    return {path.stem: json.loads(path.read_text()) for path in (ROOT / "configs/grafana/dashboards").glob("*.json")}


@pytest.fixture(scope="session")
def expressions(alerts: list[dict[str, Any]], dashboards: dict[str, dict[str, Any]]) -> list[Expression]:
    """Every expression of alerts, panels and variables."""
    found = [Expression(f"alert {rule['alert']}", rule["expr"]) for rule in alerts]
    for name, dashboard in dashboards.items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                legend = frozenset(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                found.append(Expression(f"{name}: {panel['title']}", target["expr"], legend))
        for variable in dashboard["templating"]["list"]:
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            found.append(Expression(f"{name}: ${variable['name']}", f"count by ({label}) ({metric})"))
    return found


def fetch_page(url: str) -> tuple[int, str]:
    """Return status and text of a page."""
    try:
        with urlopen(url, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture(scope="session")
def fetch() -> Callable[[str], tuple[int, str]]:
    return fetch_page


class MonitoredService:
    """`fer-stream serve` with the settings of the caller, and Prometheus with the configuration of this project.

    Prometheus scrapes every second instead of every 15, and the alert on missing frames fires after 5 s, not 45.
    """

    def __init__(self, folder: Path, port: int, prometheus_port: int, settings: dict[str, Any]) -> None:
        self.config = folder / "live.yaml"
        self.log = folder / "log"
        self._targets = folder / "targets" / "serve.json"
        self._folder = folder
        self._address = f"127.0.0.1:{prometheus_port}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.settings = {
            "state_dir": str(folder / "state"),
            "recordings": {"dir": str(folder / "files")},
            "metrics": {"port": port, "targets": str(self._targets)},
            "log": {"format": "json"},
            # Every face is queued, so that the numbers of queued and labelled faces are equal.
            "model": {"interval_s": 0},
            **settings,
        }

    def configure(self) -> None:
        self.config.write_text(yaml.safe_dump(self.settings))

    def serve(self) -> None:
        self.configure()
        self._start(sys.executable, "-m", "fer_stream.cli", "serve", str(self.config))

    def reload(self) -> None:
        """Write the settings and reload them."""
        self.configure()
        subprocess.run(["kill", "-HUP", str(self._processes[0].pid)], check=True)

    def watch(self, prometheus: str) -> None:
        """Start Prometheus as soon as `serve` has written its targets."""
        self.wait(lambda: self.roles)
        folder = self._folder / "prometheus"
        shutil.copytree(ROOT / "configs" / "prometheus", folder)
        replace(
            folder / "serve.yml", {"/var/lib/fer-stream-targets/*.json": str(self._targets), "15s": "1s", "10s": "1s"}
        )
        replace(folder / "alerts.yml", {"_seconds > 30\n        for: 15s": "_seconds > 3\n        for: 2s"})
        self._start(
            *(prometheus, f"--config.file={folder / 'serve.yml'}", f"--storage.tsdb.path={self._folder / 'tsdb'}"),
            *(f"--web.listen-address={self._address}", "--log.level=warn"),
        )
        self.wait(lambda: fetch_page(f"http://{self._address}/-/ready")[0] == 200)

    def _start(self, *command: str) -> None:
        with self.log.open("ab") as log:
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def end(self) -> list[int]:
        """Terminate all processes and return their exit codes."""
        for process in self._processes:
            process.terminate()
        return [process.wait(30) for process in self._processes]

    @property
    def roles(self) -> dict[str, str]:
        """Role → address from the target file."""
        groups = json.loads(self._targets.read_text()) if self._targets.exists() else []
        return {group["labels"]["role"]: group["targets"][0] for group in groups}

    def page(self, role: str, path: str) -> tuple[int, str]:
        return fetch_page(f"http://{self.roles[role]}{path}")

    def query_api(self, path: str, **parameters: str) -> Any:
        """Return the data of a response of the Prometheus API."""
        status, text = fetch_page(f"http://{self._address}/api/v1/{path}?{urlencode(parameters)}")
        response = json.loads(text)
        assert (status, response["status"]) == (200, "success"), response
        return response["data"]

    def value(self, expression: str) -> float | None:
        """Return the single value of an expression, or None."""
        result = self.query_api("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None

    def alert(self, name: str, **labels: str) -> str | None:
        """Return `pending`, `firing` or None."""
        for alert in self.query_api("alerts")["alerts"]:
            if alert["labels"].items() >= {"alertname": name, **labels}.items():
                return str(alert["state"])
        return None

    def wait(self, condition: Callable[[], Any], within_s: float = 200) -> None:
        """Wait until `condition` holds. Connection errors count as False."""
        wait_until(condition, within_s, describe=lambda: self.log.read_text()[-5000:], ignore=OSError)


def replace(path: Path, words: dict[str, str]) -> None:
    text = path.read_text()
    for old, new in words.items():
        assert old in text, f"{old} is not in {path.name}"
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture(scope="module")
def operate(free_port: Callable[[], int], yunet_weights: Path) -> Iterator[Callable[..., MonitoredService]]:
    """Create services that are not started yet: `operate(sources={…})`."""
    made: list[MonitoredService] = []

    def make(**settings: Any) -> MonitoredService:
        # The path of pytest's temporary directory may be too long for a socket.
        folder = Path(tempfile.mkdtemp(prefix="fer-"))
        detector = {"type": "yunet", "weights": str(yunet_weights)}
        web = {"port": free_port()}
        made.append(
            MonitoredService(folder, free_ports(8), free_port(), {"detector": detector, "web": web, **settings})
        )
        return made[-1]

    yield make
    codes = [operated.end()[0] for operated in made]
    for operated in made:
        shutil.rmtree(operated.config.parent, ignore_errors=True)
    assert set(codes) <= {0}


def free_ports(number: int) -> int:
    """Return the first of `number` consecutive free ports."""
    for first in range(21_000, 29_000, number):
        try:
            for port in range(first, first + number):
                with socket.create_server(("127.0.0.1", port)):
                    pass
        except OSError:
            continue
        return first
    raise OSError("no free ports")


@pytest.fixture(scope="session")
def prometheus() -> str:
    """The binary of Prometheus."""
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip("needs Prometheus: apt-get install prometheus")
    return found


@pytest.fixture(scope="session")
def promtool(prometheus: str) -> Callable[..., str]:
    """Run promtool, which must succeed, and return its output."""

    def run(*arguments: str | Path) -> str:
        command = [str(Path(prometheus).with_name("promtool")), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
