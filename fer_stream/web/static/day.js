// One day of one camera: the chart, which can be moved and stretched, and the table of what it shows.

import { address, getJson } from "./api.js";
import { TimelineChart } from "./chart.js";
import { el, keep, say } from "./dom.js";
import { legend } from "./emotions.js";
import { column, segmentRow } from "./panels.js";
import { boundsOf, clock, count, lasting, namer, shortClock, whyGone } from "./format.js";

const LEAST_S = 10;
const MOST_LANES = 40;
const MOST_ROWS = 300;

/**
 * @typedef {import("./chart.js").Span} Span
 * @typedef {import("./chart.js").Blank} Blank
 * @typedef {{id: string, stream_id: string, number: number, name: string, spans: Span[]}} Known
 * @typedef {Known & {first: number, seen_s: number}} Person
 * @typedef {{name: string, date: string, from: number, to: number, people: Person[], gaps: Blank[]}} Day
 */

export function dayView() {
  /** @type {Day | null} */
  let day = null;
  let part = { from: 0, to: 1 };

  const told = el("p", { class: "told" });
  const canvas = el("canvas", { role: "img" });
  const chart = new TimelineChart(canvas, told);
  const facts = el("p", { class: "pale" });
  const range = el("p", { class: "pale", "aria-live": "polite" });
  const more = el("p", { class: "pale" });
  const rows = el("tbody");
  const gapRows = el("tbody");
  const gaps = el("section", { "aria-labelledby": "gaps" }, el("h2", { id: "gaps" }, "Without pictures"),
    table(["From", "Lasted", "Why"], gapRows));
  const tableNote = el("p", { class: "pale" });
  const csv = el("a", { class: "button", download: true }, "Download as CSV");

  const button = (name, work) => el("button", { type: "button", onclick: work }, name);
  const controls = el("div", { class: "buttons", role: "group", "aria-label": "Part of the day" },
    button("Earlier", () => move(-0.5)), button("Later", () => move(0.5)),
    button("Closer", () => stretch(0.5)), button("Wider", () => stretch(2)),
    button("All that there is", () => look(extent(day))), button("Whole day", () => look(day)));
  const held = el("div", { class: "held", tabindex: "0", role: "group",
    "aria-label": "Timeline. Left and right move it, plus and minus stretch it.", onkeydown: onKey }, canvas);
  const element = el("div", { hidden: true },
    el("section", { "aria-labelledby": "timeline" },
      el("div", { class: "title" }, el("h2", { id: "timeline" }, "Timeline"), facts),
      controls, range, held, more, told, legend()),
    gaps,
    el("section", { "aria-labelledby": "segments" }, el("h2", { id: "segments" }, "Segments"), tableNote,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of segments" },
        table(["Person", "Label", "From", "Lasted"], rows))));
  drag(held, move);
  new ResizeObserver(() => draw()).observe(held);

  function onKey(event) {
    // The browser has its own use for these, as Ctrl + and Alt + Left.
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const work = {
      ArrowLeft: () => move(-0.25), ArrowRight: () => move(0.25), "+": () => stretch(0.5), "-": () => stretch(2),
      Home: () => look(day), Escape: () => look(extent(day)),
    }[event.key];
    if (!work) return;
    event.preventDefault();
    work();
  }

  function move(share) {
    const by = share * (part.to - part.from);
    look({ from: part.from + by, to: part.to + by });
  }

  function stretch(factor) {
    const middle = (part.from + part.to) / 2;
    const half = Math.max(LEAST_S, (part.to - part.from) * factor) / 2;
    look({ from: middle - half, to: middle + half });
  }

  /** Looks at a part of the day, and not beyond it. */
  function look({ from, to }) {
    const length = Math.min(to - from, day.to - day.from);
    const start = Math.min(Math.max(from, day.from), day.to - length);
    part = { from: start, to: start + length };
    draw();
  }

  function draw() {
    if (!day) return;
    const { from, to } = part;
    const people = day.people.filter(({ spans }) => spans.some((span) => reaches(span, part)));
    const longest = [...people].sort((a, b) => b.seen_s - a.seen_s).slice(0, MOST_LANES);
    chart.draw({ from, to, lanes: people.filter((person) => longest.includes(person)), blanks: day.gaps });
    say(range, `${clock(from)} to ${clock(to)}`);
    say(more, people.length > MOST_LANES ? `and ${people.length - MOST_LANES} more, who were seen for shorter` : "");
    canvas.setAttribute("aria-label", `Timeline of ${count(people.length, "person", "people")} ` +
      `from ${shortClock(from)} to ${shortClock(to)}; the table below says the same.`);
    fill(people);
  }

  function fill(people) {
    const named = people.flatMap(({ id, name, spans }) => spans.map((span) => ({ id, name, ...span })));
    const spans = named.filter((span) => reaches(span, part)).sort((a, b) => a.from - b.from);
    say(tableNote, spans.length > MOST_ROWS
      ? `The first ${MOST_ROWS} of ${spans.length} in the part of the day that is shown; the CSV file holds them all.`
      : `${count(spans.length, "segment")} in the part of the day that is shown.`);
    keep(rows, spans.slice(0, MOST_ROWS), (span) => `${span.id} ${span.from}`, segmentRow);
    gaps.hidden = day.gaps.length === 0;
    keep(gapRows, day.gaps, ({ from }) => from, gapRow);
  }

  return {
    element,
    csv,
    isToday: () => day !== null && Date.now() / 1000 < day.to,

    /** Shows a day of a camera, or nothing where there is none. */
    async show(name, date, signal) {
      const same = day && day.name === name && day.date === date;
      if (!same) day = null;
      element.hidden = !same;
      csv.hidden = !date;
      if (!date) return;
      csv.href = timelineUrl(name, boundsOf(date), "csv");
      day = await load(name, date, signal);
      element.hidden = false;
      const segments = day.people.reduce((sum, { spans }) => sum + spans.length, 0);
      const people = count(day.people.length, "person", "people");
      say(facts, `${people}, ${count(segments, "segment")}, ${count(day.gaps.length, "gap")}`);
      look(same ? part : extent(day));
    },
  };
}

const reaches = (span, { from, to }) => span.to > from && span.from < to;

const table = (columns, body) => el("table", {}, el("thead", {}, el("tr", {}, ...columns.map(column))), body);

function gapRow({ from, to, text }) {
  const cells = [clock(from), lasting(to - from), text].map((each) => el("td", {}, each));
  return { element: el("tr", {}, ...cells), update() {} };
}

function timelineUrl(name, { from, to }, format) {
  return `${address("sources", name, "timeline")}?${new URLSearchParams({ from, to, format })}`;
}

/** @returns {Promise<Day>} */
async function load(name, date, signal) {
  const bounds = boundsOf(date);
  const { people, gaps } = await getJson(timelineUrl(name, bounds, "json"), signal);
  const known = people.map(personOf).sort((a, b) => a.first - b.first);
  const nameOf = namer(known);
  return {
    name,
    date,
    ...bounds,
    people: known.map((person) => ({ ...person, name: nameOf(person) })),
    gaps: gaps.map(({ start_at, end_at, reason }) => ({ from: start_at, to: end_at, text: whyGone(reason) })),
  };
}

function personOf({ person, stream_id, segments }) {
  const spans = segments.map(({ label, start_at, end_at }) => ({ label, from: start_at, to: end_at }));
  return {
    id: `${stream_id} ${person}`,
    stream_id,
    number: person,
    spans,
    first: spans[0].from,
    seen_s: spans.reduce((sum, { from, to }) => sum + to - from, 0),
  };
}

/** From the first to the last of all that there is, with a little air. @param {Day} day */
function extent({ from, to, people, gaps }) {
  const all = [...people.flatMap(({ spans }) => spans), ...gaps];
  const first = all.reduce((least, span) => Math.min(least, span.from), to);
  const last = all.reduce((most, span) => Math.max(most, span.to), from);
  const air = Math.max(2, 0.02 * (last - first));
  return { from: Math.max(from, first - air), to: Math.min(to, last + air) };
}

/** Lets a finger or the mouse move the timeline. @param {(share: number) => void} move */
function drag(element, move) {
  let x = null;
  element.addEventListener("pointerdown", (event) => { x = event.clientX; });
  element.addEventListener("pointermove", (event) => {
    if (x === null || !event.buttons) return;
    move((x - event.clientX) / element.clientWidth);
    x = event.clientX;
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) {
    element.addEventListener(name, () => { x = null; });
  }
}
