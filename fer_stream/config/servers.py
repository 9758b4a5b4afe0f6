"""Settings of the servers of the live service: queue and store (Redis), web page and HTTP API."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlencode, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from fer_stream.config.errors import format_errors
from fer_stream.config.settings import LocalPath, Positive, Settings
from fer_stream.errors import ConfigError

_SCHEMES = ("redis", "rediss", "unix")


def _check_url(url: SecretStr) -> SecretStr:
    if not _is_complete(url.get_secret_value()):
        raise ValueError(
            "expected redis://host:6379/0, rediss:// for TLS, or unix:///path/of.sock, "
            "with a percent-encoded password"
        )
    return url


def _is_complete(url: str) -> bool:
    """Return whether scheme and target are present, and no part of a password was parsed as something else.

    White space would end the password for the function that removes passwords from logs.
    """
    try:
        parts = urlsplit("" if re.search(r"\s", url) else url)
        target = parts.path if parts.scheme == "unix" else parts.hostname
        return parts.scheme in _SCHEMES and bool(target) and not parts.fragment and parts.port != 0
    except ValueError:
        return False


RedisUrl = Annotated[SecretStr, AfterValidator(_check_url)]


class TlsSettings(Settings):
    """PEM files of a TLS connection. Default: the system's certificate authorities, no client certificate."""

    ca: LocalPath | None = None
    """Certificate authority that signed the server's certificate."""
    cert: LocalPath | None = None
    """Client certificate."""
    key: LocalPath | None = None
    """Private key of `cert`."""

    def options(self) -> dict[str, str]:
        """Return the files that are set, under redis-py's names for the query of a URL."""
        files = {"ssl_ca_certs": self.ca, "ssl_certfile": self.cert, "ssl_keyfile": self.key}
        return {name: str(path) for name, path in files.items() if path}

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if bool(self.cert) != bool(self.key):
            raise ValueError("cert and key must be given together")
        return self


class ServerSettings(Settings):
    """One Redis or Valkey server."""

    url: RedisUrl | None = None
    """redis://host:6379/0, rediss:// for TLS, or unix:///path/of.sock. Default: an embedded server in `state_dir`.
    Treated as a secret, because it may contain a password."""
    username: str | None = None
    """ACL user. Default: `default`."""
    password: Annotated[SecretStr, Field(min_length=1)] | None = None
    """Password, not percent-encoded."""
    tls: TlsSettings = TlsSettings()
    max_memory_mb: Annotated[int, Field(ge=16)] = 512
    """Memory limit of the embedded server. Crops of 1,000 cameras at 5 fps with two faces take 50 MB."""

    @property
    def address(self) -> SecretStr | None:
        """The URL including user, password and TLS files; None for the embedded server."""
        if self.url is None:
            return None
        parts = urlsplit(self.url.get_secret_value())
        user = ""
        if self.password:
            user = f"{quote(self.username or '', safe='')}:{quote(self.password.get_secret_value(), safe='')}@"
        query = "&".join(filter(None, (parts.query, urlencode(self.tls.options()))))
        return SecretStr(f"{parts.scheme}://{user}{parts.netloc}{parts.path}" + (f"?{query}" if query else ""))

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        parts = urlsplit(self.url.get_secret_value() if self.url else "")
        if not self.url and (self.username or self.password or self.tls.options()):
            raise ValueError("username, password and tls need a url: the embedded server has none of them")
        if self.username and not self.password:
            raise ValueError("username needs a password")
        if self.password and "@" in parts.netloc:
            raise ValueError("give user and password in url, or in username and password, not in both")
        if self.tls.options() and parts.scheme != "rediss":
            raise ValueError("tls needs a rediss:// url")
        return self


class RedeliverySettings(Settings):
    """Redelivery of faces that a worker received and did not acknowledge."""

    visibility_timeout_s: Positive = 10.0
    """Time until a face is delivered to another worker. Must exceed the slowest batch, otherwise faces are classified
    twice."""
    max_deliveries: Annotated[int, Field(ge=1)] = 3
    """Maximum number of deliveries. A face beyond it is dead-lettered, because it may be what crashes the workers."""


MAX_SOURCES_PER_SHARD = 64
"""Four workers that block on 1,000 keys use half a core (docs/how-to/scaling.md)."""


class QueueSettings(ServerSettings):
    """Queue of face crops. The server needs no persistence: crops never reach a disk."""

    cluster: bool = False
    """Whether `url` is a node of a Redis Cluster."""
    shards: Annotated[int, Field(ge=1)] = 1
    """Number of shards that the sources are divided into, at most 64 sources each. Must be equal in all processes."""
    redelivery: RedeliverySettings = RedeliverySettings()

    def excess(self, sources: Collection[str]) -> str | None:
        """Return an error message if a shard has more than 64 of `sources`, or None."""
        shards = self.shards
        while _largest_shard(sources, shards) > MAX_SOURCES_PER_SHARD:
            shards += 1
        if shards == self.shards:
            return None
        number = _largest_shard(sources, self.shards)
        return (
            f"{number} of {len(sources)} sources are in one of {self.shards} shards, but a shard can have at most "
            f"{MAX_SOURCES_PER_SHARD}: set queue.shards to {shards} or more. Stop all processes to change it"
        )

    @model_validator(mode="after")
    def _check_cluster(self) -> Self:
        if self.cluster and not self.url:
            raise ValueError("cluster needs the url of a node")
        return self


def _largest_shard(sources: Collection[str], shards: int) -> int:
    """Return the number of sources in the shard that has most of them."""
    # Not at module level: the command line loads settings without numpy.
    from fer_stream.records import shard_of

    return max(Counter(shard_of(source, shards) for source in sources).values(), default=0)


class RetentionSettings(Settings):
    """Retention of results in the store."""

    max_frames: Annotated[int, Field(ge=1)] = 20_000
    """Maximum number of frames per source: 22 minutes at 15 fps, about 10 MB with one face each."""
    frames_s: Positive = 3600.0
    """Maximum age of frames, which serve live views. For a longer history write files."""
    segments_days: Positive = 7.0
    """Maximum age of segments and gaps."""


class StoreSettings(ServerSettings):
    """Store of results. The server should be persistent and cannot be a Redis Cluster."""

    retention: RetentionSettings = RetentionSettings()


_MIN_TOKEN_LENGTH = 16

Previews = Annotated[
    Literal["on", "blur", "off"],
    # YAML reads a bare `on` as true and `off` as false.
    BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value),
]


def _check_token(token: SecretStr) -> SecretStr:
    if len(token.get_secret_value()) < _MIN_TOKEN_LENGTH:
        raise ValueError(
            f"a token must have at least {_MIN_TOKEN_LENGTH} characters: generate one with `openssl rand -hex 24`"
        )
    return token


Token = Annotated[SecretStr, AfterValidator(_check_token), Field(json_schema_extra={"minLength": _MIN_TOKEN_LENGTH})]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", to_lower=True)]


def _check_network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("expected an address or a network such as 192.0.2.1 or 10.244.0.0/16") from None


Network = Annotated[str, AfterValidator(_check_network)]


class WebSettings(Settings):
    """Web page and HTTP API."""

    host: str = "127.0.0.1"
    """Address to listen on. Any address other than loopback needs a `token`."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = 8080
    """null disables the page and the API."""
    token: Token | None = None
    """Required for everything except the health endpoint, as a bearer token or as the password of any user. Generate
    one with `openssl rand -hex 24`."""
    allowed_hosts: tuple[HostName, ...] = ()
    """Host names under which browsers may open the page, in addition to localhost and IP addresses. Protects against
    DNS rebinding."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses or networks of your own proxies, whose X-Forwarded-For is trusted. Failed logins are limited by
    client address."""
    max_streams: Annotated[int, Field(ge=1, le=1024)] = 32
    """Maximum concurrent live streams. Each occupies a thread."""
    previews: Previews = "on"
    """Camera previews; `blur` blurs detected faces. Previews are only created while somebody views them, and never
    stored."""
    preview_fps: Annotated[float, Field(gt=0, le=10)] = 3.0
    """Preview frames per second of each viewed camera."""
    max_upload_mb: Annotated[int, Field(ge=1)] = 2048
    """Maximum size of an uploaded file."""
    upload_retention_h: Positive = 24.0
    """Maximum age of an upload. It is deleted earlier when its job is done."""

    @property
    def address(self) -> str:
        """URL of the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def at(self, host: str | None, port: int | None) -> WebSettings:
        """Return a copy with another host or port; None keeps the current value. Raises `ConfigError`."""
        changed = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
        try:
            return WebSettings.model_validate({**self.model_dump(), **changed})
        except ValidationError as error:
            raise ConfigError("\n".join(text for _, text in format_errors(error, WebSettings))) from None

    @model_validator(mode="after")
    def _check_access(self) -> Self:
        if self.port and not self.token and not is_loopback(self.host):
            raise ValueError(
                f"listening on {self.host} needs a token (or token_file), generated with `openssl rand -hex 24`; "
                "without a token, use 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address of this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
