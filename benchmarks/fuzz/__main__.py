"""Fuzz the parsers: `python -m benchmarks.fuzz --target codec --minutes 10 --corpus fuzz-corpus`

Needs `pip install --group fuzz`. Continues with the corpus of the previous run. Findings are stored in
`<corpus>/<target>-findings`: the input as .bin, the traceback as .txt. `--replay` runs one input without atheris and
shows the traceback. Docs: docs/evidence/fuzzing.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.fuzz.targets import TARGETS, Target

TIMEOUT_S = 20
MEMORY_MB = 2048

_UNITS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERAGE = re.compile(r"#(\d+)\s+(\w+)\s+cov: (\d+)")


@dataclass
class RunStats:
    """Results of a run. `coverage` contains covered edges of Python bytecode, first that of the seeds."""

    executions: int = 0
    coverage: list[int] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)

    def add(self, output: str, exit_code: int) -> None:
        last = 0
        for count, event, edges in _COVERAGE.findall(output):
            last = int(count)
            if event != "READ":
                self.coverage.append(int(edges))
        units = _UNITS.search(output)
        self.executions += int(units[1]) if units else last
        if exit_code:
            self.crashes.append(f"exit code {exit_code}: " + "\n".join(output.splitlines()[-40:]))


def write_seeds(target: Target, folder: Path) -> None:
    """Write the seeds of a target to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (folder / f"seed-{number:02d}").write_bytes(data)


def write_tokens(target: Target, path: Path) -> None:
    """Write a dictionary for libFuzzer, with every byte as `\\xNN`."""
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in token.encode()) + '"' for token in target.tokens)
    path.write_text("\n".join(lines) + "\n")


def fuzz(name: str, seconds: float, corpus: Path) -> RunStats:
    """Fuzz a target for `seconds`; restart the child process after every crash."""
    target, inputs, findings = TARGETS[name], corpus / name, corpus / f"{name}-findings"
    write_seeds(target, inputs)
    findings.mkdir(exist_ok=True)
    stats, end = RunStats(), time.monotonic() + seconds
    with TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        write_tokens(target, tokens)
        while (remaining_s := int(end - time.monotonic())) > 0:
            command = [
                sys.executable, "-m", "benchmarks.fuzz.child", name, str(findings), str(inputs),
                f"-max_total_time={remaining_s}", f"-max_len={target.max_len}", f"-timeout={TIMEOUT_S}",
                f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={findings}/", f"-dict={tokens}",
                "-print_final_stats=1", "-len_control=0",
            ]  # fmt: skip
            completed = subprocess.run(command, stderr=subprocess.PIPE, check=False)
            stats.add(completed.stderr.decode(errors="replace"), completed.returncode)
    return stats


def replay(name: str, path: Path) -> None:
    """Check one input. Raises the finding."""
    with TemporaryDirectory() as folder:
        TARGETS[name].prepare(Path(folder))(path.read_bytes())
    print(f"{path}: no finding")


def report(name: str, stats: RunStats, findings: Path) -> None:
    """Print the statistics, the crashes and the findings of a run."""
    first, last = (stats.coverage[0], stats.coverage[-1]) if stats.coverage else (0, 0)
    print(f"{name}: {stats.executions} executions, {first} → {last} edges, {len(stats.crashes)} crashes")
    for crash in stats.crashes:
        print(crash)
    for path in sorted(findings.iterdir()):
        print(f"  {path}, {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-corpus"))
    parser.add_argument("--replay", type=Path, metavar="FILE", help="only check this input")
    arguments = parser.parse_args()
    if arguments.replay:
        replay(arguments.target, arguments.replay)
        return
    stats = fuzz(arguments.target, 60 * arguments.minutes, arguments.corpus)
    report(arguments.target, stats, arguments.corpus / f"{arguments.target}-findings")


if __name__ == "__main__":
    main()
