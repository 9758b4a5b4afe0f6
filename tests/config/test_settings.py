"""The settings themselves: what is their default, what fits, and what a change of them means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from redis.connection import ConnectionPool, SSLConnection

from fer_stream.config import (
    Changes,
    FileSettings,
    LiveSettings,
    QueueSettings,
    Settings,
    SourceSettings,
    StoreSettings,
    WebSettings,
    changes,
)
from fer_stream.config.loader import load, parse
from fer_stream.errors import ConfigError
from fer_stream.log import redact_secrets

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def live(text: str) -> LiveSettings:
    return parse(text, LiveSettings, name="live.yaml", environ={})


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        live(text)
    return str(error.value)


def source(url: str) -> SourceSettings:
    return live(f"sources: {{hall: {{url: {json.dumps(url)}}}}}").sources["hall"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "cameras.example", ""])
def test_the_page_lets_nobody_in_without_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="give a token"):
        WebSettings().at(host, None)
    with pytest.raises(ConfigError, match="openssl rand"):
        live(f"web: {{host: '{host}'}}")
    assert live(f"web: {{host: '{host}', token: {'x' * 16}}}").web.token


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_the_page_may_be_seen_on_this_machine(host: str) -> None:
    assert WebSettings().at(host, 9000).address == f"http://{'[::1]' if host == '::1' else host}:9000"


def test_no_page_needs_no_token() -> None:
    assert live("web: {host: 0.0.0.0, port: null}").web.port is None


def test_a_short_token_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="at least 16 characters") as failure:
        live("web: {token: swordfish}")
    assert "swordfish" not in str(failure.value)


@pytest.mark.parametrize(("written", "meant"), [("on", "on"), ("off", "off"), ("blur", "blur"), ("'on'", "on")])
def test_previews_are_on_and_off_as_yaml_has_it(written: str, meant: str) -> None:
    assert live(f"web: {{previews: {written}}}").web.previews == meant


def test_the_shipped_file_settings_are_the_defaults() -> None:
    assert load(CONFIGS / "file.yaml", FileSettings) == FileSettings()


def test_dotted_values_change_what_they_name_and_nothing_else() -> None:
    settings = FileSettings(fps=3).with_values({"detector.type": "yunet", "fps": None})
    assert (settings.fps, settings.detector.type, settings.tracker) == (3, "yunet", FileSettings().tracker)


def test_a_dotted_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fps: input should be greater than 0, received -2"):
        FileSettings().with_values({"fps": -2})


@pytest.mark.parametrize("fps", [float("inf"), float("nan")])
def test_a_number_is_finite(fps: float) -> None:
    with pytest.raises(ValidationError):
        FileSettings(fps=fps)


def said_and_known(group: Settings) -> list[tuple[str, set[str], set[str]]]:
    """Of a group and all groups in it: its class, the keys that were given, and those there are."""
    inner = [value for _, value in group if isinstance(value, Settings)]
    return [
        (type(group).__name__, group.model_fields_set, set(type(group).model_fields)),
        *(entry for each in inner for entry in said_and_known(each)),
    ]


@pytest.fixture
def shipped() -> LiveSettings:
    return load(CONFIGS / "live.yaml", LiveSettings, environ={"CAMERA_PASSWORD": "abc"})


def test_the_shipped_live_settings_are_the_defaults(shipped: LiveSettings) -> None:
    cameras = {name: SourceSettings(url=camera.url) for name, camera in shipped.sources.items()}
    assert shipped == LiveSettings(sources=cameras)
    assert [camera.url.get_secret_value() for camera in cameras.values()] == [
        "rtsp://viewer:abc@192.0.2.10:554/stream1",
        "rtsp://viewer:abc@192.0.2.11:554/stream1",
    ]


def test_the_shipped_live_settings_show_every_key(shipped: LiveSettings) -> None:
    missing = {(name, key) for name, said, known in said_and_known(shipped) for key in known - said}
    assert missing == {("LiveSettings", "state_dir")}
    assert "# state_dir: " in (CONFIGS / "live.yaml").read_text()
    assert SourceSettings.model_fields.keys() == shipped.sources["front-door"].model_fields_set


def test_the_shipped_json_schema_is_up_to_date() -> None:
    text = json.dumps(LiveSettings.model_json_schema(), indent=2) + "\n"
    assert (CONFIGS / "live.schema.json").read_text() == text, (
        "write it anew: fer-stream schema > configs/live.schema.json"
    )


def test_every_setting_is_explained() -> None:
    schema = LiveSettings.model_json_schema()
    bare = {
        f"{name}.{key}"
        for name, group in schema["$defs"].items()
        for key, field in group["properties"].items()
        if "description" not in field and "$ref" not in field
    }
    assert bare == {"LogSettings.level"}


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("rtsp://me:a%40b@192.0.2.1:554/stream1", "camera"), ("RTSPS://cam", "camera"),
        ("https://cam/x.m3u8", "camera"), ("http://cam/video?user=a", "camera"), ("/dev/video0", "camera"),
        ("0", "camera"), ("talk.mp4", "file"), ("/videos/a:b.mp4", "file"), ("videos/me@home.mkv", "file"),
    ],
)  # fmt: skip
def test_what_a_source_may_be(url: str, kind: str) -> None:
    assert source(url).kind == kind


@pytest.mark.parametrize(
    "url", ["", "rtsp://", "rtps://cam", "file:///a.mp4", "rtsp://me:a b@cam", "me:secret@cam/stream", "a b"]
)
def test_what_a_source_may_not_be(url: str) -> None:
    with pytest.raises(ConfigError, match=r"live\.yaml:1: sources\.hall\.url: (expected|a camera's address)"):
        source(url)


def test_a_webcam_is_a_number() -> None:
    assert live("sources: {hall: {url: 0}}").sources["hall"].url == SecretStr("0")


@pytest.mark.parametrize("name", ["a", "front-door_2", "0", "a" * 63])
def test_names_of_sources(name: str) -> None:
    assert list(live(f"sources: {{'{name}': {{url: /dev/video0}}}}").sources) == [name]


@pytest.mark.parametrize("name", ["", "-a", "Front", "front door", "caf\u00e9", "a" * 64, "a@b", "a/b", "a.b"])
def test_no_names_of_sources(name: str) -> None:
    assert "cannot be called so" in complaint(f"sources: {{'{name}': {{url: /dev/video0}}}}")


@pytest.mark.parametrize("zone", ["[0, 0, 1]", "[0, 0, 1, 2]", "[0.5, 0, 0.5, 1]", "[0, 1, 1, 0]", "7"])
def test_what_is_no_zone(zone: str) -> None:
    assert "sources.hall.ignore.0" in complaint(f"sources: {{hall: {{url: a.mp4, ignore: [{zone}]}}}}")


def test_a_source_takes_from_all_sources_what_it_does_not_say_itself() -> None:
    settings = live(
        "detector: {input_size_px: 640, min_confidence: 0.4}\n"
        "quality: {max_head_rotation: 0.2}\n"
        "sources: {hall: {url: a.mp4, detector: {type: blazeface, min_confidence: 0.5}}, door: {url: b.mp4}}\n"
    )
    hall, door = settings.sources.values()
    assert (hall.detector.type, hall.detector.input_size_px, hall.detector.min_confidence) == ("blazeface", 640, 0.5)
    assert hall.quality == door.quality == settings.quality
    assert door.detector == settings.detector


def test_a_recording_needs_a_folder() -> None:
    text = "sources: {hall: {url: a.mp4, record: true}}\n"
    assert complaint(text) == "live.yaml:1: recording hall needs recordings.dir."
    assert live(text + "recordings: {dir: out}\n").sources["hall"].record


def test_paths_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    settings = live("recordings: {dir: ~/emotions}")
    assert settings.recordings.dir == Path("/home/ada/emotions")
    assert "recordings.dir" in complaint("recordings: {dir: ~nobody-of-that-name/emotions}")


def kwargs(settings: QueueSettings | StoreSettings) -> dict[str, object]:
    """What redis-py makes of the address."""
    assert settings.address is not None
    pool = ConnectionPool.from_url(settings.address.get_secret_value())
    return {"class": pool.connection_class, **pool.connection_kwargs}


@given(st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_any_user_and_password_reach_the_server_and_no_log(user: str, password: str) -> None:
    settings = QueueSettings.model_validate(
        {"url": "redis://queue:6380/2", "username": user or None, "password": password + "Canary7"}
    )
    assert kwargs(settings)["password"] == password + "Canary7"
    assert kwargs(settings).get("username", "") == user
    assert settings.address is not None
    assert "Canary7" not in redact_secrets(settings.address.get_secret_value()) + repr(settings)


def test_the_address_of_a_server_holds_user_password_and_tls_files() -> None:
    queue = live(
        "queue:\n  url: rediss://queue:6380/2?client_name=x\n  username: f/r\n  password: 'p@s:s/w#ord %'\n"
        "  tls: {ca: /etc/my ca.pem, cert: c.pem, key: k.pem}\n"
    ).queue
    expected = {
        "class": SSLConnection, "host": "queue", "port": 6380, "db": 2, "client_name": "x",
        "username": "f/r", "password": "p@s:s/w#ord %",
        "ssl_ca_certs": "/etc/my ca.pem", "ssl_certfile": "c.pem", "ssl_keyfile": "k.pem",
    }  # fmt: skip
    assert kwargs(queue).items() >= expected.items()


def test_an_address_that_holds_everything_stays_as_it_is() -> None:
    for url in ("redis://me:a%40b@queue:6379/0", "unix:///run/valkey.sock?db=1", "redis://queue"):
        address = live(f"store: {{url: '{url}'}}").store.address
        assert address == SecretStr(url)
    assert LiveSettings().queue.address is None


def test_a_password_without_a_user_goes_to_a_socket_too() -> None:
    store = live("store: {url: unix:///run/valkey.sock, password: a@b}").store
    assert kwargs(store).items() >= {"path": "/run/valkey.sock", "password": "a@b"}.items()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("queue: {url: queue:6379}", "queue.url: expected redis://"),
        ("queue: {url: 'redis://:pa#ss@queue'}", "queue.url: expected redis://"),
        ("queue: {url: 'redis://:1/b@queue'}", "queue.url: expected redis://"),
        ("queue: {url: 'redis://[queue'}", "queue.url: expected redis://"),
        ("queue: {url: 'unix://'}", "queue.url: expected redis://"),
        ("queue: {password: abc}", "queue: username, password and tls need a url"),
        ("queue: {url: redis://queue, username: me}", "queue: username needs a password"),
        ("queue: {url: 'redis://a:b@queue', password: abc}", "queue: give user and password in url, or"),
        ("queue: {url: redis://queue, tls: {ca: ca.pem}}", "queue: tls needs a rediss:// url"),
        ("queue: {url: rediss://queue, tls: {cert: ca.pem}}", "queue.tls: cert and key go together"),
        ("queue: {cluster: true}", "queue: cluster needs the url of a node"),
        ("store: {cluster: true}", "store.cluster is no setting"),
    ],
)
def test_what_no_server_can_be(text: str, said: str) -> None:
    assert complaint(text).startswith(f"live.yaml:1: {said}")


def test_nothing_that_is_shown_of_settings_holds_a_secret() -> None:
    settings = live(
        "sources: {hall: {url: 'rtsp://me:Canary7@cam'}}\n"
        "queue: {url: 'redis://:Canary7@queue'}\nstore: {url: redis://store, password: Canary7}\n"
    )
    for shown in (str(settings), repr(settings), settings.model_dump_json(), str(settings.store.address)):
        assert "Canary7" not in shown


BEFORE = """
sources:
  a: {url: a.mp4}
  b: {url: b.mp4, detector: {type: yunet}}
  c: {url: c.mp4}
"""


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (BEFORE, Changes()),
        (BEFORE + "  d: {url: d.mp4}\n", Changes(added=("d",))),
        (BEFORE.replace("b: {", "bb: {"), Changes(added=("bb",), removed=("b",))),
        (BEFORE.replace("a.mp4", "z.mp4"), Changes(changed=("a",))),
        (BEFORE.replace("c.mp4", "c.mp4, fps: 5"), Changes(changed=("c",))),
        (BEFORE + "detector: {type: yunet}\n", Changes(changed=("a", "c"))),
        (BEFORE + "detector: {type: auto}\nlog: {level: info}\n", Changes()),
        (BEFORE + "quality: {max_head_rotation: 0.1}\n", Changes(changed=("a", "b", "c"))),
        (BEFORE + "log: {level: debug}\nqueue: {shards: 2}\n", Changes(restart=("queue", "log"))),
        ("", Changes(removed=("a", "b", "c"))),
    ],
)
def test_changes(after: str, expected: Changes) -> None:
    assert changes(live(BEFORE), live(after)) == expected


def test_a_changed_password_is_a_change() -> None:
    before, after = (live(f"sources: {{a: {{url: 'rtsp://me:{word}@cam'}}}}") for word in ("one", "two"))
    assert changes(before, after) == Changes(changed=("a",))
