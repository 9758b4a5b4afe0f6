"""The figures of a soak as a page of Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks.material import table


def summary(found: dict[str, Any]) -> str:
    """The page, without a heading."""
    plan, machine = found["plan"], found["machine"]
    parts = [
        f"{plan['cameras']} cameras, {found['lasted_s'] / 60:.0f} minutes, {_count(found)} faults, seed "
        f"{plan['seed']}; faults and recovery took {found['disturbed_s'] / found['lasted_s']:.0%} of the time.",
        ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
        _faults(found),
        _latency(found),
        _drops(found),
        _balance(found),
        _truth(found),
        _processes(found),
        f"Passwords found in: {', '.join(found['secrets']['found_in']) or 'nothing'}, of "
        f"{found['secrets']['bytes_searched'] / 1e6:.0f} MB of logs, metrics, keys, values and files. "
        f"Exit code of the service: {found['exit_code']}.",
    ]
    return "\n\n".join(parts) + "\n"


def _count(found: dict[str, Any]) -> int:
    return sum(kind["times"] for kind in found["faults"].values())


def _faults(found: dict[str, Any]) -> str:
    rows = [
        [kind, str(one["times"]), str(one["recovered"]), _seconds(one["median_s"]), _seconds(one["max_s"])]
        for kind, one in found["faults"].items()
    ]
    return table(["fault", "times", "recovered", "median", "slowest"], rows)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _latency(found: dict[str, Any]) -> str:
    rows = [
        [
            when.replace("_", " "),
            f"{one['results']:,}",
            *(_ms(one.get(which)) for which in ("p50", "p95", "p99", "max")),
        ]
        for when, one in found["latency_s"].items()
    ]
    bounds = ", ".join(f"{which} ≤ {1000 * bound:.0f} ms" for which, bound in found["histogram_s"].items())
    head = table(["picture to subscriber", "results", "p50", "p95", "p99", "slowest"], rows)
    return f"{head}\n\n`fer_end_to_end_seconds`, all faces: {bounds}."


def _ms(value: float | None) -> str:
    return "" if value is None else f"{1000 * value:,.0f} ms"


def _drops(found: dict[str, Any]) -> str:
    drops = found["drops"]
    rows = [
        [f"`{name}`", f"{number:,.0f}", f"{drops['within_faults'].get(name, 0):,.0f}"]
        for name, number in sorted(drops["whole"].items())
    ]
    return table(["counter", "rose by", "within faults"], rows)


def _balance(found: dict[str, Any]) -> str:
    kept, cut = found["counts"]["streams_in_the_end"], found["counts"]["streams_cut_off_with_queue"]
    head = ["faces", *kept]
    rows = [
        ["of streams whose counts were there in the end", *(f"{number:,}" for number in kept.values())],
        ["of streams cut off with the queue server, as last seen",
         *(f"{cut[name]:,}" for name in kept)],
    ]  # fmt: skip
    unbalanced = found["counts"]["streams_not_balanced"]
    twice = table(["what", "number"], [[name.replace("_", " "), f"{n:,}"] for name, n in found["twice"].items()])
    return f"{table(head, rows)}\n\nStreams that do not balance: {', '.join(unbalanced) or 'none'}.\n\n{twice}"


def _truth(found: dict[str, Any]) -> str:
    head = ["source", "frames", "people as in the scene", "labels as `run` says", "labels as shown", "visits",
            "as one person", "nobody", "several", "seen after", "lost before the end"]  # fmt: skip
    rows = [
        [name, f"{one['frames']:,}", *(f"{one[key]:.2%}" for key in
         ("people_as_in_scene", "labels_as_run_says", "labels_as_shown")),
         *(str(one[key]) for key in ("visits", "as_one_person", "as_nobody", "as_several")),
         _seconds(one["seen_after_s"].get("median")), _seconds(one["lost_before_end_s"].get("median"))]
        for name, one in found["truth"].items()
    ]  # fmt: skip
    return table(head, rows)


def _processes(found: dict[str, Any]) -> str:
    head = ["process", "lives", "longest", "memory, median", "largest", "MB an hour", "open files", "most", "an hour"]
    rows = [
        [role, str(one["lives"]), f"{one['longest_life_s'] / 60:.0f} min", f"{one['pss_mb']['p50']:.0f} MB",
         f"{one['pss_mb']['max']:.0f} MB", _rate(one["own_mb_per_hour"]), f"{one['open_files']['p50']:.0f}",
         f"{one['open_files']['max']:.0f}", _rate(one["open_files_per_hour"])]
        for role, one in found["processes"].items()
    ]  # fmt: skip
    return table(head, rows)


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}"
