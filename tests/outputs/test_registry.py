"""Registry of outputs, and its agreement with settings, command line and documentation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fer_stream.cli.run import run
from fer_stream.config.settings import OutputSettings
from fer_stream.outputs.downsample import ProbabilitySeries
from fer_stream.outputs.output_set import OutputSet
from fer_stream.outputs.registry import EXPORTS, OUTPUTS, Kind, OutputContext, result_paths
from fer_stream.records import U8, SourceInfo

FORMATS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "formats.md"
OPTIONAL = [name for name, entry in OUTPUTS.items() if entry.optional and name not in EXPORTS]


@pytest.fixture
def context(
    array_source: Callable[..., Any], gradient: Callable[[int, int], U8], tmp_path: Path
) -> Callable[[Kind], OutputContext]:
    """Return a function that creates the context of a source of the given kind."""

    def make(kind: Kind) -> OutputContext:
        return OutputContext(
            input_path=tmp_path / "clip.mp4",
            info=SourceInfo("clip.mp4", kind, 176, 144, 25.0, 1, 0.04, "h264", "yuv420p"),
            open_source=lambda: array_source([gradient(176, 144)], [0.0]),
            series=ProbabilitySeries(),
            thumbnails={},
            force=False,
        )

    return make


def created(settings: OutputSettings, context: OutputContext, directory: Path) -> list[str]:
    outputs = OutputSet()
    outputs.create(settings, directory / "clip", context)
    outputs.discard()
    return [path.name for path in outputs.paths]


def test_video_has_all_outputs_in_the_order_of_their_size(
    context: Callable[[Kind], OutputContext], tmp_path: Path
) -> None:
    assert created(OutputSettings(), context("video"), tmp_path) == [
        "clip.annotated.mp4", "clip.report.html", "clip.timeline.png", "clip.frames.csv", "clip.timeline.json",
    ]  # fmt: skip


def test_still_image_has_no_outputs_over_time(context: Callable[[Kind], OutputContext], tmp_path: Path) -> None:
    assert created(OutputSettings(), context("image"), tmp_path) == [
        "clip.annotated.png", "clip.frames.csv", "clip.timeline.json",
    ]  # fmt: skip


@pytest.mark.parametrize("name", OPTIONAL)
def test_setting_disables_one_output(name: str, context: Callable[[Kind], OutputContext], tmp_path: Path) -> None:
    every = created(OutputSettings(), context("video"), tmp_path)
    remaining = created(OutputSettings.model_validate({name: False}), context("video"), tmp_path)
    assert set(every) - set(remaining) == {f"clip.{OUTPUTS[name].suffix('video')}"}


def test_every_optional_output_has_a_setting_that_enables_it_by_default() -> None:
    assert [name for name in OPTIONAL if OutputSettings.model_fields[name].default is not True] == []


def test_settings_passed_to_factories_exist() -> None:
    fields = {field for entry in OUTPUTS.values() for field in entry.settings}
    assert fields <= OutputSettings.model_fields.keys()


def test_every_optional_output_has_a_command_line_option() -> None:
    assert [name for name in OPTIONAL if f"no_{name}" not in inspect.signature(run).parameters] == []


def test_formats_page_lists_every_output_with_its_option() -> None:
    rows = [line for line in FORMATS_PAGE.read_text("utf-8").splitlines() if line.startswith("| `talk.")]
    documented = {re.findall(r"`talk\.([^`]+)`", row)[0]: re.findall(r"`--no-(\w+)`", row) for row in rows}
    assert documented == {
        entry.suffix("video"): [name] if name in OPTIONAL else [] for name, entry in OUTPUTS.items()
    }


def test_existing_results_are_recognised_for_both_kinds_of_sources() -> None:
    suffixes = {suffix for entry in OUTPUTS.values() for _, suffix in entry.suffixes}
    assert {path.name for path in result_paths(Path("out/clip"), EXPORTS)} == {
        f"clip.{suffix}" for suffix in suffixes
    }
    assert {path.name for path in result_paths(Path("clip"), ["srt"])} - {
        path.name for path in result_paths(Path("clip"))
    } == {"clip.srt"}


def test_settings_offer_every_export(context: Callable[[Kind], OutputContext], tmp_path: Path) -> None:
    settings = OutputSettings.model_validate({"export": tuple(EXPORTS)})
    names = created(settings, context("video"), tmp_path)
    assert set(names) - set(created(OutputSettings(), context("video"), tmp_path)) == {
        f"clip.{entry.suffix}" for entry in EXPORTS.values()
    }
