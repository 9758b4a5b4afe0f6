"""configs/k8s: objects are valid for Kubernetes and consistent with each other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from fer_stream.config.live import LiveSettings
from fer_stream.config.loader import load

ROOT = Path(__file__).resolve().parent.parent.parent
K8S = ROOT / "configs" / "k8s"
KUSTOMIZATIONS = sorted(K8S.rglob("kustomization.yaml"))
ROLES = ("capture", "classify", "timeline", "jobs", "web")

Object = dict[str, Any]


def objects(path: Path) -> list[Object]:
    return list(yaml.safe_load_all(path.read_text()))


def all_objects() -> list[Object]:
    """Return the objects of all files except kustomizations."""
    paths = [path for path in K8S.rglob("*.yaml") if path.name not in ("kustomization.yaml", "live.yaml")]
    return [one for path in sorted(paths) for one in objects(path)]


def find_object(kind: str, name: str) -> Object:
    [found] = [one for one in all_objects() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pods() -> list[tuple[str, Object]]:
    """Return name and pod template of every workload."""
    return [
        (one["metadata"]["name"], one["spec"]["template"])
        for one in all_objects()
        if "template" in one.get("spec", {})
    ]


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_kustomizations_list_all_files_of_their_folder(path: Path) -> None:
    [document] = objects(path)
    for resource in document["resources"]:
        target = path.parent / resource
        assert target.is_file() or (target / "kustomization.yaml").is_file(), resource
    for generated in document.get("configMapGenerator", ()):
        assert all((path.parent / name).is_file() for name in generated["files"])
    present = {one.name for one in path.parent.iterdir()} - {"kustomization.yaml", "live.yaml"}
    assert present == {name for name in document["resources"] if not name.startswith("..")}


@pytest.mark.parametrize("version", ["1.32", "1.37"])
def test_objects_are_valid_for_kubernetes(version: str) -> None:
    builtin = [
        one
        for one in all_objects()
        if "." not in one["apiVersion"] or one["apiVersion"].split("/")[0].endswith("k8s.io")
    ]
    assert len(builtin) >= 14
    for one in builtin:
        kubernetes_validate.validate(one, version, strict=True)


def test_unknown_key_is_refused() -> None:
    wrong = find_object("Deployment", "web")
    wrong["spec"]["replcias"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_pods_satisfy_the_restricted_pod_security_standard() -> None:
    assert {name for name, _ in pods()} == set(ROLES)
    for name, pod in pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not spec["automountServiceAccountToken"], name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
        [container] = spec["containers"]
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert not context["allowPrivilegeEscalation"], name
        assert context["readOnlyRootFilesystem"], name
        assert {"requests", "limits"} <= container["resources"].keys(), name
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), name


def test_containers_run_the_commands_of_the_compose_file(compose: dict[str, Any]) -> None:
    for name, pod in pods():
        [container] = pod["spec"]["containers"]
        assert container["args"] == compose["services"][name]["command"]
        assert container["image"] == f"fer-stream/{name}"
        environment = {one["name"] for one in container["env"]}
        assert environment >= compose["services"][name]["environment"].keys()


def test_replicas_match_partitions_and_shards() -> None:
    settings = load(K8S / "base" / "live.yaml", LiveSettings, environ={"FER_STREAM_PASSWORD_FILE": "live.yaml"})
    assert find_object("StatefulSet", "timeline")["spec"]["replicas"] == settings.queue.shards
    capture = find_object("StatefulSet", "capture")["spec"]
    [container] = capture["template"]["spec"]["containers"]
    environment = {one["name"]: one for one in container["env"]}
    assert environment["FER_STREAM_PARTITIONS"]["value"] == str(capture["replicas"])
    assert "apps.kubernetes.io/pod-index" in str(environment["FER_STREAM_PARTITION"])


def test_keda_scales_workers_by_an_existing_metric() -> None:
    scaled = find_object("ScaledObject", "classify")["spec"]
    assert find_object("Deployment", scaled["scaleTargetRef"]["name"])
    assert scaled["minReplicaCount"] <= scaled["maxReplicaCount"]
    [trigger] = scaled["triggers"]
    assert trigger["type"] == "prometheus"
    assert {"serverAddress", "query", "threshold"} <= trigger["metadata"].keys()
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert "fer_queue_depth{" in trigger["metadata"]["query"]
    assert '"fer_queue_depth"' in (ROOT / "fer_stream" / "metrics.py").read_text()


def prometheus_labels(pod: Object) -> dict[str, str]:
    """Return the labels of a pod as named in relabelings."""
    labels = pod["metadata"]["labels"]
    return {f"__meta_kubernetes_pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', key)}": labels[key] for key in labels}


def test_pods_are_scraped_with_the_job_and_role_of_alerts_and_dashboards() -> None:
    users = [ROOT / "configs/prometheus/alerts.yml", *(ROOT / "configs/grafana/dashboards").glob("*.json")]
    jobs = {job for path in users for job in re.findall(r'\bjob=\\?"([^"\\]+)', path.read_text())}
    monitor = find_object("PodMonitor", "fer-stream")["spec"]
    [endpoint] = monitor["podMetricsEndpoints"]
    [relabeling] = endpoint["relabelings"]
    assert relabeling["targetLabel"] == "role"
    [source] = relabeling["sourceLabels"]
    found = [one["spec"]["template"] for one in render(K8S / "base") if "template" in one.get("spec", {})]
    assert {prometheus_labels(pod)[source] for pod in found} == {*ROLES, "timeline-standby"}
    for pod in found:
        labels = pod["metadata"]["labels"]
        assert monitor["selector"]["matchLabels"].items() <= labels.items()
        assert {labels[monitor["jobLabel"]]} == jobs
        assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}


def render(folder: Path) -> list[Object]:
    kubectl = Path(sys.executable).with_name("kubectl")
    completed = subprocess.run([kubectl, "kustomize", folder], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(completed.stdout))


def test_rendered_objects_are_valid_and_consistent() -> None:
    rendered = render(K8S / "base")
    for one in rendered:
        kubernetes_validate.validate(one, "1.37", strict=True)
    workloads = {
        one["metadata"]["name"]: one["spec"] for one in rendered if one["kind"] in ("Deployment", "StatefulSet")
    }
    assert workloads.keys() == {*ROLES, "timeline-standby"}
    selectors = [str(spec["selector"]["matchLabels"]) for spec in workloads.values()]
    assert len(set(selectors)) == len(selectors)
    [settings] = [one["metadata"]["name"] for one in rendered if one["kind"] == "ConfigMap"]
    for name, spec in workloads.items():
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items(), name
        assert labels["app.kubernetes.io/part-of"] == "fer-stream"
        volumes = {volume["name"]: volume for volume in spec["template"]["spec"]["volumes"]}
        assert volumes["settings"]["configMap"]["name"] == settings
        assert spec["template"]["spec"]["containers"][0]["image"].startswith("registry.example/")


def test_overlay_adds_autoscaling_and_monitoring(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "mine"
    overlay.mkdir()
    resources = [f"../k8s/{name}" for name in ("base", "keda", "monitoring")]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({"resources": resources}))
    kinds = {one["kind"] for one in render(overlay)}
    assert {"ScaledObject", "PodMonitor", "StatefulSet"} <= kinds
