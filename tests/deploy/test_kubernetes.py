"""configs/k8s: objects are valid for Kubernetes and consistent with each other."""

from __future__ import annotations

import json
import re
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
    assert all((path.parent / name / "kustomization.yaml").is_file() for name in document.get("components", ()))
    present = {one.name for one in path.parent.iterdir()} - {"kustomization.yaml", "live.yaml"}
    assert present == {name for name in document["resources"] if not name.startswith("..")}


@pytest.mark.parametrize("version", ["1.32", "1.37"])
def test_objects_are_valid_for_kubernetes(version: str) -> None:
    found = [one for one in all_objects() if builtin(one)]
    assert len(found) >= 20
    for one in found:
        kubernetes_validate.validate(one, version, strict=True)


def test_unknown_key_is_refused() -> None:
    wrong = find_object("Deployment", "web")
    wrong["spec"]["replcias"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_pods_satisfy_the_restricted_pod_security_standard() -> None:
    assert {name for name, _ in pods()} == {*ROLES, "queue", "store"}
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
        probes = {"startupProbe", "livenessProbe", "readinessProbe"} if name in ROLES else {"readinessProbe"}
        assert probes <= container.keys(), name


def test_containers_run_the_commands_of_the_compose_file(compose: dict[str, Any]) -> None:
    for name, pod in pods():
        [container] = pod["spec"]["containers"]
        if name not in ROLES:
            continue
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


def test_servers_have_the_image_and_options_of_the_compose_file(compose: dict[str, Any]) -> None:
    for name in ("queue", "store"):
        [container] = find_object("StatefulSet", name)["spec"]["template"]["spec"]["containers"]
        service = compose["services"][name]
        assert container["image"] == service["image"]
        places = {f"/run/secrets/{name}_acl": "/etc/valkey/users.acl", "/tmp": "/data"}
        assert container["args"] == [places.get(word, word) for word in service["command"]]


def test_budgets_do_not_protect_pods_that_are_not_ready() -> None:
    budgets = [one["spec"] for one in all_objects() if one["kind"] == "PodDisruptionBudget"]
    assert [budget["unhealthyPodEvictionPolicy"] for budget in budgets] == ["AlwaysAllow"] * 3


def test_page_leaves_the_service_before_it_stops() -> None:
    spec = find_object("Deployment", "web")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    # A process stops within 10 s.
    assert int(seconds) + 10 < spec["terminationGracePeriodSeconds"]


def test_dns_of_kubernetes_nodelocal_cache_and_openshift_is_reachable() -> None:
    [policy] = [
        one for one in objects(K8S / "base" / "network-policies.yaml") if one["metadata"]["name"] == "default"
    ]
    ports = {str(rule["to"][0]): [port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]}
    for peer, port in (("kube-system", 53), ("169.254.20.10/32", 53), ("openshift-dns", 5353)):
        [found] = [ports[key] for key in ports if peer in key]
        assert found == [port, port]


def test_keda_scales_workers_by_an_existing_metric() -> None:
    scaled = find_object("ScaledObject", "classify")["spec"]
    # Every `kubectl apply` would reset the number that KEDA has set.
    assert "replicas" not in find_object("Deployment", scaled["scaleTargetRef"]["name"])["spec"]
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
    found = [one["spec"]["template"] for one in render(K8S / "example") if "template" in one.get("spec", {})]
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


def test_base_has_no_namespace_and_no_shared_volume() -> None:
    rendered = render(K8S / "base")
    assert not any("namespace" in one["metadata"] or one["kind"] == "Namespace" for one in rendered)
    assert not any(one["kind"] == "PersistentVolumeClaim" for one in rendered)
    assert "persistentVolumeClaim" not in str(rendered)


def builtin(one: Object) -> bool:
    group = one["apiVersion"].rpartition("/")[0]
    return "." not in group or group.endswith("k8s.io")


@pytest.mark.parametrize("name", ["base", "example", "redis"])
def test_rendered_objects_are_valid(name: str) -> None:
    for one in render(K8S / name):
        if builtin(one):
            kubernetes_validate.validate(one, "1.37", strict=True)


def test_example_is_consistent() -> None:
    rendered = render(K8S / "example")
    assert {one["metadata"].get("namespace") for one in rendered if one["kind"] != "Namespace"} == {"fer-stream"}
    assert {"ScaledObject", "PodMonitor", "PrometheusRule", "Ingress"} <= {one["kind"] for one in rendered}
    workloads = {
        one["metadata"]["name"]: one["spec"] for one in rendered if one["kind"] in ("Deployment", "StatefulSet")
    }
    assert workloads.keys() == {*ROLES, "timeline-standby"}
    selectors = [str(spec["selector"]["matchLabels"]) for spec in workloads.values()]
    assert len(set(selectors)) == len(selectors)
    maps = {one["metadata"]["name"] for one in rendered if one["kind"] == "ConfigMap"}
    [settings] = [name for name in maps if not name.startswith(("fer-stream-camera", "fer-stream-fleet"))]
    for name, spec in workloads.items():
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items(), name
        assert labels["app.kubernetes.io/part-of"] == "fer-stream"
        volumes = {volume["name"]: volume for volume in spec["template"]["spec"]["volumes"]}
        assert volumes["settings"]["configMap"]["name"] == settings
        assert spec["template"]["spec"]["containers"][0]["image"].startswith("registry.example/")
        if name in ("jobs", "web"):
            assert volumes["state"]["persistentVolumeClaim"] == {"claimName": "state"}
    [backend] = [
        one["spec"]["rules"][0]["http"]["paths"][0]["backend"] for one in rendered if one["kind"] == "Ingress"
    ]
    assert backend["service"]["name"] in {one["metadata"]["name"] for one in rendered if one["kind"] == "Service"}


def test_timeline_and_its_stand_by_avoid_each_other() -> None:
    for one in render(K8S / "base"):
        if one["kind"] == "StatefulSet" and one["metadata"]["name"].startswith("timeline"):
            affinity = one["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
            [rule] = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
            term = rule["podAffinityTerm"]
            [expression] = term["labelSelector"]["matchExpressions"]
            assert set(expression["values"]) == {"timeline", "timeline-standby"}
            assert term["matchLabelKeys"] == ["apps.kubernetes.io/pod-index"]


def test_alerts_and_dashboards_of_the_cluster_are_those_of_the_files() -> None:
    rendered = {(one["kind"], one["metadata"]["name"]): one for one in render(K8S / "example")}
    alerts = yaml.safe_load((ROOT / "configs/prometheus/alerts.yml").read_text())
    assert rendered["PrometheusRule", "fer-stream"]["spec"] == alerts
    for name in ("camera", "fleet"):
        found = rendered["ConfigMap", f"fer-stream-{name}"]
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        path = ROOT / f"configs/grafana/dashboards/{name}.json"
        assert json.loads(found["data"][f"{name}.json"]) == json.loads(path.read_text())
