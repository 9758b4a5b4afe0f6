"""Lua scripts of the result store."""

from __future__ import annotations

from fer_stream.broker.client import Script
from fer_stream.broker.scripts import FENCE, load_script

# Results may be rejected at the memory limit. The history is small, and a failed commit would stop the timeline.
PUBLISH = load_script(__package__, FENCE, "sources", "publish")
COMMIT = load_script(__package__, FENCE, "sources", "commit", allow_oom=True)
STATE = load_script(__package__, "sources", "state", allow_oom=True)
WATCH = Script("#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])\n")
PROBE = Script("#!lua flags=allow-oom\nreturn 1\n")
"""Does nothing, with any keys."""
