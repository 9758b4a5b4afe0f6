// Data of the last minutes of one camera, in bounded memory.

import { LABELS } from "./emotions.js";
import { personNamer } from "./format.js";

/** Length of the timeline, in seconds. */
export const HISTORY_S = 300;

// A longer absence of a person, or of the camera, starts a new bar. Must exceed the frame interval at 1 fps.
const MAX_INTERRUPTION_S = 1.5;
const MAX_PEOPLE = 100;
const MAX_SPANS = 600;
const MINUTE_S = 60;
const RATE_WINDOW_S = 10;
const RECEIVED = "received";
const DISCONNECTED = "disconnected";

/**
 * @typedef {import("./chart.js").Span} Span
 * @typedef {Omit<Span, "label">} Range
 * @typedef {{id: string, stream_id: string, person_id: number, spans: Span[]}} Person
 */

/**
 * Extends the last span if it has the same label and is recent, otherwise appends a new one. A provisional span has the
 * newest reason.
 */
function extend(spans, label, at, unknown_reason = null) {
  const last = spans.at(-1);
  const adjacent = last && at - last.to <= MAX_INTERRUPTION_S;
  if (adjacent) last.to = Math.max(last.to, at);
  if (adjacent && last.label === label) {
    last.unknown_reason = unknown_reason;
    return;
  }
  spans.push({ label, unknown_reason, from: at, to: at });
  if (spans.length > MAX_SPANS) spans.shift();
}

/** Returns the `max` people who were seen last, in unchanged order. @param {Person[]} people */
export function mostRecent(people, max) {
  const newestFirst = [...people].sort((a, b) => b.spans.at(-1).to - a.spans.at(-1).to);
  const selected = new Set(newestFirst.slice(0, max));
  return people.filter((person) => selected.has(person));
}

export class LiveTimeline {
  /** @type {Map<string, Person>} in order of appearance */
  #people = new Map();
  /** @type {Span[]} when frames were received, and when this page was not connected */
  #reception = [];
  #connected = false;
  /** @type {Range[]} gaps reported by the service */
  #gaps = [];

  /** @param {{stream_id: string, at: number, faces: import("./video-overlay.js").Face[]}} frame */
  add({ stream_id, at, faces }) {
    if (!this.#connected) this.#reception.push(this.#disconnectedUntil(at));
    this.#connected = true;
    extend(this.#reception, RECEIVED, at);
    for (const { person_id, label, unknown_reason } of faces) {
      extend(this.#person(stream_id, person_id).spans, label, at, unknown_reason);
    }
    this.#prune(at - HISTORY_S);
  }

  /** Call when the event stream was reconnected. */
  reconnected() {
    this.#connected = false;
  }

  /** Replaces the provisional labels of a person with final segments. @param {Span[]} spans */
  setFinalSegments(stream_id, person_id, spans) {
    const person = this.#person(stream_id, person_id);
    const end = spans.at(-1)?.to ?? -Infinity;
    const later = person.spans.filter(({ to }) => to > end);
    person.spans = [...spans, ...later.map((span) => ({ ...span, from: Math.max(span.from, end) }))];
  }

  /** Sets the gaps reported by the service. @param {Range[]} gaps */
  setGaps(gaps) {
    this.#gaps = gaps;
  }

  /** Returns the people seen since `from`, in order of appearance. */
  people(from) {
    const people = [...this.#people.values()].filter(({ spans }) => spans.at(-1)?.to >= from);
    const nameOf = personNamer(people);
    people.sort((a, b) => a.spans[0].from - b.spans[0].from);
    return people.map((person) => ({ ...person, name: nameOf(person) }));
  }

  /**
   * Returns the ranges without frames since `from`: as observed by this page and, for times when it was not connected, as
   * reported by the service.
   */
  gaps(from, to) {
    const reception = this.#connected ? this.#reception : [...this.#reception, this.#disconnectedUntil(to)];
    const disconnected = reception.filter(({ label }) => label === DISCONNECTED);
    const reported = this.#gaps.filter((gap) => disconnected.some((span) => gap.from < span.to && gap.to > span.from));
    const observed = [];
    let end = reception[0].from;
    for (const span of [...reception, { from: to, to }]) {
      if (span.from - end > MAX_INTERRUPTION_S) observed.push({ from: end, to: span.from });
      end = span.to;
    }
    return [...reported, ...observed].filter((gap) => gap.to > from);
  }

  #person(stream_id, person_id) {
    const id = `${stream_id} ${person_id}`;
    if (!this.#people.has(id)) this.#people.set(id, { id, stream_id, person_id, spans: [] });
    return this.#people.get(id);
  }

  /** @returns {Span} */
  #disconnectedUntil(at) {
    return { label: DISCONNECTED, from: this.#reception.at(-1)?.to ?? at - HISTORY_S, to: at };
  }

  #prune(before) {
    for (const [id, { spans }] of this.#people) {
      while (spans.length && spans[0].to < before) spans.shift();
      if (!spans.length) this.#people.delete(id);
    }
    const remaining = mostRecent([...this.#people.values()], MAX_PEOPLE);
    this.#people = new Map(remaining.map((person) => [person.id, person]));
    while (this.#reception[0]?.to < before) this.#reception.shift();
  }
}

/** Labels, latency and frame rate of the last minute, in one bucket per second. */
export class MinuteStats {
  /** @type {{second: number, first: any, labels: Record<string, number>, latencies: number[]}[]} */
  #buckets = Array.from({ length: MINUTE_S }, () => ({ second: -1, first: null, labels: {}, latencies: [] }));
  /** @type {any} the newest frame */
  #newest = null;

  /** @param {boolean} withLatency  whether the latency of the frame is meaningful */
  add(frame, withLatency) {
    const second = Math.floor(frame.at);
    const bucket = this.#buckets[second % MINUTE_S];
    if (bucket.second !== second) Object.assign(bucket, { second, first: frame, labels: {}, latencies: [] });
    this.#newest = frame;
    if (withLatency) bucket.latencies.push(frame.latency_s);
    for (const { label } of frame.faces) bucket.labels[label] = (bucket.labels[label] ?? 0) + 1;
  }

  #since(from) {
    return this.#buckets.filter(({ second }) => second > from).sort((a, b) => a.second - b.second);
  }

  /** Returns the share of each label in all faces of the last minute, 0..1. @returns {Record<string, number>} */
  shares(now) {
    const buckets = this.#since(now - MINUTE_S);
    const counts = LABELS.map((label) => buckets.reduce((sum, { labels }) => sum + (labels[label] ?? 0), 0));
    const total = counts.reduce((sum, each) => sum + each, 0);
    return Object.fromEntries(LABELS.map((label, index) => [label, total && counts[index] / total]));
  }

  /** Returns the 95th percentile of the latency over the last minute, in s; NaN without frames. */
  p95(now) {
    const sorted = this.#since(now - MINUTE_S).flatMap(({ latencies }) => latencies).sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(0.95 * sorted.length))] ?? NaN;
  }

  /** Returns the frame rate of the camera over the last 10 s, including frames not analysed; NaN if unknown. */
  rate(now) {
    const first = this.#since(now - RATE_WINDOW_S)[0]?.first;
    if (!first || first.stream_id !== this.#newest.stream_id) return NaN;
    return (this.#newest.index - first.index) / (this.#newest.time_s - first.time_s);
  }
}
