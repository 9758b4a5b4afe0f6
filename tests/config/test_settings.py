"""Defaults, validation and changes of settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from redis.connection import ConnectionPool, SSLConnection

from fer_stream.config.live import LiveSettings, SourceSettings
from fer_stream.config.loader import load, parse
from fer_stream.config.reload import Changes, changes
from fer_stream.config.servers import QueueSettings, StoreSettings, WebSettings
from fer_stream.config.settings import FileSettings, Settings
from fer_stream.errors import ConfigError
from fer_stream.log import redact_secrets

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def live(text: str) -> LiveSettings:
    return parse(text, LiveSettings, name="live.yaml", environ={})


def error_of(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        live(text)
    return str(error.value)


def source(url: str) -> SourceSettings:
    return live(f"sources: {{hall: {{url: {json.dumps(url)}}}}}").sources["hall"]


def test_a_shard_has_at_most_64_sources(tmp_path: Path) -> None:
    def sources(number: int, shards: int) -> str:
        lines = [f"  cam{index}: {{url: rtsp://192.0.2.1/{index}}}" for index in range(number)]
        return "\n".join([f"queue: {{shards: {shards}}}", "sources:", *lines])

    assert len(live(sources(64, 1)).sources) == 64
    message = error_of(sources(65, 1))
    assert "65 of 65 sources are in one of 1 shards" in message
    assert "at most 64: set queue.shards to 2 or more" in message
    # The names are not divided evenly.
    message = error_of(sources(600, 8))
    assert live(sources(600, int(message.partition("set queue.shards to ")[2].split()[0]))).sources


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "cameras.example", ""])
def test_a_public_page_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="needs a token"):
        WebSettings().at(host, None)
    with pytest.raises(ConfigError, match="openssl rand"):
        live(f"web: {{host: '{host}'}}")
    assert live(f"web: {{host: '{host}', token: {'x' * 16}}}").web.token


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_page_needs_no_token(host: str) -> None:
    assert WebSettings().at(host, 9000).address == f"http://{'[::1]' if host == '::1' else host}:9000"


def test_a_disabled_page_needs_no_token() -> None:
    assert live("web: {host: 0.0.0.0, port: null}").web.port is None


def test_a_short_token_is_rejected_without_showing_it() -> None:
    with pytest.raises(ConfigError, match="at least 16 characters") as failure:
        live("web: {token: swordfish}")
    assert "swordfish" not in str(failure.value)


@pytest.mark.parametrize(("text", "value"), [("on", "on"), ("off", "off"), ("blur", "blur"), ("'on'", "on")])
def test_previews_accept_yaml_booleans(text: str, value: str) -> None:
    assert live(f"web: {{previews: {text}}}").web.previews == value


def test_file_yaml_contains_the_defaults() -> None:
    assert load(CONFIGS / "file.yaml", FileSettings) == FileSettings()


def test_with_values_changes_only_the_given_keys() -> None:
    settings = FileSettings(fps=3).with_values({"detector.type": "yunet", "fps": None})
    assert (settings.fps, settings.detector.type, settings.tracker) == (3, "yunet", FileSettings().tracker)


def test_with_values_rejects_an_invalid_value() -> None:
    with pytest.raises(ConfigError, match=r"fps: input should be greater than 0, received -2"):
        FileSettings().with_values({"fps": -2})


@pytest.mark.parametrize("fps", [float("inf"), float("nan")])
def test_numbers_must_be_finite(fps: float) -> None:
    with pytest.raises(ValidationError):
        FileSettings(fps=fps)


def given_and_valid_keys(group: Settings) -> list[tuple[str, set[str], set[str]]]:
    """Return the class, the given keys and the valid keys of a group and of all groups inside it."""
    inner = [value for _, value in group if isinstance(value, Settings)]
    return [
        (type(group).__name__, group.model_fields_set, set(type(group).model_fields)),
        *(entry for each in inner for entry in given_and_valid_keys(each)),
    ]


@pytest.fixture
def shipped() -> LiveSettings:
    return load(CONFIGS / "live.yaml", LiveSettings, environ={"CAMERA_PASSWORD": "abc"})


def test_live_yaml_contains_the_defaults(shipped: LiveSettings) -> None:
    hosts = {"front-door": "192.0.2.10", "back-yard": "192.0.2.11"}
    cameras = {
        name: {"url": f"rtsp://{host}:554/stream1", "username": "viewer", "password": "abc"}
        for name, host in hosts.items()
    }
    assert shipped == LiveSettings.model_validate({"sources": cameras})


def test_live_yaml_lists_every_key(shipped: LiveSettings) -> None:
    missing = {(name, key) for name, given, valid in given_and_valid_keys(shipped) for key in valid - given}
    assert missing == {("LiveSettings", "state_dir")}
    assert "# state_dir: " in (CONFIGS / "live.yaml").read_text()
    assert SourceSettings.model_fields.keys() == shipped.sources["front-door"].model_fields_set


def test_the_shipped_json_schema_is_current() -> None:
    text = json.dumps(LiveSettings.model_json_schema(), indent=2) + "\n"
    assert (CONFIGS / "live.schema.json").read_text() == text, (
        "regenerate it: fer-stream schema > configs/live.schema.json"
    )


def test_every_setting_has_a_description() -> None:
    schema = LiveSettings.model_json_schema()
    undocumented = {
        f"{name}.{key}"
        for name, group in schema["$defs"].items()
        for key, field in group["properties"].items()
        if "description" not in field and "$ref" not in field
    }
    assert undocumented == {"LogSettings.level"}


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("rtsp://me:a%40b@192.0.2.1:554/stream1", "camera"), ("RTSPS://cam", "camera"),
        ("https://cam/x.m3u8", "camera"), ("http://cam/video?user=a", "camera"), ("/dev/video0", "camera"),
        ("rtmp://cam/live", "camera"), ("udp://@239.0.0.1:5000", "camera"), ("srt://cam:9000?latency=200", "camera"),
        ("rtsp://cam.lan:554/live@1", "camera"), ("http://cam/snap?user=me@home", "camera"),
        ("0", "camera"), ("talk.mp4", "file"), ("/videos/a:b.mp4", "file"), ("videos/me@home.mkv", "file"),
    ],
)  # fmt: skip
def test_valid_source_urls(url: str, kind: str) -> None:
    assert source(url).kind == kind


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("", "expected a URL that starts with rtsp://"), ("file:///a.mp4", "expected a URL that starts with rtsp://"),
        ("rtsp://me:a b@cam", "without white space"), ("a b", "without white space"),
        ("rtps://cam", "did you mean rtsps://?"), ("rstp://cam", "did you mean rtsp://?"),
        ("rtsp:/cam", "needs a colon and two slashes: rtsp://"), ("rtsp:cam", "needs a colon and two slashes: rtsp://"),
        ("127.0.0.1:554/x", "did you mean rtsp://127.0.0.1:554/…?"), ("cam.lan:8554", "did you mean rtsp://cam.lan:8554?"),
        ("192.0.2.1", "did you mean rtsp://192.0.2.1?"), ("192.0.2.1/user=a_password=b", "rtsp://192.0.2.1/…?"),
        ("cam:8080/video", "did you mean http://cam:8080/…?"), ("[2001:db8::1]:554", "rtsp://[2001:db8::1]:554?"),
        ("me:secret@cam/stream", "must start with its scheme"), ("me:554@cam/stream", "must start with its scheme"),
        ("rtsp://", "has no host"), ("rtsp://cam:0/", "from 1 to 65535"), ("http://cam:port/", "from 1 to 65535"),
        ("http://cam:/", "port of the URL is missing"), ("udp://239.0.0.1", "port of the URL is missing"),
        ("rtsp://me:a@b@cam/x", "unescaped @: give user and password in `username` and `password`"),
        ("rtsp://me:a/b@cam/x", "give user and password in `username` and `password`"),
        ("rtsp://me:1/b@cam/x", "give user and password in `username` and `password`"),
        ("rtsp://me:a?b@cam/x", "give user and password in `username` and `password`"),
        ("rtsp://me:100%@cam/x", "unescaped %: give user and password in `username` and `password`"),
    ],
)  # fmt: skip
def test_invalid_source_urls(url: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        source(url)
    assert str(caught.value).startswith("live.yaml:1: sources.hall.url: ")
    assert cure in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "cure"),
    [
        ("url: rtsp://me:a@cam, username: me, password: b", "not in both"),
        ("url: rtsp://me@cam, username: me", "not in both"),
        ("url: rtsp://cam, password: b", "password needs a username"),
        ("url: a.mp4, username: me", "need a URL of one of the schemes rtsp"),
        ("url: 0, username: me, password: b", "need a URL of one of the schemes rtsp"),
        ("url: 'udp://cam:5000', password: b", "need a URL of one of the schemes rtsp"),
        ("url: rtsp://cam, tls: {verify: false}", "tls needs an rtsps:// or https:// url"),
        ("url: rtsps://cam, tls: {verify: false, ca: a.pem}", "tls.ca has no effect"),
    ],
)  # fmt: skip
def test_invalid_logins(keys: str, cure: str) -> None:
    assert cure in error_of(f"sources: {{hall: {{{keys}}}}}")


def test_a_camera_password_can_be_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss/w%rd\n")
    path = tmp_path / "live.yaml"
    path.write_text("sources: {hall: {url: rtsp://cam, username: me, password_file: password}}")
    hall = load(path, LiveSettings).sources["hall"]
    assert hall.password == SecretStr("p@ss/w%rd")
    assert "p@ss" not in f"{hall!r} {hall}"


@pytest.mark.parametrize("url", ["missing.mp4", ".", "talk.mp4"])
def test_missing_files_are_errors_when_files_are_checked(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.mp4").touch()
    path = tmp_path / "live.yaml"
    path.write_text(f"sources: {{hall: {{url: {url}}}, door: {{url: rtsps://cam, tls: {{ca: missing.pem}}}}}}")
    assert load(path, LiveSettings).sources["hall"].kind == "file"
    with pytest.raises(ConfigError) as caught:
        load(path, LiveSettings, check_files=True)
    found = str(caught.value)
    assert "sources.door.tls.ca: the file does not exist" in found
    assert ("sources.hall.url: the file" in found) == (url != "talk.mp4")


def test_a_webcam_number_is_a_source() -> None:
    assert live("sources: {hall: {url: 0}}").sources["hall"].url == SecretStr("0")


@pytest.mark.parametrize("name", ["a", "front-door_2", "0", "a" * 63])
def test_valid_source_names(name: str) -> None:
    assert list(live(f"sources: {{'{name}': {{url: /dev/video0}}}}").sources) == [name]


@pytest.mark.parametrize("name", ["", "-a", "Front", "front door", "caf\u00e9", "a" * 64, "a@b", "a/b", "a.b"])
def test_invalid_source_names(name: str) -> None:
    assert "invalid name" in error_of(f"sources: {{'{name}': {{url: /dev/video0}}}}")


@pytest.mark.parametrize("zone", ["[0, 0, 1]", "[0, 0, 1, 2]", "[0.5, 0, 0.5, 1]", "[0, 1, 1, 0]", "7"])
def test_invalid_zones(zone: str) -> None:
    assert "sources.hall.ignore_zones.0" in error_of(f"sources: {{hall: {{url: a.mp4, ignore_zones: [{zone}]}}}}")


def test_a_source_inherits_groups_it_does_not_override() -> None:
    settings = live(
        "detector: {input_size_px: 640, min_confidence: 0.4}\n"
        "quality: {max_head_rotation: 0.2}\n"
        "sources: {hall: {url: a.mp4, detector: {type: blazeface, min_confidence: 0.5}}, door: {url: b.mp4}}\n"
    )
    hall, door = settings.sources.values()
    assert (hall.detector.type, hall.detector.input_size_px, hall.detector.min_confidence) == ("blazeface", 640, 0.5)
    assert hall.quality == door.quality == settings.quality
    assert door.detector == settings.detector


def test_a_recording_needs_a_directory() -> None:
    text = "sources: {hall: {url: a.mp4, record: true}}\n"
    assert error_of(text) == "live.yaml:1: recording hall needs recordings.dir."
    assert live(text + "recordings: {dir: out}\n").sources["hall"].record


@pytest.mark.parametrize("text", ["model: {path: ''}", "detector: {weights: '${UNSET_PATH}'}"])
def test_an_empty_path_is_not_the_current_folder(text: str) -> None:
    with pytest.raises(ConfigError, match="must not be empty"):
        parse(text, FileSettings, name="my.yaml", environ={"UNSET_PATH": ""})


def test_paths_expand_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    settings = live("recordings: {dir: ~/emotions}")
    assert settings.recordings.dir == Path("/home/ada/emotions")
    assert "recordings.dir" in error_of("recordings: {dir: ~nobody-of-that-name/emotions}")


def kwargs(settings: QueueSettings | StoreSettings) -> dict[str, object]:
    """Return the connection arguments that redis-py derives from the address."""
    assert settings.address is not None
    pool = ConnectionPool.from_url(settings.address.get_secret_value())
    return {"class": pool.connection_class, **pool.connection_kwargs}


@given(st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_credentials_reach_the_server_but_no_log(user: str, password: str) -> None:
    settings = QueueSettings.model_validate(
        {"url": "redis://queue:6380/2", "username": user or None, "password": password + "Canary7"}
    )
    assert kwargs(settings)["password"] == password + "Canary7"
    assert kwargs(settings).get("username", "") == user
    assert settings.address is not None
    assert "Canary7" not in redact_secrets(settings.address.get_secret_value()) + repr(settings)


def test_the_address_contains_credentials_and_tls_files() -> None:
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


def test_a_complete_url_is_unchanged() -> None:
    for url in ("redis://me:a%40b@queue:6379/0", "unix:///run/valkey.sock?db=1", "redis://queue"):
        address = live(f"store: {{url: '{url}'}}").store.address
        assert address == SecretStr(url)
    assert LiveSettings().queue.address is None


def test_a_unix_socket_accepts_a_password_without_a_user() -> None:
    store = live("store: {url: unix:///run/valkey.sock, password: a@b}").store
    assert kwargs(store).items() >= {"path": "/run/valkey.sock", "password": "a@b"}.items()


@pytest.mark.parametrize(
    ("text", "message"),
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
        ("queue: {url: rediss://queue, tls: {cert: ca.pem}}", "queue.tls: cert and key must be given together"),
        ("queue: {cluster: true}", "queue: cluster needs the url of a node"),
        ("store: {cluster: true}", "unknown setting 'store.cluster'"),
    ],
)
def test_invalid_servers(text: str, message: str) -> None:
    assert error_of(text).startswith(f"live.yaml:1: {message}")


def test_representations_contain_no_secret() -> None:
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


def test_a_new_password_changes_the_source() -> None:
    before, after = (live(f"sources: {{a: {{url: 'rtsp://me:{word}@cam'}}}}") for word in ("one", "two"))
    assert changes(before, after) == Changes(changed=("a",))
