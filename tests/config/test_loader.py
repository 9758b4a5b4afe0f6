"""Loading settings from YAML, and the errors of invalid files."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from fer_stream.config.live import LiveSettings
from fer_stream.config.loader import load, parse
from fer_stream.config.settings import FileSettings, Settings
from fer_stream.errors import ConfigError

CANARY = "Canary7"


class Inner(Settings):
    text: str | None = None
    size: int = 1
    numbers: tuple[float, ...] = ()
    flag: bool = False


class Outer(Settings):
    token: Annotated[SecretStr, Field(min_length=3)] | None = None
    inner: Inner = Inner()
    named: dict[str, Inner] = Field(default_factory=dict)


def read(text: str, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> Outer:
    return parse(text, Outer, name="my.yaml", folder=folder, environ=environ or {})


def error_of(text: str, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        read(text, folder, environ)
    return str(error.value)


def test_an_empty_file_gives_the_defaults() -> None:
    assert read("# nothing\n") == Outer()


def test_values_are_read() -> None:
    assert read("inner:\n  size: 5\n  numbers: [1, 2.5]\n").inner == Inner(size=5, numbers=(1, 2.5))


def test_an_unknown_key_is_reported_with_line_and_suggestion() -> None:
    assert (
        error_of("inner:\n  text: a\n  sise: 3\n") == "my.yaml:3: unknown setting 'inner.sise'. Did you mean 'size'?"
    )
    assert error_of("named:\n  hall:\n    sise: 3\n") == (
        "my.yaml:3: unknown setting 'named.hall.sise'. Did you mean 'size'?"
    )
    assert error_of("tokn_file: x\n") == "my.yaml:1: unknown setting 'tokn_file'. Did you mean 'token_file'?"


def test_a_dissimilar_key_lists_the_valid_settings() -> None:
    assert error_of("zebra: 1\n") == "my.yaml:1: unknown setting 'zebra'. Valid settings are token, inner, named."


def test_an_invalid_value_is_reported_with_the_expected_type() -> None:
    assert error_of("inner:\n  numbers:\n  - 1\n  - two\n") == (
        "my.yaml:4: inner.numbers.1: input should be a valid number, unable to parse string as a number, "
        "received 'two'."
    )


def test_all_errors_are_reported_in_file_order() -> None:
    faults = error_of("named: 3\ninner: {size: x, flag: 7}\ntoken: ab\n").splitlines()
    assert [fault.partition(": ")[0] for fault in faults] == ["my.yaml:1", "my.yaml:2", "my.yaml:2", "my.yaml:3"]


def test_duplicate_keys_are_rejected_at_any_depth() -> None:
    assert error_of("named:\n  hall: {}\n  hall: {}\n") == (
        "my.yaml:3: named.hall is a duplicate key, first defined on line 2."
    )


@pytest.mark.parametrize("name", ["no", "7", "2001-01-01", "null"])
def test_keys_are_text(name: str) -> None:
    assert read(f"named:\n  {name}: {{size: 2}}\n").named == {name: Inner(size=2)}


def test_an_empty_group_gives_its_defaults() -> None:
    assert read("token:\ninner:\n  # text: hello\nnamed:\n  hall:\n") == Outer(named={"hall": Inner()})


def test_anchors_and_merge_keys() -> None:
    text = "named:\n  a: &a {size: 2, text: x}\n  b: {text: y, <<: *a}\n  c: {<<: [{size: 3}, *a]}\n"
    assert read(text).named == {
        "a": Inner(size=2, text="x"), "b": Inner(size=2, text="y"), "c": Inner(size=3, text="x")
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "a: [", "- 1\n- 2\n", "just words", "\t", "inner: &a [*a]", "&a {inner: *a}", "inner: &a {<<: *a}", "<<: 7",
        "? [a]\n: b\n", "inner: {size: 0b_}", "inner: {flag: !!bool 7}", "inner: {size: !!int ''}", "token: !mine x",
        "inner: {size: !!timestamp x}", "a: b\n---\nc: d\n", "\0", "[" * 5000,
    ],
)  # fmt: skip
def test_invalid_files_are_rejected(text: str) -> None:
    assert error_of(text).startswith("my.yaml")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.yaml", Outer)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, Outer)
    (tmp_path / "latin.yaml").write_bytes(b"inner: {text: caf\xe9}")
    with pytest.raises(ConfigError, match=r"latin\.yaml is not UTF-8 text"):
        load(tmp_path / "latin.yaml", Outer)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${NAME}", "Ada"), ("${NAME:-x}", "Ada"), ("${NONE:-x}", "x"), ("${NONE:-}", ""), ("${EMPTY}", ""),
        ("${EMPTY:-x}", "x"), ("a ${NAME} b ${NAME}", "a Ada b Ada"), ("$${NAME}", "${NAME}"), ("$NAME", "$NAME"),
        ("${NESTED}", "${NAME}"), ("'${COLON}'", "a: b # c"), ("${COLON}", "a: b # c"),
    ],
)  # fmt: skip
def test_values_from_the_environment(text: str, value: str) -> None:
    environ = {"NAME": "Ada", "EMPTY": "", "NESTED": "${NAME}", "COLON": "a: b # c"}
    assert read(f"inner:\n  text: {text}\n", environ=environ).inner.text == value


def test_environment_variables_convert_to_numbers_and_booleans() -> None:
    text = "inner: {size: '${SIZE}', flag: '${FLAG}', numbers: ['${SIZE}']}"
    assert read(text, environ={"SIZE": "7", "FLAG": "true"}).inner == Inner(size=7, flag=True, numbers=(7,))


def test_a_missing_variable_is_rejected() -> None:
    assert error_of("inner:\n  text: a\n  size: ${SIZE}\n") == (
        "my.yaml:3: inner.size needs the environment variable SIZE, which is not set."
    )


def test_a_variable_can_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{CANARY}\n")
    url = "inner: {text: 'rtsp://me:${PW}@cam'}"
    environ = {"PW_FILE": str(tmp_path / "secret")}
    assert read(url, environ=environ).inner.text == f"rtsp://me:{CANARY}@cam"
    assert read(url, environ={**environ, "PW": "own"}).inner.text == "rtsp://me:own@cam"
    assert error_of(url, environ={"PW_FILE": str(tmp_path / "none")}) == (
        "my.yaml:1: inner.text needs the file named by PW_FILE, which cannot be read: No such file or directory."
    )


def test_an_empty_secret_file_name_is_ignored(tmp_path: Path) -> None:
    assert read("token_file: ${NONE:-}\n", tmp_path, {}).token is None


@pytest.mark.parametrize("text", ["${", "${}", "${7}", "${A B}", "${A", "${A:b}"])
def test_invalid_variable_references(text: str) -> None:
    assert error_of(f"inner:\n  text: '{text}'\n", environ={"A": "x"}).startswith(
        "my.yaml:2: inner.text contains ${ without a"
    )


def test_secrets_can_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"  {CANARY}\n")
    token = read("token_file: ${NAME}\n", tmp_path, {"NAME": "token"}).token
    assert token == SecretStr(CANARY)
    (tmp_path / "my.yaml").write_text("token_file: token\n")
    assert load(tmp_path / "my.yaml", Outer).token == token


@pytest.mark.parametrize("text", ["0123", "yes", "1e3", "2001-01-01", "0b_"])
def test_secrets_are_read_literally(text: str) -> None:
    assert read(f"token: {text}\n").token == SecretStr(text)


def test_unusable_secret_files(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "short").write_text("\n")
    assert "my.yaml:1: token_file refers to none, which cannot be read: No such" in error_of(
        "token_file: none", tmp_path
    )
    assert "token_file refers to latin, which is not UTF-8 text" in error_of("token_file: latin", tmp_path)
    assert "token: value should have at least 3" in error_of("token_file: short", tmp_path)
    assert "token_file conflicts with token: give one" in error_of("token: abc\ntoken_file: short", tmp_path)
    assert "unknown setting 'inner.text_file'" in error_of("inner: {text_file: short}", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        f"token: {{{CANARY}: 1}}", f"token: [{CANARY}]", f"token: {CANARY}\n\tb: c", f"token: *{CANARY}",
        f"token: !{CANARY}'\"!x y", f"tokn: &{CANARY}", f"token: %{CANARY}", f"token: @{CANARY}",
        f"token: &{CANARY} a\nfoo: &{CANARY} b", f"token: a: {CANARY}", f"inner: !{CANARY} 3",
        f"token: '{CANARY}", f"inner: {CANARY}", f"named: {{hall: {CANARY}}}", f"{CANARY}", f"- {CANARY}",
        f"tokn: {CANARY}", f"inner: {{tokn: {CANARY}}}", "inner: {size: '${SECRET}'}", "token_file: ${SECRET}",
        "inner: {numbers: '${SECRET}'}", "rtsp://me:Canary7@cam: {}", "named: {rtsp://me:Canary7@cam: {sise: 1}}",
    ],
)  # fmt: skip
def test_no_message_contains_a_secret(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(text, tmp_path, {"SECRET": CANARY})
    assert CANARY not in "".join(traceback.format_exception(error.value))


def bomb(first: str, each: str) -> str:
    """Return ten lines, each of which refers ten times to the one before: 10⁹ values."""
    lines = [f"a: &a {first}"]
    lines += [f"{key}: &{key} {each}".replace("*", ",".join([f"*{chr(ord(key) - 1)}"] * 10)) for key in "bcdefghij"]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text", [bomb("[x]", "[*]"), bomb("{}", "{<<: [*]}"), bomb("{x: 1}", "{<<: [*]}")], ids=["alias", "merge", "keys"]
)
def test_exponential_anchors_are_rejected(text: str) -> None:
    assert error_of(text) == "my.yaml: nested YAML anchors expand to more than 100,000 values."


def test_a_thousand_cameras_are_accepted() -> None:
    shared = "a: &a {size: 2, text: x, flag: yes, numbers: [" + ",".join("1" * 50) + "]}"
    text = "named:\n  " + shared + "\n" + "".join(f"  c{number}: *a\n" for number in range(1000))
    assert len(read(text).named) == 1001


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "9" * 5000, "1" + ":59" * 5000], ids=["ten", "hex", "sixty"])
def test_a_number_too_long_to_print_is_rejected(number: str) -> None:
    assert error_of(f"inner:\n  size: {number}\n") == (
        "my.yaml:2: inner.size cannot be read: put the value in quotes."
    )


LIVE = f"""
sources:
  hall:
    url: rtsp://viewer:{CANARY}@192.0.2.1/stream
    fps: 5
    ignore_zones: [[0, 0, 1, 0.5]]
queue:
  url: rediss://queue.example:6380/0
  username: fer
  password: {CANARY}
  tls: {{ca: ca.pem}}
store:
  url: redis://:{CANARY}@store.example
  password_file: ${{SECRET}}
log: {{level: loud}}
"""


@given(st.integers(0, len(LIVE)), st.integers(0, 2), st.text(st.sampled_from("\n :'*!&{[@-$"), max_size=1))
def test_no_message_contains_a_secret_after_a_typo(position: int, deleted: int, inserted: str) -> None:
    text = LIVE[:position] + inserted + LIVE[position + deleted :]
    try:
        parse(text, LiveSettings, name="live.yaml", environ={"SECRET": CANARY})
    except ConfigError as error:
        message = "".join(traceback.format_exception(error))
        assert not any(CANARY[start : start + 4] in message for start in range(4)), message


@given(st.text(max_size=200))
def test_any_text_gives_settings_or_a_config_error(text: str) -> None:
    for model in (FileSettings, LiveSettings):
        with suppress(ConfigError):
            assert isinstance(parse(text, model, name="my.yaml", environ={}), model)


EXTERNAL = LIVE.replace(CANARY, "${SECRET}").replace("password: ${SECRET}", "password_file: secret")
WORDS = st.sampled_from(
    [
        "${SECRET}",
        "!!int ",
        "!!binary ",
        "<<: ",
        "&a ",
        "*a",
        "? ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "\n",
        ": ",
        "'",
        '"',
        "|\n",
    ]
)


@given(st.data())
def test_external_values_are_never_shown(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = EXTERNAL
    for _ in range(data.draw(st.integers(1, 4))):
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        moved = data.draw(WORDS | st.just(text[start:end]))
        text = text[:start] + moved + text[data.draw(st.sampled_from([start, min(end, start + 9)])) :]
    folder = tmp_path_factory.getbasetemp()
    (folder / "secret").write_text(CANARY)
    try:
        parse(text, LiveSettings, name="live.yaml", folder=folder, environ={"SECRET": CANARY})
    except ConfigError as error:
        message = "".join(traceback.format_exception(error))
        assert CANARY not in message, message
