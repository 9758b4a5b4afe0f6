"""The metrics: life time of series, names, labels and units."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase

from fer_stream.metrics import Metrics
from fer_stream.records import LABELS, UNKNOWN, Face, FaceKey, LabelledFace, LabelledFrame, Prediction, Quality
from fer_stream.timeline.processor import TimelineMetrics

LABEL_NAMES = {
    *("source", "stage", "reason", "model", "emotion", "shard", "server", "path"),
    *("route", "status", "outcome", "priority"),
}


class Exported:
    """A registry with all metrics, and the values it exports."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def families(self) -> Iterator[Metric]:
        yield from self.registry.collect()

    def of_source(self, source: str) -> dict[str, float]:
        """Return the values of the series of a source, by name and the values of the other labels."""
        return {
            " ".join(
                [sample.name, *(value for name, value in sample.labels.items() if name != "source")]
            ): sample.value
            for family in self.families()
            for sample in family.samples
            if sample.labels.get("source") == source and not sample.name.endswith("_created")
        }


@pytest.fixture
def exported() -> Exported:
    return Exported()


def of_sources(metrics: Metrics) -> list[MetricWrapperBase]:
    """Return all collectors with a label `source`, independently of `Metrics.remove_source`."""
    collectors = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    return [one for one in collectors if "source" in one._labelnames]


def test_removing_a_source_removes_all_its_series(exported: Exported) -> None:
    for collector in of_sources(exported.metrics):
        for source in ("door", "hall"):
            collector.labels(**{name: source if name == "source" else "x" for name in collector._labelnames})
    kept = exported.of_source("hall")
    assert len(exported.of_source("door")) == len(kept) >= len(of_sources(exported.metrics)) >= 13
    held = exported.metrics.frames.labels("door")
    exported.metrics.remove_source("door")
    held.inc()
    assert exported.of_source("door") == {}
    assert exported.of_source("hall") == kept


def face(label: str) -> LabelledFace:
    import numpy as np

    some = np.zeros(7, np.float32)
    return LabelledFace(1, some[:4], 0.9, Quality(1.0, "ok"), some, some, label)


def test_timeline_counters_start_at_0_after_a_restart(exported: Exported) -> None:
    counts = TimelineMetrics(exported.metrics, now=lambda: 12.0)
    on_loss = counts.register("door")
    assert set(exported.of_source("door").values()) == {0.0}
    assert len(exported.of_source("door")) == len((*LABELS, UNKNOWN)) + 3
    counts.count_labels("door", [LabelledFrame("door@1", 0, 0.0, (face("happy"), face(UNKNOWN), face("happy")))])
    on_loss.missing(2)
    for total in (5, 5, 8):
        counts.count_lost_rows("door", total)
    values = exported.of_source("door")
    assert values["fer_rows_lost_total"] == 8
    assert values["fer_faces_labelled_total happy"] == 2
    assert values["fer_faces_labelled_total unknown"] == 1
    assert (values["fer_predictions_missing_total"], values["fer_predictions_late_total"]) == (2, 0)


def test_removed_source_is_not_exported_until_it_is_added_again(exported: Exported) -> None:
    counts = TimelineMetrics(exported.metrics, now=lambda: 12.0)
    counts.register("door")
    counts.remove("door")
    on_loss = counts.register("door")
    on_loss.missing(5)
    on_loss.late(5)
    counts.count_labels("door", [LabelledFrame("door@1", 0, 0.0, (face("sad"),))])
    assert exported.of_source("door") == {}
    counts.restore("door")
    assert set(exported.of_source("door").values()) == {0.0}
    # Independently of whether the source is registered on the queue server yet.
    counts.count_labels("door", [LabelledFrame("door@1", 1, 0.2, (face("sad"),))])
    on_loss.missing(1)
    values = exported.of_source("door")
    assert (values["fer_faces_labelled_total sad"], values["fer_predictions_missing_total"]) == (1, 1)
    counts.restore("hall")
    assert exported.of_source("hall") == {}


def test_source_missing_in_the_settings_is_not_exported(exported: Exported) -> None:
    counts = TimelineMetrics(exported.metrics, now=lambda: 12.0, is_wanted=lambda source: source == "door")
    for source in ("door", "removed"):
        counts.register(source).missing(2)
    assert exported.of_source("removed") == {}
    assert exported.of_source("door")["fer_predictions_missing_total"] == 2


def test_files_faster_than_real_time_are_excluded_from_latency(exported: Exported) -> None:
    counts = TimelineMetrics(exported.metrics, now=lambda: 12.0, is_live=lambda source: source == "door")
    some = face("happy")
    predictions = [
        Prediction(Face(FaceKey(f"{name}@1", 1, 0), 0.0, at, some.xyxy, 0.9, some.quality), some.probs, "model")
        for name, at in (("door", 11.9), ("film", 2.0), ("door", 13.0))
    ]
    counts.observe_latency(predictions)
    value = exported.registry.get_sample_value
    assert value("fer_end_to_end_seconds_count") == 2
    assert value("fer_end_to_end_seconds_sum") == pytest.approx(0.1)


def test_names_units_and_labels_follow_prometheus_conventions(exported: Exported) -> None:
    for collector in vars(exported.metrics).values():
        if isinstance(collector, MetricWrapperBase):
            assert set(collector._labelnames) <= LABEL_NAMES, collector._name
            assert collector._labelnames.count("source") <= 1
    for family in exported.families():
        assert re.fullmatch(r"fer_[a-z_]+", family.name)
        assert re.fullmatch(r"[A-Z0-9].*\.", family.documentation), family.name
        if family.name.endswith("_seconds") and "timestamp" not in family.name:
            assert "econds" in family.documentation, family.name


def test_stage_histograms_cover_0_2_ms_to_10_s(exported: Exported) -> None:
    for family in exported.families():
        if family.type == "histogram" and family.name.endswith("_seconds") and "job" not in family.name:
            bounds = [float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")]
            assert (bounds[0], 0.1 in bounds, bounds[-2:]) == (0.0002, True, [10.0, float("inf")]), family.name
