"""The one table: how fast the parts are, against what was aimed at, side by side with others.

    python -m benchmarks [--only ROW…] [--quick] [--json FILE]

Every row runs in a process of its own, one after the other. What is compared is done in turn, round by round; told
are medians over the rounds, with the least and the most. `--json` also writes a record for each line, for
`pandas.read_json`. Docs: docs/evidence/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.goals import Row, markdown
from benchmarks.rows import Options
from benchmarks.rows.catalogue import WORKS, measured
from benchmarks.soak.report import machine


def footnotes(rows: list[Row], about: dict[str, Any]) -> str:
    """Where, when, and under what load."""
    load = ", ".join(f"{row.name} {row.others:.0%}" for row in rows)
    told = ", ".join(f"{name} {value}" for name, value in about.items())
    return (
        f"Measured: {told}.\n"
        f"What other programs took of all cores meanwhile: {load}. "
        f"It took {sum(row.lasted_s for row in rows) / 60:.0f} minutes."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WORKS, metavar="ROW", help=", ".join(WORKS))
    parser.add_argument("--quick", action="store_true", help="4 minutes instead of 15, with a wider spread")
    parser.add_argument("--json", type=Path, help="write the lines as records, too")
    chosen = parser.parse_args()
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", **machine(), "load": f"{os.getloadavg()[0]:.2f}"}
    rows = []
    for name in chosen.only or WORKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows.append(measured(name, Options(quick=chosen.quick)))
    print(markdown(rows))
    print(f"\n{footnotes(rows, about)}")
    if chosen.json:
        records = [{**record, **about} for row in rows for record in row.records()]
        chosen.json.write_text(json.dumps(records, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
