"""Who may write: one capture per source, one timeline process per shard.

A lease is a key with a token and a time to live. It alone keeps nobody from writing; the script that writes does,
by comparing the token (`GUARD`), so that a process which slept through the end of its lease does no harm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self
from uuid import uuid4

from fer_stream.broker.client import Link, Script

# All run at the memory limit too: the owner must not lose its place when its work is to make room.
_HOLD = Script("""#!lua flags=allow-oom
local token = redis.call('GET', KEYS[1])
if token and token ~= ARGV[1] then
  local name, life = string.match(token, '^(.+):(%d+):')
  if name ~= ARGV[3] or tonumber(life) >= tonumber(ARGV[4]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")

_KEEP = Script("""#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

_RELEASE = Script("""#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

GUARD = """
local function owns(lease, token)
  return token == '' or redis.call('GET', lease) == token
end
"""
"""Lua for the head of a script that writes under a lease. The token '' stands for no lease at all.

Such a script ends with `redis.error_reply('LEASE …')` where `owns` is false, which `Link` turns into `LeaseLost`.
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, by a `name` that it shares with the dead processes in whose place it was started.

    `life` counts them. Whoever gives a process the next life must have seen the last one die, for the new one takes
    over its leases without waiting for them to run out.
    """

    name: str = field(default_factory=lambda: uuid4().hex)
    life: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` wrote. Raises `ValueError`."""
        name, _, life = text.rpartition(":")
        return cls(name, int(life))

    @property
    def next_life(self) -> Owner:
        """Who comes after it."""
        return Owner(self.name, self.life + 1)

    def __str__(self) -> str:
        return f"{self.name}:{self.life}"


def is_held(link: Link, key: str) -> bool:
    """Has anybody the lease `key` now?"""
    return link.call(lambda client: client.get(key)) is not None


class Lease:
    """The right to write what `key` stands for, for `ttl_s` seconds at a time.

    `owner` is the process that wants it, by default one without a past.
    """

    def __init__(self, link: Link, key: str, ttl_s: float = 10.0, *, owner: Owner | None = None) -> None:
        self.key = key
        self.ttl_s = ttl_s
        self._owner = owner or Owner()
        # Two leases of one process are two: a thread that hangs may not write beside the one that replaced it.
        self.token = f"{self._owner}:{uuid4().hex}"
        self._link = link
        self._until_s = float("-inf")

    def hold(self) -> bool:
        """Take the lease, or lengthen it; whether it is ours now. A former life of the owner gives way."""
        return self._ask(_HOLD, [self._owner.name, self._owner.life])

    def keep(self) -> bool:
        """Lengthen the lease; False where it ran out, for somebody else may have had it since.

        Call it at least every `ttl_s` / 3 seconds.
        """
        return self._ask(_KEEP, [])

    @property
    def held(self) -> bool:
        """Is it ours for certain, without asking? Not so after a sleep or an outage longer than `ttl_s`."""
        return time.monotonic() < self._until_s

    def release(self) -> None:
        """Give the lease back, if it is ours, so that the next owner need not wait."""
        self._link.run(_RELEASE, [self.key], [self.token])

    def _ask(self, script: Script, more: list[str | bytes | int]) -> bool:
        asked_s = time.monotonic()
        ours = self._link.run(script, [self.key], [self.token, round(1000 * self.ttl_s), *more]) == 1
        self._until_s = asked_s + self.ttl_s if ours else float("-inf")
        return ours
