"""Formatting of times and numbers for the console, images and reports."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fer_stream.records import UNKNOWN, PersonSummary


def format_time(time_s: float) -> str:
    """Format a media time to a tenth of a second: `0:05.3`, `1:02:05.3`."""
    tenths = round(time_s * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"


def parse_time(text: str) -> float:
    """Convert seconds, `1:30.5` or `0:01:30.5` to seconds. Raises `ValueError` for anything else."""
    match = re.fullmatch(r"(?:(\d+:)?(\d+):(?=[0-5]\d))?(\d+(?:\.\d+)?)", text.strip())
    if match is None or (match[1] and int(match[2]) >= 60) or (match[2] and float(match[3]) >= 60):
        raise ValueError(f"{text!r} is not a valid time. Use seconds (90.5) or hh:mm:ss (1:30 or 0:01:30.5).")
    return 3600 * int((match[1] or "0").rstrip(":")) + 60 * int(match[2] or 0) + float(match[3])


def format_duration(seconds: float) -> str:
    """Format a duration: `4.7 s`, `2 min 19 s`, `1 h 2 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, remainder = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {remainder} s"
    return f"{minutes // 60} h {minutes % 60} min"


def pluralize(number: int, noun: str, plural: str | None = None) -> str:
    """Format a number with its noun: `1 person`, `0 people`, `1,394 frames`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def format_percent(share: float) -> str:
    """Format a share, 0..1, as `61 %`; a positive share that would round to 0 % is `under 1 %`."""
    return f"{100 * share:.0f} %" if share >= 0.005 or share <= 0 else "under 1 %"


def format_reason(reason: str) -> str:
    """Format a reason for `unknown`: `off frontal`."""
    return reason.replace("_", " ")


def format_label(label: str, unknown_reason: str | None) -> str:
    """Format a label, with the reason if it is `unknown`: `unknown: off frontal`."""
    return f"{label}: {format_reason(unknown_reason)}" if unknown_reason else label


def format_shares(shares: Mapping[str, float], unknown_shares: Mapping[str, float]) -> str:
    """Format shares of labels and of the reasons for `unknown`: `happy 60 %, unknown 40 % (blurred)`.

    Labels are in descending order; those of segments without length, with share 0, are omitted. Reasons that round to
    0 % are omitted; a single one has no number.
    """
    labels = sorted(((label, share) for label, share in shares.items() if share > 0), key=lambda item: -item[1])
    return ", ".join(
        f"{label} {format_percent(share)}{_reasons(unknown_shares) if label == UNKNOWN else ''}"
        for label, share in labels
    )


def format_labels(person: PersonSummary) -> str:
    """Describe the labels of a person: `sad for 52 % of the time (mean probability 0.36), neutral for 48 % (0.41)`.

    In a still image: `sad (probability 0.36)`. `unknown` has reasons instead of a probability.
    """
    if not any(segment.end_s > segment.start_s for segment in person.segments):
        return ", ".join(
            format_label(it.label, it.unknown_reason)
            if it.label == UNKNOWN
            else f"{it.label} (probability {it.mean_prob:.2f})"
            for it in person.segments
        )
    parts: list[str] = []
    for label, share in sorted(person.shares.items(), key=lambda item: -item[1]):
        if share <= 0:
            continue
        time, name = ("", "") if parts else (" of the time", "mean probability ")
        mean = f" ({name}{_mean_probability(person, label):.2f})"
        detail = _reasons(person.unknown_shares) if label == UNKNOWN else mean
        parts.append(f"{label} for {format_percent(share)}{time}{detail}")
    return ", ".join(parts)


def _mean_probability(person: PersonSummary, label: str) -> float:
    """Return the mean smoothed probability of `label` over the time in which a person has it."""
    spans = [(it.end_s - it.start_s, it.mean_prob) for it in person.segments if it.label == label]
    return sum(span_s * prob for span_s, prob in spans) / sum(span_s for span_s, _ in spans)


def _reasons(unknown_shares: Mapping[str, float]) -> str:
    shown = [(format_reason(reason), share) for reason, share in unknown_shares.items() if round(100 * share) > 0]
    if len(shown) == 1:
        return f" ({shown[0][0]})"
    return f" ({', '.join(f'{reason} {format_percent(share)}' for reason, share in shown)})" if shown else ""
