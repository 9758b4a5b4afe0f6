"""The Lua scripts of the result store, put together from their files."""

from __future__ import annotations

from importlib import resources

from fer_stream.broker.client import Script
from fer_stream.broker.lease import GUARD

_LUA = resources.files("fer_stream.store") / "lua"
_ALWAYS = "#!lua flags=allow-oom\n"
_WITH_ROOM = "#!lua\n"
"""A server at its memory limit refuses such a script before its first step."""


def _file(name: str) -> str:
    return (_LUA / f"{name}.lua").read_text(encoding="utf-8")


# Results may be left out. The history is small, and a commit that cannot be written would stop the timeline.
PUBLISH = Script(_WITH_ROOM + GUARD + _file("sources") + _file("publish"))
COMMIT = Script(_ALWAYS + GUARD + _file("sources") + _file("commit"))
STATE = Script(_ALWAYS + _file("sources") + _file("state"))
WATCH = Script(_ALWAYS + "return redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])\n")
PROBE = Script(_ALWAYS + "return 1\n")
"""Does nothing, with whatever keys."""
