"""Figures of a soak run as Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks.material import table


def summary(figures: dict[str, Any]) -> str:
    """Return the page without a heading."""
    plan, machine = figures["plan"], figures["machine"]
    parts = [
        f"{plan['cameras']} cameras, {figures['lasted_s'] / 60:.0f} minutes, {_count(figures)} faults, seed "
        f"{plan['seed']}; faults and recovery: {figures['disturbed_s'] / figures['lasted_s']:.0%} of the time.",
        ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
        _faults(figures),
        _latency(figures),
        _drops(figures),
        _balance(figures),
        _truth(figures),
        _processes(figures),
        f"Passwords figures in: {', '.join(figures['secrets']['figures_in']) or 'nothing'}, of "
        f"{figures['secrets']['bytes_searched'] / 1e6:.0f} MB of logs, metrics, keys, values and files. "
        f"Exit code of the service: {figures['exit_code']}.",
    ]
    return "\n\n".join(parts) + "\n"


def _count(figures: dict[str, Any]) -> int:
    return sum(kind["times"] for kind in figures["faults"].values())


def _faults(figures: dict[str, Any]) -> str:
    rows = [
        [kind, str(one["times"]), str(one["recovered"]), _seconds(one["median_s"]), _seconds(one["max_s"])]
        for kind, one in figures["faults"].items()
    ]
    return table(["fault", "times", "recovered", "median", "slowest"], rows)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _latency(figures: dict[str, Any]) -> str:
    rows = [
        [
            when.replace("_", " "),
            f"{one['results']:,}",
            *(_ms(one.get(which)) for which in ("p50", "p95", "p99", "max")),
        ]
        for when, one in figures["latency_s"].items()
    ]
    bounds = ", ".join(f"{which} ≤ {1000 * bound:.0f} ms" for which, bound in figures["histogram_s"].items())
    head = table(["frame to subscriber", "results", "p50", "p95", "p99", "slowest"], rows)
    return f"{head}\n\n`fer_end_to_end_seconds`, all faces: {bounds}."


def _ms(value: float | None) -> str:
    return "" if value is None else f"{1000 * value:,.0f} ms"


def _drops(figures: dict[str, Any]) -> str:
    drops = figures["drops"]
    rows = [
        [f"`{name}`", f"{number:,.0f}", f"{drops['within_faults'].get(name, 0):,.0f}"]
        for name, number in sorted(drops["whole"].items())
    ]
    return table(["counter", "increase", "within faults"], rows)


def _balance(figures: dict[str, Any]) -> str:
    kept, cut = figures["counts"]["streams_in_the_end"], figures["counts"]["streams_cut_off_with_queue"]
    head = ["faces", *kept]
    rows = [
        ["streams with counts at the end", *(f"{number:,}" for number in kept.values())],
        ["streams interrupted with the queue server, last counts", *(f"{cut[name]:,}" for name in kept)],
    ]
    unbalanced = figures["counts"]["streams_not_balanced"]
    twice = table(["what", "number"], [[name.replace("_", " "), f"{n:,}"] for name, n in figures["twice"].items()])
    return f"{table(head, rows)}\n\nUnbalanced streams: {', '.join(unbalanced) or 'none'}.\n\n{twice}"


def _truth(figures: dict[str, Any]) -> str:
    head = [
        "source",
        "frames",
        "correct number of people",
        "labels equal to `run`",
        "labels equal to the scene",
        "visits",
        "one person",
        "no person",
        "several persons",
        "detected after",
        "lost before the end",
    ]
    rows = [
        [
            name,
            f"{one['frames']:,}",
            *(f"{one[key]:.2%}" for key in ("people_as_in_scene", "labels_as_run_says", "labels_as_shown")),
            *(str(one[key]) for key in ("visits", "as_one_person", "as_nobody", "as_several")),
            _seconds(one["seen_after_s"].get("median")),
            _seconds(one["lost_before_end_s"].get("median")),
        ]
        for name, one in figures["truth"].items()
    ]
    return table(head, rows)


def _processes(figures: dict[str, Any]) -> str:
    head = ["process", "lives", "longest", "memory, median", "largest", "MB/h", "open files", "maximum", "per hour"]
    rows = [
        [
            role,
            str(one["lives"]),
            f"{one['longest_life_s'] / 60:.0f} min",
            f"{one['pss_mb']['p50']:.0f} MB",
            f"{one['pss_mb']['max']:.0f} MB",
            _rate(one["own_mb_per_hour"]),
            f"{one['open_files']['p50']:.0f}",
            f"{one['open_files']['max']:.0f}",
            _rate(one["open_files_per_hour"]),
        ]
        for role, one in figures["processes"].items()
    ]
    return table(head, rows)


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}"
