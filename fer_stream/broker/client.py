"""Client of a Redis or Valkey server, or of a Redis Cluster, that retries while the server is unreachable.

Queue, leases and result store share it. Outages, rejected passwords and scripts missing from the server's cache are
handled here, and no text that leaves this module contains a password. The Lua scripts of the queue, and the loader
that the result store uses as well, are here too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib import resources
from typing import TypeVar, cast

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import MaxConnectionsError, NoPermissionError, NoScriptError, OutOfMemoryError, ResponseError
from redis.retry import Retry

from fer_stream.backoff import Backoff
from fer_stream.errors import ConfigError, LeaseLost, QueueError
from fer_stream.log import get_logger, redact_secrets

Connection = redis.Redis | RedisCluster
"""A client of redis-py, which connects on first use."""

R = TypeVar("R")

AUTH_ERRORS = (exceptions.AuthenticationError, exceptions.AuthorizationError)
"""Errors of redis-py that no retry can fix."""

TRANSIENT = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterError,
    exceptions.TryAgainError,
    exceptions.ReadOnlyError,
    exceptions.RedisClusterException,
)
"""Errors of redis-py that are retried, except those that are also `AUTH_ERRORS`."""

# Longer than every BLOCK timeout in this package, so that an idle server is not taken for an unresponsive one.
_SOCKET_TIMEOUT_S = 5.0
# A connection per thread that waits for the server: at most `web.max_streams` (1024) and some others. redis-py's own
# limit is 100.
_MAX_CONNECTIONS = 4096
_RETRY_MIN_S = 0.05
_RETRY_MAX_S = 1.0
_NO_STREAM_PREFIXES = ("NOGROUP", "UNBLOCKED")

_log = get_logger(__name__)


class Script:
    """A Lua script, addressed on the server by the SHA-1 of its text.

    The text must start with `#!lua`, so that a server at its memory limit rejects the script before its first
    command, or with `#!lua flags=allow-oom` if the script must also run then.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode()).hexdigest()


class StreamNotFoundError(ResponseError):
    """The stream or its consumer group does not exist, or was deleted during a blocking read."""


class RedisClient:
    """One server or Cluster. Calls are retried for up to `retry_timeout_s` seconds while it is unreachable.

    `connect` creates the connection, `name` identifies the server in messages, and setting `stop` ends all retries.
    Thread-safe.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        name: str,
        *,
        retry_timeout_s: float,
        stop: threading.Event | None = None,
    ) -> None:
        self.name = redact_secrets(name)
        self.stop = stop or threading.Event()
        self._connect = connect
        self._retry_timeout_s = retry_timeout_s
        self._lock = threading.Lock()
        self._open_connection: Connection | None = None
        self._unreachable_since_s: float | None = None

    def call(self, operation: Callable[[Connection], R]) -> R:
        """Return `operation(connection)`. The operation must be idempotent, because a retry runs it again.

        Raises:
            QueueError: the server is unreachable or rejects the command or the credentials.
            LeaseLost: a script found another owner of the lease.
            OutOfMemoryError: the server is at its memory limit; callers handle it.
            StreamNotFoundError: the stream or group is missing; callers handle it.
        """
        deadline_s = time.monotonic() + self._retry_timeout_s
        backoff = Backoff(_RETRY_MIN_S, _RETRY_MAX_S, jitter=0.5)
        while True:
            try:
                result = operation(self._connection())
            except MaxConnectionsError:
                self._raise_if_busy(deadline_s)
            except TRANSIENT as error:
                self._raise_if_final(error, deadline_s)
                self._mark_unreachable(error)
            except ResponseError as error:
                raise self._translate(error) from None
            else:
                self._mark_reachable()
                return result
            self.stop.wait(backoff.failed())

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> object:
        """Run `script` on `keys` of one slot and return its reply. Sends its text only if the server lacks it.

        Raises as `call`.
        """

        def operation(connection: Connection) -> object:
            try:
                return connection.evalsha(script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return connection.eval(script.text, len(keys), *keys, *arguments)

        return self.call(operation)

    def ping_error(self) -> str | None:
        """Return why the server does not answer, or None if it does. One attempt, which takes at most 5 s."""
        try:
            self._connection().ping()
        except MaxConnectionsError:
            # Other threads use all connections: they notice an outage.
            return None if self._unreachable_since_s is None else f"{self.name} does not answer"
        except (redis.RedisError, exceptions.RedisClusterException) as error:
            self._mark_unreachable(error)
            return f"{self.name} does not answer: {safe_message(error)}"
        self._mark_reachable()
        return None

    def memory(self) -> tuple[int, int]:
        """Return the memory in use and its limit in bytes, 0 without a limit; of the fullest node of a Cluster.

        Raises as `call`; the user needs the command INFO.
        """

        def operation(connection: Connection) -> list[dict[str, int]]:
            if isinstance(connection, RedisCluster):
                return list(connection.info("memory", target_nodes=RedisCluster.PRIMARIES).values())
            return [cast(dict[str, int], connection.info("memory"))]

        # What the server compares with its limit: without the buffers of replicas and of the append-only file.
        nodes = [
            (node["used_memory"] - node.get("mem_not_counted_for_evict", 0), node["maxmemory"])
            for node in self.call(operation)
        ]
        return max(nodes, key=lambda node: (node[0] / node[1] if node[1] else 0.0, node[0]))

    def close(self) -> None:
        """Close all connections. A later call opens them again."""
        with self._lock:
            connection, self._open_connection = self._open_connection, None
        if connection is not None:
            connection.close()

    def _connection(self) -> Connection:
        with self._lock:
            if self._open_connection is None:
                self._open_connection = self._connect()
            return self._open_connection

    def _raise_if_final(self, error: Exception, deadline_s: float) -> None:
        """Raise `QueueError` if a retry cannot succeed or comes too late."""
        # RedisCluster wraps the error of its first node.
        if isinstance(error, AUTH_ERRORS) or isinstance(error.__cause__, AUTH_ERRORS):
            message = f"{self.name} rejected the credentials, check user and password: {safe_message(error)}"
            raise QueueError(message) from None
        if self.stop.is_set() or time.monotonic() > deadline_s:
            raise QueueError(f"{self.name} cannot be reached, is the server up? {safe_message(error)}") from None

    def _raise_if_busy(self, deadline_s: float) -> None:
        """Raise `QueueError` if no connection became free in time. The server itself is not at fault."""
        if self.stop.is_set() or time.monotonic() > deadline_s:
            raise QueueError(
                f"{self.name}: all connections of this process are in use. Raise max_connections in the query of the "
                f"URL, or remove it."
            )

    def _mark_unreachable(self, error: Exception) -> None:
        with self._lock:
            if self._unreachable_since_s is not None:
                return
            self._unreachable_since_s = time.monotonic()
        _log.warning("redis_unreachable", server=self.name, error=safe_message(error))

    def _mark_reachable(self) -> None:
        # Read without the lock first: this runs on every call.
        if self._unreachable_since_s is None:
            return
        with self._lock:
            since_s, self._unreachable_since_s = self._unreachable_since_s, None
        if since_s is not None:
            _log.info("redis_reachable", server=self.name, after_s=round(time.monotonic() - since_s, 2))

    def _translate(self, error: ResponseError) -> Exception:
        text = safe_message(error)
        if isinstance(error, OutOfMemoryError):
            return error
        if text.startswith(_NO_STREAM_PREFIXES):
            return StreamNotFoundError(text)
        if text.startswith("LEASE"):
            return LeaseLost(f"{self.name}: {text}")
        if isinstance(error, NoPermissionError) or text.startswith(("ACL", "The user executing the script")):
            return QueueError(f"{self.name} denied a command, check the permissions of the user: {text}")
        return QueueError(f"{self.name} rejected a command; Redis 7.0 or Valkey 7.2 or later is required: {text}")


def open_client(
    url: str, *, cluster: bool = False, retry_timeout_s: float = 30.0, stop: threading.Event | None = None
) -> RedisClient:
    """Connect to `url`: `redis://`, `rediss://` (TLS) or `unix://`, with a percent-encoded user and password.

    TLS files are query parameters, as in `?ssl_ca_certs=/etc/ca.pem`. With `cluster`, `url` is any node of a Redis
    Cluster. Raises `ConfigError` if the URL is invalid and `QueueError` if the server cannot be reached.
    """
    # RESP 2 on every server, because the shapes of replies depend on it. redis-py's own retries are disabled: they
    # would multiply with those of RedisClient.
    options = {
        "protocol": 2,
        "socket_timeout": _SOCKET_TIMEOUT_S,
        "socket_connect_timeout": _SOCKET_TIMEOUT_S,
        "max_connections": _MAX_CONNECTIONS,
    }
    no_retry = Retry(NoBackoff(), 0)

    def connect() -> Connection:
        if cluster:
            return RedisCluster.from_url(url, **options)
        return redis.Redis.from_url(url, retry=no_retry, **options)

    client = RedisClient(connect, url, retry_timeout_s=retry_timeout_s, stop=stop)
    try:
        client.call(lambda connection: connection.ping())
    except (ValueError, TypeError):
        # The library's own message is dropped: it can quote half of a password that should have been percent-encoded.
        subject = client.name if "://" in url else "The configured URL"
        raise ConfigError(
            f"{subject} is not a valid Redis URL: expected redis://user:password@host:6379/0 with special characters "
            f"of the password percent-encoded, rediss:// for TLS, or unix:///path/to.sock"
        ) from None
    return client


def safe_message(error: Exception) -> str:
    """Return the message of `error` without secrets, or the name of its class if it has none."""
    return redact_secrets(str(error)) or type(error).__name__


FENCE = "fence"
"""Name of the Lua file with `owns(lease, token)`, which every script that writes under a lease includes."""


def load_script(package: str, *names: str, allow_oom: bool = False) -> Script:
    """Join `lua/NAME.lua` of `package` for each of `names` to one script; `FENCE` always comes from this package.

    A server at its memory limit rejects the script before its first command, unless `allow_oom` is set.
    """
    header = "#!lua flags=allow-oom\n" if allow_oom else "#!lua\n"
    return Script(header + "\n".join(_read(__package__ if name == FENCE else package, name) for name in names))


def _read(package: str, name: str) -> str:
    return (resources.files(package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def _load(*names: str, allow_oom: bool = True) -> Script:
    return load_script(__package__, *names, allow_oom=allow_oom)


ENQUEUE = _load(FENCE, "common", "enqueue", allow_oom=False)
DROP_OLDEST = _load("common", "drop_oldest")
CREATE_GROUP = _load("common", "create_group")
ACK_PUBLISH = _load("ack_publish")
DEAD_LETTER = _load("dead_letter")
INCR_COUNTS = _load("incr_counts")
REMOVE_IDLE = _load("remove_idle")
APPEND = _load(FENCE, "append")

# These run at the memory limit as well: an owner must not lose its lease when its work is to free memory.
ACQUIRE_LEASE = _load("acquire_lease")
RENEW_LEASE = _load("renew_lease")
RELEASE_LEASE = _load("release_lease")
