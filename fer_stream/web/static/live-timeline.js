// The last minutes of one camera, as far as its page shows them. Nothing here grows without bound.

import { LABELS } from "./emotions.js";
import { namer } from "./format.js";

/** For so long the timeline reaches back. */
export const KEPT_S = 300;

// A person who is away for longer begins a new bar, and so does the camera. Longer than between two pictures at 1 fps.
const JOIN_S = 1.5;
const MOST_PEOPLE = 100;
const MOST_SPANS = 600;
const MINUTE_S = 60;
const PACE_S = 10;
const SEEN = "seen";
const UNHEARD = "unheard";

/**
 * @typedef {import("./chart.js").Span} Span
 * @typedef {{id: string, stream_id: string, number: number, spans: Span[]}} Person
 */

/** Adds to the last of `spans` or begins a new one. */
function extend(spans, label, at) {
  const last = spans.at(-1);
  const near = last && at - last.to <= JOIN_S;
  if (near) last.to = Math.max(last.to, at);
  if (near && last.label === label) return;
  spans.push({ label, from: at, to: at });
  if (spans.length > MOST_SPANS) spans.shift();
}

/** Those `most` of `people` who were seen last, in the order in which they stand. @param {Person[]} people */
export function seenLast(people, most) {
  const newest = [...people].sort((a, b) => b.spans.at(-1).to - a.spans.at(-1).to);
  const chosen = new Set(newest.slice(0, most));
  return people.filter((person) => chosen.has(person));
}

export class Recent {
  /** @type {Map<string, Person>} in the order in which they came */
  #people = new Map();
  /** @type {Span[]} when pictures came, and when nobody here would have heard of any */
  #seen = [];
  #unheard = true;
  /** @type {Omit<Span, "label">[]} */
  #gaps = [];

  /** @param {{stream_id: string, at: number, faces: {person_id: number, label: string}[]}} frame */
  add({ stream_id, at, faces }) {
    if (this.#unheard) this.#seen.push(this.#unheardUntil(at));
    this.#unheard = false;
    extend(this.#seen, SEEN, at);
    for (const { person_id, label } of faces) extend(this.#person(stream_id, person_id).spans, label, at);
    this.#forget(at - KEPT_S);
  }

  /** The connection was made anew. */
  reopen() {
    this.#unheard = true;
  }

  /** Takes the final segments of a person in place of what was provisional. @param {Span[]} spans */
  settle(stream_id, person_id, spans) {
    const person = this.#person(stream_id, person_id);
    const end = spans.at(-1)?.to ?? -Infinity;
    const rest = person.spans.filter(({ to }) => to > end).map((span) => ({ ...span, from: Math.max(span.from, end) }));
    person.spans = [...spans, ...rest];
  }

  /** Takes what the service knows of times without pictures. @param {Omit<Span, "label">[]} gaps */
  settleGaps(gaps) {
    this.#gaps = gaps;
  }

  /** Those who were seen since `from`, who came first first. */
  people(from) {
    const people = [...this.#people.values()].filter(({ spans }) => spans.at(-1)?.to >= from);
    const name = namer(people);
    people.sort((a, b) => a.spans[0].from - b.spans[0].from);
    return people.map((person) => ({ ...person, name: name(person) }));
  }

  /** When no pictures came since `from`: by what was heard, and where nothing was, by what the service knows. */
  blanks(from, to) {
    const seen = this.#unheard ? [...this.#seen, this.#unheardUntil(to)] : this.#seen;
    const unheard = seen.filter(({ label }) => label === UNHEARD);
    const known = this.#gaps.filter((gap) => unheard.some((span) => gap.from < span.to && gap.to > span.from));
    const blanks = [];
    let end = seen[0].from;
    for (const span of [...seen, { from: to, to }]) {
      if (span.from - end > JOIN_S) blanks.push({ from: end, to: span.from });
      end = span.to;
    }
    return [...known, ...blanks].filter((blank) => blank.to > from);
  }

  #person(stream_id, person_id) {
    const id = `${stream_id} ${person_id}`;
    if (!this.#people.has(id)) this.#people.set(id, { id, stream_id, number: person_id, spans: [] });
    return this.#people.get(id);
  }

  /** @returns {Span} */
  #unheardUntil(at) {
    return { label: UNHEARD, from: this.#seen.at(-1)?.to ?? at - KEPT_S, to: at };
  }

  #forget(before) {
    for (const [id, { spans }] of this.#people) {
      while (spans.length && spans[0].to < before) spans.shift();
      if (!spans.length) this.#people.delete(id);
    }
    const kept = seenLast([...this.#people.values()], MOST_PEOPLE);
    this.#people = new Map(kept.map((person) => [person.id, person]));
    while (this.#seen[0]?.to < before) this.#seen.shift();
  }
}

/** Labels and latency of the last minute, and the camera's playback, in a bucket for each second. */
export class Minute {
  /** @type {{second: number, first: any, labels: Record<string, number>, latencies: number[]}[]} */
  #buckets = Array.from({ length: MINUTE_S }, () => ({ second: -1, first: null, labels: {}, latencies: [] }));
  /** @type {any} the newest frame */
  #newest = null;

  /** @param {boolean} timed  whether its latency counts */
  add(frame, timed) {
    const second = Math.floor(frame.at);
    const bucket = this.#buckets[second % MINUTE_S];
    if (bucket.second !== second) Object.assign(bucket, { second, first: frame, labels: {}, latencies: [] });
    this.#newest = frame;
    if (timed) bucket.latencies.push(frame.latency_s);
    for (const { label } of frame.faces) bucket.labels[label] = (bucket.labels[label] ?? 0) + 1;
  }

  #since(from) {
    return this.#buckets.filter(({ second }) => second > from).sort((a, b) => a.second - b.second);
  }

  /** The share of each label in all faces of the last minute, 0..1. @returns {Record<string, number>} */
  shares(now) {
    const minute = this.#since(now - MINUTE_S);
    const counts = LABELS.map((label) => minute.reduce((sum, { labels }) => sum + (labels[label] ?? 0), 0));
    const all = counts.reduce((sum, each) => sum + each, 0);
    return Object.fromEntries(LABELS.map((label, index) => [label, all && counts[index] / all]));
  }

  /** The 95th percentile of latency over the last minute, in s; NaN where there was no frame. */
  p95(now) {
    const all = this.#since(now - MINUTE_S).flatMap(({ latencies }) => latencies).sort((a, b) => a - b);
    return all[Math.min(all.length - 1, Math.floor(0.95 * all.length))] ?? NaN;
  }

  /** The camera's pictures a second over the last ten, those that were not looked at among them; NaN where unknown. */
  rate(now) {
    const first = this.#since(now - PACE_S)[0]?.first;
    if (!first || first.stream_id !== this.#newest.stream_id) return NaN;
    return (this.#newest.index - first.index) / (this.#newest.time_s - first.time_s);
  }
}
