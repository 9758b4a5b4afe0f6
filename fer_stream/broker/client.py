"""A link to a Redis or Valkey server, or to a Redis Cluster, and patience with it.

The queue, the leases and the result store speak through it, so that an outage, a refused password and a script
that the server has forgotten are met in one place, and no text that leaves it holds a password.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import TypeVar

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import NoPermissionError, NoScriptError, OutOfMemoryError, ResponseError
from redis.retry import Retry

from fer_stream.backoff import Backoff
from fer_stream.errors import ConfigError, LeaseLost, QueueError
from fer_stream.log import redact_secrets

Client = redis.Redis | RedisCluster
R = TypeVar("R")

_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError)
_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterError,
    exceptions.TryAgainError,
    exceptions.ReadOnlyError,
    exceptions.RedisClusterException,
)

# Longer than any BLOCK that is asked for, so that a silent server is told from an idle one.
_SOCKET_TIMEOUT_S = 5.0
_RETRY_MIN_S, _RETRY_MAX_S = 0.05, 1.0

_log = logging.getLogger(__name__)


class Script:
    """A Lua script, known to the server by the SHA-1 of its text.

    It begins with `#!lua`, so that a server at its memory limit refuses it before its first step; one that must
    run even then says `#!lua flags=allow-oom`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode()).hexdigest()


_NO_STREAM = ("NOGROUP", "UNBLOCKED")


class NoStreamError(ResponseError):
    """A stream has not the consumer group that is asked for, or went while a read waited for it."""


class Link:
    """One server or Cluster. Calls are tried again for up to `patience_s` seconds while it is away.

    `connect` makes the client, `name` says in messages which server it is, `stop` ends the patience at once. May
    be used by several threads.
    """

    def __init__(
        self, connect: Callable[[], Client], name: str, *, patience_s: float, stop: threading.Event | None = None
    ) -> None:
        self.name = redact_secrets(name)
        self.stop = stop or threading.Event()
        self._connect = connect
        self._client: Client | None = None
        self._connecting = threading.Lock()
        self._patience_s = patience_s

    def call(self, operation: Callable[[Client], R]) -> R:
        """What `operation` returns for the client. It may run more than once and has to bear that.

        Raises `QueueError` where the server stays away or refuses us and `LeaseLost` where a script found another
        owner. `OutOfMemoryError` and `NoStreamError` are the caller's to handle.
        """
        deadline = time.monotonic() + self._patience_s
        backoff = Backoff(_RETRY_MIN_S, _RETRY_MAX_S, jitter=0.5)
        while True:
            try:
                return operation(self._connected())
            except _PASSING as error:
                self._check(error, deadline)
                if not backoff.failures:
                    _log.warning("%s is away, trying again: %s", self.name, said(error))
            except ResponseError as error:
                raise self._translated(error) from None
            self.stop.wait(backoff.failed())

    def _connected(self) -> Client:
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _check(self, error: Exception, deadline: float) -> None:
        """Raise where it is of no use to try again."""
        # A Cluster wraps what its first node said.
        if isinstance(error, _REFUSED) or isinstance(error.__cause__, _REFUSED):
            raise QueueError(f"{self.name} refuses us, check user and password: {said(error)}") from None
        if self.stop.is_set() or time.monotonic() > deadline:
            raise QueueError(f"{self.name} cannot be reached, is the server up? {said(error)}") from None

    def _translated(self, error: ResponseError) -> Exception:
        text = said(error)
        if isinstance(error, OutOfMemoryError):
            return error
        if text.startswith(_NO_STREAM):
            return NoStreamError(text)
        if text.startswith("LEASE"):
            return LeaseLost(f"{self.name}: {text}")
        if isinstance(error, NoPermissionError) or text.startswith(("ACL", "The user executing the script")):
            return QueueError(f"{self.name} denies us a command, check the rights of the user: {text}")
        return QueueError(f"{self.name} does not do what we ask; Redis 7.0 or Valkey 7.2 is needed: {text}")

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> object:
        """Run `script`, whose keys lie in one slot; sends its text only where the server does not know it."""

        def operation(client: Client) -> object:
            try:
                return client.evalsha(script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return client.eval(script.text, len(keys), *keys, *arguments)

        return self.call(operation)

    def trouble(self) -> str | None:
        """Why the server does not answer at the moment, None where it does. No patience: it takes 5 s at the most."""
        try:
            self._connected().ping()
        except (redis.RedisError, exceptions.RedisClusterException) as error:
            return f"{self.name} does not answer: {said(error)}"
        return None

    def close(self) -> None:
        """Close all connections; a later call opens them again."""
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            client.close()


def open_link(
    url: str, *, cluster: bool = False, patience_s: float = 30.0, stop: threading.Event | None = None
) -> Link:
    """A link to `url`: `redis://`, `rediss://` (TLS) or `unix://`, with user and password in it, percent-encoded.

    TLS files go into the query, as in `?ssl_ca_certs=/etc/ca.pem`. With `cluster`, `url` is any node of a Redis
    Cluster. Connects at once. Raises `ConfigError` where the URL is wrong, `QueueError` where nobody answers.
    """
    # RESP 2 whatever the server offers, because the shapes of replies depend on it. The link alone retries: a
    # client that does so too would multiply the two.
    options = {"protocol": 2, "socket_timeout": _SOCKET_TIMEOUT_S, "socket_connect_timeout": _SOCKET_TIMEOUT_S}
    once = Retry(NoBackoff(), 0)

    def connect() -> Client:
        if cluster:
            return RedisCluster.from_url(url, **options)
        return redis.Redis.from_url(url, retry=once, **options)

    link = Link(connect, url, patience_s=patience_s, stop=stop)
    try:
        link.call(lambda client: client.ping())
    except (ValueError, TypeError):
        # Not the library's own words: they may quote half a password that should have been percent-encoded.
        shown = link.name if "://" in url else "What was given"
        raise ConfigError(
            f"{shown} is no Redis URL: expected redis://user:password@host:6379/0 with special characters of the "
            f"password percent-encoded, rediss:// for TLS, or unix:///path/of.sock"
        ) from None
    return link


def said(error: Exception) -> str:
    """What `error` says, without secrets."""
    return redact_secrets(str(error)) or type(error).__name__
