"""Lua scripts of the queue, and the loader that the result store uses as well."""

from __future__ import annotations

from importlib import resources

from fer_stream.broker.client import Script

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
