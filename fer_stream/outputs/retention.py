"""Deleting what is too old, and nothing but what the live service wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fer_stream.errors import OutputError

# 2026-01-31.frames.csv, 2026-01-31.segments.jsonl, 2026-01-31T120000.000Z.mp4 and, while it grows, a dot before it.
_OURS = re.compile(r"\.?(\d{4}-[01]\d-[0-3]\d)(?:\.frames\.csv|\.segments\.jsonl|T\d{6}\.\d{3}Z\.mp4)")


def prune(folders: Iterable[Path], *, retention_days: int, now_s: float) -> int:
    """Delete the tables and recordings in `folders` that are too old; returns how many there were.

    The day (UTC) of `now_s`, in Unix seconds, and the `retention_days` days before it stay. Raises `OutputError`
    where something cannot be deleted, after everything else was. A folder that is not there holds nothing.
    """
    first_kept = (datetime.fromtimestamp(now_s, UTC) - timedelta(days=retention_days)).date().isoformat()
    deleted, faults = 0, list[OSError]()
    for folder in folders:
        try:
            old = [path for path in folder.iterdir() if _is_old(path.name, first_kept)]
        except FileNotFoundError:
            continue
        except OSError as fault:
            faults.append(fault)
            continue
        for path in old:
            try:
                path.unlink(missing_ok=True)
                deleted += 1
            except OSError as fault:
                faults.append(fault)
    if faults:
        raise OutputError(
            f"{len(faults)} files or folders that are older than the retention cannot be deleted, first "
            f"{faults[0].filename}: {faults[0].strerror}. Delete them, or make their folder writable."
        )
    return deleted


def _is_old(name: str, first_kept: str) -> bool:
    match = _OURS.fullmatch(name)
    return match is not None and match[1] < first_kept
