"""YAML → settings, and what is said of a wrong file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.config import FileSettings, load_settings, parse_settings
from fer_stream.errors import ConfigError


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse_settings(text, name="my.yaml")
    return str(error.value)


def test_an_empty_file_is_the_defaults() -> None:
    assert parse_settings("# nothing\n", name="my.yaml") == FileSettings()


def test_values_are_read() -> None:
    settings = parse_settings("fps: 5\ndetector:\n  kind: blazeface\n", name="my.yaml")
    assert settings.fps == 5
    assert settings.detector.kind == "blazeface"


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_name() -> None:
    assert complaint("fps: 5\ndetector:\n  long_side: 320\n") == (
        "my.yaml:3: detector.long_side is no setting; did you mean long_side_px?"
    )


def test_a_key_that_is_like_no_other_is_told_what_there_is() -> None:
    assert "known here are fps, detector" in complaint("zebra: 1\n")


def test_a_wrong_value_is_told_what_was_expected() -> None:
    assert complaint("timeline:\n  smoothing_s: -1\n") == (
        "my.yaml:2: timeline.smoothing_s: input should be greater than 0, received -1."
    )


def test_every_fault_is_told_at_once() -> None:
    assert len(complaint("fps: no\nmodel: {backend: torch}\n").splitlines()) == 2


def test_a_key_given_twice_is_a_fault() -> None:
    assert (
        complaint("fps: 5\ndetector:\n  kind: auto\nfps: 6\n") == "my.yaml:4: fps stands here twice, first in line 1."
    )


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "just words", "\t", "fps: &a [*a]"])
def test_what_is_no_settings_file_is_refused(text: str) -> None:
    assert "my.yaml" in complaint(text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(tmp_path / "none.yaml")


def test_the_shipped_settings_are_the_defaults() -> None:
    shipped = Path(__file__).resolve().parent.parent / "configs" / "file.yaml"
    assert load_settings(shipped) == FileSettings()


def test_dotted_values_change_what_they_name_and_nothing_else() -> None:
    settings = FileSettings(fps=3).with_values({"detector.kind": "yunet", "fps": None})
    assert (settings.fps, settings.detector.kind, settings.tracker) == (3, "yunet", FileSettings().tracker)


def test_a_dotted_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fps: input should be greater than 0, received -2"):
        FileSettings().with_values({"fps": -2})


@given(st.text(max_size=200))
def test_any_text_gives_settings_or_a_config_error(text: str) -> None:
    try:
        assert isinstance(parse_settings(text, name="my.yaml"), FileSettings)
    except ConfigError as error:
        assert str(error)
