"""Which results of earlier runs are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fer_stream.errors import OutputExists
from fer_stream.outputs.existing import KeptResults, find_kept, remove_interrupted, remove_results
from fer_stream.outputs.registry import result_paths

DOCUMENT: dict[str, Any] = {
    "format": "fer-stream.timeline",
    "version": 1,
    "source": {"name": "clip", "kind": "video", "sha256": "ab"},
    "analysed": {"frames": 50, "stopped": None},
    "detector": "yunet",
    "backend": "litert",
    "model": {"id": "emotion", "sha256": "cd"},
    "versions": {"fer-stream": "0.1.0"},
    "settings": {"fps": None, "outputs": {"video": False, "redact": "none", "redact_persons": None}},
    "people": [],
}


def changed(*keys: str, value: object) -> dict[str, Any]:
    document = deepcopy(DOCUMENT)
    target = document
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    return document


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes results with a given timeline.json and returns their stem."""

    def results(document: object, *suffixes: str) -> Path:
        (tmp_path / "clip.timeline.json").write_text(json.dumps(document))
        for suffix in suffixes:
            (tmp_path / f"clip.{suffix}").write_text("result")
        return tmp_path / "clip"

    return results


def test_without_results_there_is_nothing_to_keep_and_nothing_is_computed(tmp_path: Path) -> None:
    (tmp_path / "clip.interrupted.frames.csv").touch()
    (tmp_path / "clip.mp4").touch()
    assert find_kept(tmp_path / "clip", lambda: pytest.fail("the file was hashed")) is None


def test_results_of_an_equal_run_are_kept(write: Callable[..., Path]) -> None:
    stem = write(DOCUMENT, "frames.csv")
    kept = {stem.with_name("clip.frames.csv"), stem.with_name("clip.timeline.json")}
    assert find_kept(stem, lambda: DOCUMENT) == KeptResults(frozenset(kept), "video")


@pytest.mark.parametrize(
    "keys", [("settings", "outputs", "video"), ("source", "name"), ("people",), ("analysed", "frames")]
)
def test_selection_of_outputs_and_results_may_differ(write: Callable[..., Path], keys: tuple[str, ...]) -> None:
    assert find_kept(write(DOCUMENT), lambda: changed(*keys, value="other")) is not None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("source", "sha256"), "the file has other contents"),
        (("detector",), 'detector is "other" and was "yunet"'),
        (("backend",), 'backend is "other" and was "litert"'),
        (("model", "sha256"), 'model.sha256 is "other" and was "cd"'),
        (("versions", "fer-stream"), 'versions.fer-stream is "other" and was "0.1.0"'),
        (("versions", "numpy"), 'versions.numpy is "other" and was not recorded'),
        (("settings", "fps"), 'settings.fps is "other" and was null'),
        (("settings", "outputs", "redact"), 'settings.outputs.redact is "other" and was "none"'),
    ],
)
def test_results_of_another_run_are_an_error_that_names_the_difference(
    write: Callable[..., Path], keys: tuple[str, ...], message: str
) -> None:
    stem = write(DOCUMENT)
    with pytest.raises(OutputExists, match="is the result of another run") as caught:
        find_kept(stem, lambda: changed(*keys, value="other"))
    assert message in str(caught.value)
    assert "--existing replace" in str(caught.value)


def test_interrupted_results_are_an_error(write: Callable[..., Path]) -> None:
    with pytest.raises(OutputExists, match=r"is incomplete \(interrupted\)"):
        find_kept(write(changed("analysed", "stopped", value="interrupted")), lambda: DOCUMENT)


@pytest.mark.parametrize("document", [None, [], {}, changed("version", value=99), {**DOCUMENT, "analysed": None}])
def test_other_files_called_timeline_json_are_an_error(write: Callable[..., Path], document: object) -> None:
    with pytest.raises(OutputExists, match=r"clip\.timeline\.json is not a timeline"):
        find_kept(write(document), lambda: DOCUMENT)


@pytest.mark.parametrize("suffix", ["frames.csv", "timeline.png", "report.html", "annotated.mp4", "annotated.png"])
def test_results_without_a_timeline_are_an_error(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"clip.{suffix}").touch()
    with pytest.raises(OutputExists, match=r"exists, but no clip\.timeline\.json"):
        find_kept(tmp_path / "clip", lambda: DOCUMENT)


def test_broken_links_and_folders_are_not_results(write: Callable[..., Path]) -> None:
    stem = write(DOCUMENT)
    stem.with_name("clip.frames.csv").symlink_to("missing")
    with pytest.raises(OutputExists, match=r"clip\.frames\.csv exists and is not a file"):
        find_kept(stem, lambda: DOCUMENT)


def test_removal_spares_other_files(write: Callable[..., Path]) -> None:
    stem = write(DOCUMENT, "frames.csv", "annotated.mp4", "interrupted.frames.csv", "mp4")
    remove_results(stem, keep=[stem.with_name("clip.frames.csv")])
    assert {path.name for path in stem.parent.iterdir()} == {
        "clip.frames.csv",
        "clip.interrupted.frames.csv",
        "clip.mp4",
    }
    remove_results(stem)
    assert stem.with_name("clip.interrupted.frames.csv").exists()
    remove_interrupted(stem.with_name("clip.interrupted"))
    assert not stem.with_name("clip.interrupted.frames.csv").exists()
    assert not any(path.exists() for path in result_paths(stem))


def test_subtitles_of_another_program_are_neither_results_nor_removed(tmp_path: Path) -> None:
    subtitles = tmp_path / "clip.srt"
    subtitles.touch()
    assert find_kept(tmp_path / "clip", lambda: DOCUMENT) is None
    remove_results(tmp_path / "clip")
    assert subtitles.exists()
    with pytest.raises(OutputExists, match=r"clip\.srt exists"):
        find_kept(tmp_path / "clip", lambda: DOCUMENT, exports=["srt"])
