"""Table of the performance of all parts, with goals and with results of other libraries.

    python -m benchmarks [--only ROW…] [--quick] [--json FILE]

Rows run one after the other, each in its own process. Tasks that are compared alternate, round by round; the table
contains medians over the rounds, with minimum and maximum. `--json` also writes one record per line, for
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
from benchmarks.rows.catalogue import ROWS, run_row
from benchmarks.soak.report import machine


def footnotes(rows: list[Row], about: dict[str, Any]) -> str:
    """Return date, machine, load of other programs and duration of the measurement."""
    load = ", ".join(f"{row.name} {row.other_load:.0%}" for row in rows)
    conditions = ", ".join(f"{name} {value}" for name, value in about.items())
    return (
        f"Measured: {conditions}.\n"
        f"Share of all cores used by other programs: {load}. "
        f"Duration: {sum(row.duration_s for row in rows) / 60:.0f} minutes."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: 4 minutes instead of 15, wider spread")
    parser.add_argument("--json", type=Path, help="also write the lines as records to this file")
    arguments = parser.parse_args()
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", **machine(), "load": f"{os.getloadavg()[0]:.2f}"}
    rows = []
    for name in arguments.only or ROWS:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows.append(run_row(name, Options(quick=arguments.quick)))
    print(markdown(rows))
    print(f"\n{footnotes(rows, about)}")
    if arguments.json:
        records = [{**record, **about} for row in rows for record in row.records()]
        arguments.json.write_text(json.dumps(records, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
