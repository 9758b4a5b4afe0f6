"""The Lua scripts of the queue, put together from their files."""

from __future__ import annotations

from importlib import resources

from fer_stream.broker.client import Script
from fer_stream.broker.lease import GUARD

_LUA = resources.files("fer_stream.broker") / "lua"
_ALWAYS = "#!lua flags=allow-oom\n"
_WITH_ROOM = "#!lua\n"
"""A server at its memory limit refuses such a script before its first step."""


def _file(name: str) -> str:
    return (_LUA / f"{name}.lua").read_text(encoding="utf-8")


PUT = Script(_WITH_ROOM + GUARD + _file("source") + _file("put"))
SHED = Script(_ALWAYS + _file("source") + _file("shed"))
TALLY = Script(_ALWAYS + _file("tally"))
SETTLE = Script(_ALWAYS + _file("settle"))
BURY = Script(_ALWAYS + _file("bury"))
TIDY = Script(_ALWAYS + _file("tidy"))
APPEND = Script(_ALWAYS + GUARD + _file("append"))
ENSURE = Script(_ALWAYS + _file("source") + _file("ensure"))
