"""Who may write: one capture per source, one timeline process per shard.

A lease is a key with a token and a time to live. It alone keeps nobody from writing; the script that writes does,
by comparing the token (`GUARD`), so that a process which slept through the end of its lease does no harm.
"""

from __future__ import annotations

from uuid import uuid4

from fer_stream.redis_link import Link, Script

# Both also run at the memory limit: the owner must not lose its place when its work is to make room.
_HOLD = Script("""#!lua flags=allow-oom
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
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


class Lease:
    """The right to write what `key` stands for, for `ttl_s` seconds at a time."""

    def __init__(self, link: Link, key: str, ttl_s: float = 10.0) -> None:
        self.key = key
        self.token = uuid4().hex
        self.ttl_s = ttl_s
        self._link = link

    def hold(self) -> bool:
        """Take the lease or lengthen it; whether it is ours now. Call it at least every `ttl_s` / 3 seconds."""
        return self._link.run(_HOLD, [self.key], [self.token, round(1000 * self.ttl_s)]) == 1

    def release(self) -> None:
        """Give the lease back, if it is ours, so that the next owner need not wait."""
        self._link.run(_RELEASE, [self.key], [self.token])
