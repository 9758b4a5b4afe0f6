"""YAML → settings, and what is said of a wrong file."""

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

from fer_stream.config import FileSettings, LiveSettings, Settings
from fer_stream.config.loader import load, parse
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


def complaint(text: str, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        read(text, folder, environ)
    return str(error.value)


def test_an_empty_file_is_the_defaults() -> None:
    assert read("# nothing\n") == Outer()


def test_values_are_read() -> None:
    assert read("inner:\n  size: 5\n  numbers: [1, 2.5]\n").inner == Inner(size=5, numbers=(1, 2.5))


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_name() -> None:
    assert complaint("inner:\n  text: a\n  sise: 3\n") == "my.yaml:3: inner.sise is no setting; did you mean size?"
    assert complaint("named:\n  hall:\n    sise: 3\n") == (
        "my.yaml:3: named.hall.sise is no setting; did you mean size?"
    )
    assert complaint("tokn_file: x\n") == "my.yaml:1: tokn_file is no setting; did you mean token_file?"


def test_a_key_that_is_like_no_other_is_told_what_there_is() -> None:
    assert complaint("zebra: 1\n") == "my.yaml:1: zebra is no setting; known here are token, inner, named."


def test_a_wrong_value_is_told_what_was_expected() -> None:
    assert complaint("inner:\n  numbers:\n  - 1\n  - two\n") == (
        "my.yaml:4: inner.numbers.1: input should be a valid number, unable to parse string as a number, "
        "received 'two'."
    )


def test_every_fault_is_told_at_once_in_the_order_of_the_file() -> None:
    faults = complaint("named: 3\ninner: {size: x, flag: 7}\ntoken: ab\n").splitlines()
    assert [fault.partition(": ")[0] for fault in faults] == ["my.yaml:1", "my.yaml:2", "my.yaml:2", "my.yaml:3"]


def test_a_key_given_twice_is_a_fault_at_any_depth() -> None:
    assert complaint("named:\n  hall: {}\n  hall: {}\n") == (
        "my.yaml:3: named.hall stands here twice, first in line 2."
    )


@pytest.mark.parametrize("name", ["no", "7", "2001-01-01", "null"])
def test_a_key_is_the_text_that_stands_there(name: str) -> None:
    assert read(f"named:\n  {name}: {{size: 2}}\n").named == {name: Inner(size=2)}


def test_a_group_without_keys_is_its_defaults() -> None:
    assert read("token:\ninner:\n  # text: hello\nnamed:\n  hall:\n") == Outer(named={"hall": Inner()})


def test_anchors_and_merges_share_what_they_name() -> None:
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
def test_what_is_no_settings_file_is_refused(text: str) -> None:
    assert complaint(text).startswith("my.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.yaml", Outer)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, Outer)
    (tmp_path / "latin.yaml").write_bytes(b"inner: {text: caf\xe9}")
    with pytest.raises(ConfigError, match=r"latin\.yaml is no UTF-8 text"):
        load(tmp_path / "latin.yaml", Outer)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${NAME}", "Ada"), ("${NAME:-x}", "Ada"), ("${NONE:-x}", "x"), ("${NONE:-}", ""), ("${EMPTY}", ""),
        ("${EMPTY:-x}", "x"), ("a ${NAME} b ${NAME}", "a Ada b Ada"), ("$${NAME}", "${NAME}"), ("$NAME", "$NAME"),
        ("${NESTED}", "${NAME}"), ("'${COLON}'", "a: b # c"), ("${COLON}", "a: b # c"),
    ],
)  # fmt: skip
def test_values_from_the_environment(written: str, value: str) -> None:
    environ = {"NAME": "Ada", "EMPTY": "", "NESTED": "${NAME}", "COLON": "a: b # c"}
    assert read(f"inner:\n  text: {written}\n", environ=environ).inner.text == value


def test_numbers_and_switches_may_come_from_the_environment_too() -> None:
    text = "inner: {size: '${SIZE}', flag: '${FLAG}', numbers: ['${SIZE}']}"
    assert read(text, environ={"SIZE": "7", "FLAG": "true"}).inner == Inner(size=7, flag=True, numbers=(7,))


def test_a_variable_that_is_not_set() -> None:
    assert complaint("inner:\n  text: a\n  size: ${SIZE}\n") == (
        "my.yaml:3: inner.size needs the environment variable SIZE, which is not set."
    )


def test_a_variable_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{CANARY}\n")
    url = "inner: {text: 'rtsp://me:${PW}@cam'}"
    environ = {"PW_FILE": str(tmp_path / "secret")}
    assert read(url, environ=environ).inner.text == f"rtsp://me:{CANARY}@cam"
    assert read(url, environ={**environ, "PW": "own"}).inner.text == "rtsp://me:own@cam"
    assert complaint(url, environ={"PW_FILE": str(tmp_path / "none")}) == (
        "my.yaml:1: inner.text needs the file that PW_FILE names, which cannot be read: No such file or directory."
    )


def test_an_empty_name_is_no_secret_file(tmp_path: Path) -> None:
    assert read("token_file: ${NONE:-}\n", tmp_path, {}).token is None


@pytest.mark.parametrize("written", ["${", "${}", "${7}", "${A B}", "${A", "${A:b}"])
def test_a_variable_without_a_name(written: str) -> None:
    assert complaint(f"inner:\n  text: '{written}'\n", environ={"A": "x"}).startswith(
        "my.yaml:2: inner.text has a ${ without a"
    )


def test_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"  {CANARY}\n")
    token = read("token_file: ${NAME}\n", tmp_path, {"NAME": "token"}).token
    assert token == SecretStr(CANARY)
    (tmp_path / "my.yaml").write_text("token_file: token\n")
    assert load(tmp_path / "my.yaml", Outer).token == token


@pytest.mark.parametrize("text", ["0123", "yes", "1e3", "2001-01-01", "0b_"])
def test_secrets_are_read_as_they_are_written(text: str) -> None:
    assert read(f"token: {text}\n").token == SecretStr(text)


def test_secret_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "short").write_text("\n")
    assert "my.yaml:1: token_file names none, which cannot be read: No such" in complaint(
        "token_file: none", tmp_path
    )
    assert "token_file names latin, which is no UTF-8 text" in complaint("token_file: latin", tmp_path)
    assert "token: value should have at least 3" in complaint("token_file: short", tmp_path)
    assert "token_file stands beside token: give one" in complaint("token: abc\ntoken_file: short", tmp_path)
    assert "inner.text_file is no setting" in complaint("inner: {text_file: short}", tmp_path)


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
def test_no_complaint_holds_a_secret(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(text, tmp_path, {"SECRET": CANARY})
    assert CANARY not in "".join(traceback.format_exception(error.value))


def bomb(first: str, each: str) -> str:
    """Ten lines, each of which names the one before ten times: 10⁹ values, if nobody counts."""
    lines = [f"a: &a {first}"]
    lines += [f"{key}: &{key} {each}".replace("*", ",".join([f"*{chr(ord(key) - 1)}"] * 10)) for key in "bcdefghij"]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text", [bomb("[x]", "[*]"), bomb("{}", "{<<: [*]}"), bomb("{x: 1}", "{<<: [*]}")], ids=["alias", "merge", "keys"]
)
def test_a_few_lines_that_stand_for_billions_of_values_are_refused(text: str) -> None:
    assert complaint(text) == "my.yaml has more than 100,000 values: do not put anchors into anchors."


def test_as_many_values_as_a_thousand_cameras_need_are_read() -> None:
    shared = "a: &a {size: 2, text: x, flag: yes, numbers: [" + ",".join("1" * 50) + "]}"
    text = "named:\n  " + shared + "\n" + "".join(f"  c{number}: *a\n" for number in range(1000))
    assert len(read(text).named) == 1001


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "9" * 5000, "1" + ":59" * 5000], ids=["ten", "hex", "sixty"])
def test_a_number_too_long_to_be_shown_is_a_fault_of_its_own(number: str) -> None:
    assert complaint(f"inner:\n  size: {number}\n") == (
        "my.yaml:2: inner.size cannot be read: put the value in quotes."
    )


LIVE = f"""
sources:
  hall:
    url: rtsp://viewer:{CANARY}@192.0.2.1/stream
    fps: 5
    ignore: [[0, 0, 1, 0.5]]
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
def test_no_complaint_holds_a_secret_wherever_a_slip_of_the_pen_is(at: int, left_out: int, put_in: str) -> None:
    text = LIVE[:at] + put_in + LIVE[at + left_out :]
    try:
        parse(text, LiveSettings, name="live.yaml", environ={"SECRET": CANARY})
    except ConfigError as error:
        said = "".join(traceback.format_exception(error))
        assert not any(CANARY[start : start + 4] in said for start in range(4)), said


@given(st.text(max_size=200))
def test_any_text_gives_settings_or_a_config_error(text: str) -> None:
    for model in (FileSettings, LiveSettings):
        with suppress(ConfigError):
            assert isinstance(parse(text, model, name="my.yaml", environ={}), model)


FROM_ELSEWHERE = LIVE.replace(CANARY, "${SECRET}").replace("password: ${SECRET}", "password_file: secret")
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
def test_what_comes_from_elsewhere_is_never_shown(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = FROM_ELSEWHERE
    for _ in range(data.draw(st.integers(1, 4))):
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        moved = data.draw(WORDS | st.just(text[start:end]))
        text = text[:start] + moved + text[data.draw(st.sampled_from([start, min(end, start + 9)])) :]
    folder = tmp_path_factory.getbasetemp()
    (folder / "secret").write_text(CANARY)
    try:
        parse(text, LiveSettings, name="live.yaml", folder=folder, environ={"SECRET": CANARY})
    except ConfigError as error:
        said = "".join(traceback.format_exception(error))
        assert CANARY not in said, said
