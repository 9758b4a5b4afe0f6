"""The Redis servers of the live service: the queue, and the store of results."""

from __future__ import annotations

import re
from typing import Annotated, Self
from urllib.parse import quote, urlencode, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from fer_stream.config.settings import LocalPath, Positive, Settings

_SCHEMES = ("redis", "rediss", "unix")


def _checked_url(url: SecretStr) -> SecretStr:
    if not _is_whole(url.get_secret_value()):
        raise ValueError(
            "expected redis://host:6379/0, rediss:// for TLS, or unix:///path/of.sock, with special characters of "
            "the password percent-encoded"
        )
    return url


def _is_whole(url: str) -> bool:
    """Is everything there, and no half of a password in the place of something else?

    A blank would end the password for whoever takes passwords out of a log.
    """
    try:
        parts = urlsplit("" if re.search(r"\s", url) else url)
        target = parts.path if parts.scheme == "unix" else parts.hostname
        return parts.scheme in _SCHEMES and bool(target) and not parts.fragment and parts.port != 0
    except ValueError:
        return False


RedisUrl = Annotated[SecretStr, AfterValidator(_checked_url)]


class TlsSettings(Settings):
    """The files of a TLS connection, in PEM; by default the system's authorities are trusted and we show nothing."""

    ca: LocalPath | None = None
    """The authority that signed the server's certificate."""
    cert: LocalPath | None = None
    """Our own certificate, where the server asks for one."""
    key: LocalPath | None = None
    """The private key of `cert`."""

    def options(self) -> dict[str, str]:
        """The files that are given, under the names that redis-py has for them in the query of a URL."""
        files = {"ssl_ca_certs": self.ca, "ssl_certfile": self.cert, "ssl_keyfile": self.key}
        return {name: str(path) for name, path in files.items() if path}

    @model_validator(mode="after")
    def _cert_has_its_key(self) -> Self:
        if bool(self.cert) != bool(self.key):
            raise ValueError("cert and key go together")
        return self


class ServerSettings(Settings):
    """One Redis or Valkey server."""

    url: RedisUrl | None = None
    """redis://host:6379/0, rediss:// for TLS, or unix:///path/of.sock; by default a private server is started in
    `state_dir`. A secret, because it may hold a password."""
    username: str | None = None
    """The ACL user; by default `default`."""
    password: Annotated[SecretStr, Field(min_length=1)] | None = None
    """The password, as it is: in `url` its special characters would have to be percent-encoded."""
    tls: TlsSettings = TlsSettings()
    max_memory_mb: Annotated[int, Field(ge=16)] = 512
    """The memory of the private server. Crops of 1,000 cameras at 5 fps with two faces take 50 MB."""

    @property
    def address(self) -> SecretStr | None:
        """The URL with user, password and TLS files in it, or None for the private server."""
        if self.url is None:
            return None
        parts = urlsplit(self.url.get_secret_value())
        user = ""
        if self.password:
            user = f"{quote(self.username or '', safe='')}:{quote(self.password.get_secret_value(), safe='')}@"
        query = "&".join(filter(None, (parts.query, urlencode(self.tls.options()))))
        return SecretStr(f"{parts.scheme}://{user}{parts.netloc}{parts.path}" + (f"?{query}" if query else ""))

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        parts = urlsplit(self.url.get_secret_value() if self.url else "")
        if not self.url and (self.username or self.password or self.tls.options()):
            raise ValueError("username, password and tls need a url: the private server has none of them")
        if self.username and not self.password:
            raise ValueError("username needs a password")
        if self.password and "@" in parts.netloc:
            raise ValueError("give user and password in url, or in username and password")
        if self.tls.options() and parts.scheme != "rediss":
            raise ValueError("tls needs a rediss:// url")
        return self


class RedeliverySettings(Settings):
    """When a face is taken from a worker that does not settle it."""

    visibility_timeout_s: Positive = 10.0
    """Longer than the slowest batch takes: a face that is taken away too early is classified twice."""
    max_deliveries: Annotated[int, Field(ge=1)] = 3
    """A face that was delivered so often in vain is not tried again, for it may be what kills the workers."""


class QueueSettings(ServerSettings):
    """Where faces wait for a worker. The server needs no persistence: crops of faces never reach a disk."""

    cluster: bool = False
    """`url` is a node of a Redis Cluster."""
    shards: Annotated[int, Field(ge=1)] = 1
    """Into so many parts the sources are divided, 64 sources a part at the most. All processes must agree on it."""
    redelivery: RedeliverySettings = RedeliverySettings()

    @model_validator(mode="after")
    def _cluster_has_a_url(self) -> Self:
        if self.cluster and not self.url:
            raise ValueError("cluster needs the url of a node")
        return self


class RetentionSettings(Settings):
    """For how long the store keeps what."""

    max_frames: Annotated[int, Field(ge=1)] = 20_000
    """So many frames of a source: 22 minutes at 15 fps, about 10 MB with a face in each."""
    frames_s: Positive = 3600.0
    """No frame longer than an hour: they are for live views, files are for keeping."""
    segments_days: Positive = 7.0
    """Segments and gaps, which are small: long enough to look at last week."""


class StoreSettings(ServerSettings):
    """Where results are kept. The server should be persistent; it is never a Cluster."""

    retention: RetentionSettings = RetentionSettings()
