"""The collectors: where series begin and end, what their names and labels may be, and what the docs say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase

from fer_stream.metrics import Metrics
from fer_stream.records import LABELS, UNKNOWN, FaceKey, LabelledFace, LabelledFrame, Prediction, Quality
from fer_stream.timeline.metrics import TimelineCounts

ROOT = Path(__file__).resolve().parent.parent.parent
LABEL_NAMES = {
    *("source", "stage", "reason", "model", "emotion", "shard", "server", "folder"),
    *("route", "status", "outcome", "priority"),
}


class Seen:
    """A registry with our collectors, and what it would tell."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def families(self) -> Iterator[Metric]:
        yield from self.registry.collect()

    def of_source(self, source: str) -> dict[str, float]:
        """The values of the series of a source, by name and the values of their other labels."""
        return {
            " ".join(
                [sample.name, *(value for name, value in sample.labels.items() if name != "source")]
            ): sample.value
            for family in self.families()
            for sample in family.samples
            if sample.labels.get("source") == source and not sample.name.endswith("_created")
        }


@pytest.fixture
def seen() -> Seen:
    return Seen()


def of_sources(metrics: Metrics) -> list[MetricWrapperBase]:
    """All collectors with a label `source`, found without the help of those who must forget them."""
    collectors = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    return [one for one in collectors if "source" in one._labelnames]


def test_a_source_that_goes_takes_all_of_its_series_with_it(seen: Seen) -> None:
    for collector in of_sources(seen.metrics):
        for source in ("door", "hall"):
            collector.labels(**{name: source if name == "source" else "x" for name in collector._labelnames})
    kept = seen.of_source("hall")
    assert len(seen.of_source("door")) == len(kept) >= len(of_sources(seen.metrics)) >= 13
    held = seen.metrics.frames.labels("door")
    seen.metrics.remove_source("door")
    held.inc()
    assert seen.of_source("door") == {}
    assert seen.of_source("hall") == kept


def face(label: str) -> LabelledFace:
    import numpy as np

    some = np.zeros(7, np.float32)
    return LabelledFace(1, some[:4], 0.9, Quality(1.0, "ok"), some, some, label)


def test_the_timeline_counts_from_0_and_what_it_lost_itself(seen: Seen) -> None:
    counts = TimelineCounts(seen.metrics, now=lambda: 12.0)
    counts.begin("door", 40, 3)  # as a checkpoint says that an earlier process counted
    assert set(seen.of_source("door").values()) == {0.0}
    assert len(seen.of_source("door")) == len((*LABELS, UNKNOWN)) + 2
    counts.labelled("door", [LabelledFrame("door@1", 0, 0.0, (face("happy"), face(UNKNOWN), face("happy")))])
    counts.lost("door", 42, 3)
    counts.lost("door", 42, 3)
    told = seen.of_source("door")
    assert told["fer_faces_labelled_total happy"] == 2
    assert told["fer_faces_labelled_total unknown"] == 1
    assert (told["fer_predictions_missing_total"], told["fer_predictions_late_total"]) == (2, 0)


def test_a_forgotten_source_stays_forgotten_until_it_returns(seen: Seen) -> None:
    counts = TimelineCounts(seen.metrics, now=lambda: 12.0)
    counts.begin("door", 0, 0)
    counts.forget("door")
    counts.begin("door", 0, 0)
    counts.lost("door", 5, 5)
    counts.labelled("door", [LabelledFrame("door@1", 0, 0.0, (face("sad"),))])
    assert seen.of_source("door") == {}
    counts.return_of("door")
    assert set(seen.of_source("door").values()) == {0.0}
    # Whether the queue's server has it on its list yet or not.
    counts.labelled("door", [LabelledFrame("door@1", 1, 0.2, (face("sad"),))])
    counts.lost("door", 6, 5)
    told = seen.of_source("door")
    assert (told["fer_faces_labelled_total sad"], told["fer_predictions_missing_total"]) == (1, 1)
    counts.return_of("hall")
    assert seen.of_source("hall") == {}


def test_a_source_that_the_queue_alone_remembers_is_not_shown(seen: Seen) -> None:
    counts = TimelineCounts(seen.metrics, now=lambda: 12.0, is_wanted=lambda source: source == "door")
    for source in ("door", "removed"):
        counts.begin(source, 0, 0)
        counts.lost(source, 2, 0)
    assert seen.of_source("removed") == {}
    assert seen.of_source("door")["fer_predictions_missing_total"] == 2


def test_files_that_are_played_fast_are_left_out_of_end_to_end(seen: Seen) -> None:
    counts = TimelineCounts(seen.metrics, now=lambda: 12.0, is_live=lambda source: source == "door")
    some = face("happy")
    predictions = [
        Prediction(FaceKey(f"{name}@1", 1, 0), 0.0, at, some.xyxy, 0.9, some.quality, some.probs, "model")
        for name, at in (("door", 11.9), ("film", 2.0), ("door", 13.0))
    ]
    counts.published(predictions)
    value = seen.registry.get_sample_value
    assert value("fer_end_to_end_seconds_count") == 2
    assert value("fer_end_to_end_seconds_sum") == pytest.approx(0.1)


def test_names_units_and_labels_are_what_the_field_expects(seen: Seen) -> None:
    for collector in vars(seen.metrics).values():
        if isinstance(collector, MetricWrapperBase):
            assert set(collector._labelnames) <= LABEL_NAMES, collector._name
            assert collector._labelnames.count("source") <= 1
    for family in seen.families():
        assert re.fullmatch(r"fer_[a-z_]+", family.name)
        assert re.fullmatch(r"[A-Z0-9].*\.", family.documentation), family.name
        if family.name.endswith("_seconds") and "timestamp" not in family.name:
            assert "econds" in family.documentation, family.name


def test_steps_are_told_from_a_fifth_of_a_millisecond_to_ten_seconds(seen: Seen) -> None:
    for family in seen.families():
        if family.type == "histogram" and family.name.endswith("_seconds") and "job" not in family.name:
            bounds = [float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")]
            assert (bounds[0], 0.1 in bounds, bounds[-2:]) == (0.0002, True, [10.0, float("inf")]), family.name


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Name → type and labels, as docs/operations.md has them."""
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(fer_\w+)(?:{([\w, ]+)})?` \| (\w+) \|", text, re.MULTILINE)
    return {name: (kind, frozenset(filter(None, labels.split(", ")))) for name, labels, kind in rows}


def test_the_docs_tell_every_metric_with_its_type_and_labels(seen: Seen) -> None:
    suffix = {"counter": "_total", "info": "_info"}
    labels = {
        one._name: frozenset(one._labelnames)
        for one in vars(seen.metrics).values()
        if isinstance(one, MetricWrapperBase)
    }
    ours = {
        family.name + suffix.get(family.type, ""): (family.type, labels.get(family.name, frozenset[str]()))
        for family in seen.families()
    }
    ours["fer_build_info"] = ("info", frozenset({"version", "python"}))
    assert documented() == ours
