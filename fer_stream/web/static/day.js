// One day of a camera: a chart that can be panned and zoomed, and a table with the same content.

import { apiUrl, getJson } from "./api.js";
import { TimelineChart } from "./chart.js";
import { el, reconcile, setText } from "./dom.js";
import { legend } from "./emotions.js";
import { dayBounds, formatDuration, formatMinute, formatTime, gapText, personNamer, pluralize } from "./format.js";
import { columnHeader, SEGMENT_COLUMNS, segmentRow } from "./panels.js";

const MIN_RANGE_S = 10;
const MAX_LANES = 40;
const MAX_ROWS = 300;

/**
 * @typedef {import("./chart.js").Span} Span
 * @typedef {import("./chart.js").Gap} Gap
 * @typedef {{id: string, stream_id: string, person_id: number, name: string, spans: Span[]}} Lane
 * @typedef {Lane & {first: number, total_s: number}} Person
 * @typedef {{name: string, date: string, from: number, to: number, people: Person[], gaps: Gap[]}} Day
 */

export function dayView() {
  /** @type {Day | null} */
  let day = null;
  let visible = { from: 0, to: 1 };

  const readout = el("p", { class: "readout" });
  const canvas = el("canvas", { role: "img" });
  const chart = new TimelineChart(canvas, readout);
  const summary = el("p", { class: "muted" });
  const range = el("p", { class: "muted", "aria-live": "polite" });
  const more = el("p", { class: "muted" });
  const rows = el("tbody");
  const gapRows = el("tbody");
  const gaps = el("section", { "aria-labelledby": "gaps" }, el("h2", { id: "gaps" }, "Gaps"),
    table(["From", "Duration", "Reason"], gapRows));
  const tableNote = el("p", { class: "muted" });
  const csvLink = el("a", { class: "button", download: true }, "Download as CSV");

  const button = (name, onclick) => el("button", { type: "button", onclick }, name);
  const controls = el("div", { class: "buttons", role: "group", "aria-label": "Visible time range" },
    button("Earlier", () => pan(-0.5)), button("Later", () => pan(0.5)),
    button("Zoom in", () => zoom(0.5)), button("Zoom out", () => zoom(2)),
    button("Fit", () => setVisible(extent(day))), button("Whole day", () => setVisible(day)));
  const timeline = el("div", { class: "timeline", tabindex: "0", role: "group",
    "aria-label": "Timeline. Left and right arrows pan, plus and minus zoom.", onkeydown: onKey }, canvas);
  const element = el("div", { hidden: true },
    el("section", { "aria-labelledby": "timeline" },
      el("div", { class: "title" }, el("h2", { id: "timeline" }, "Timeline"), summary),
      controls, range, timeline, more, readout, legend()),
    gaps,
    el("section", { "aria-labelledby": "segments" }, el("h2", { id: "segments" }, "Segments"), tableNote,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of segments" },
        table(SEGMENT_COLUMNS, rows))));
  onDrag(timeline, pan);
  new ResizeObserver(() => draw()).observe(timeline);

  function onKey(event) {
    // Combinations such as Ctrl + and Alt + Left belong to the browser.
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const action = {
      ArrowLeft: () => pan(-0.25), ArrowRight: () => pan(0.25), "+": () => zoom(0.5), "-": () => zoom(2),
      Home: () => setVisible(day), Escape: () => setVisible(extent(day)),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  function pan(fraction) {
    const offset = fraction * (visible.to - visible.from);
    setVisible({ from: visible.from + offset, to: visible.to + offset });
  }

  function zoom(factor) {
    const middle = (visible.from + visible.to) / 2;
    const half = Math.max(MIN_RANGE_S, (visible.to - visible.from) * factor) / 2;
    setVisible({ from: middle - half, to: middle + half });
  }

  /** Shows a time range, limited to the day. */
  function setVisible({ from, to }) {
    const length = Math.min(to - from, day.to - day.from);
    const start = Math.min(Math.max(from, day.from), day.to - length);
    visible = { from: start, to: start + length };
    draw();
  }

  function draw() {
    if (!day) return;
    const { from, to } = visible;
    const people = day.people.filter(({ spans }) => spans.some((span) => overlaps(span, visible)));
    const longest = [...people].sort((a, b) => b.total_s - a.total_s).slice(0, MAX_LANES);
    chart.draw({ from, to, lanes: people.filter((person) => longest.includes(person)), gaps: day.gaps });
    setText(range, `${formatTime(from)} to ${formatTime(to)}`);
    setText(more, people.length > MAX_LANES ? `and ${people.length - MAX_LANES} more with shorter presence` : "");
    canvas.setAttribute("aria-label", `Timeline of ${pluralize(people.length, "person", "people")} ` +
      `from ${formatMinute(from)} to ${formatMinute(to)}; the table below has the same content.`);
    updateTables(people);
  }

  function updateTables(people) {
    const all = people.flatMap(({ id, name, spans }) => spans.map((span) => ({ id, name, ...span })));
    const spans = all.filter((span) => overlaps(span, visible)).sort((a, b) => a.from - b.from);
    setText(tableNote, spans.length > MAX_ROWS
      ? `The first ${MAX_ROWS} of ${spans.length} segments in the visible time range; the CSV file has all.`
      : `${pluralize(spans.length, "segment")} in the visible time range.`);
    reconcile(rows, spans.slice(0, MAX_ROWS), (span) => `${span.id} ${span.from}`, segmentRow);
    gaps.hidden = day.gaps.length === 0;
    reconcile(gapRows, day.gaps, ({ from }) => from, gapRow);
  }

  return {
    element,
    csvLink,
    isToday: () => day !== null && Date.now() / 1000 < day.to,

    /** Shows a day of a camera, or nothing without a date. */
    async show(name, date, signal) {
      const same = day && day.name === name && day.date === date;
      if (!same) day = null;
      element.hidden = !same;
      csvLink.hidden = !date;
      if (!date) return;
      csvLink.href = timelineUrl(name, dayBounds(date), "csv");
      day = await load(name, date, signal);
      element.hidden = false;
      const segments = day.people.reduce((sum, { spans }) => sum + spans.length, 0);
      const people = pluralize(day.people.length, "person", "people");
      setText(summary, `${people}, ${pluralize(segments, "segment")}, ${pluralize(day.gaps.length, "gap")}`);
      setVisible(same ? visible : extent(day));
    },
  };
}

const overlaps = (span, { from, to }) => span.to > from && span.from < to;

const table = (columns, body) => el("table", {}, el("thead", {}, el("tr", {}, ...columns.map(columnHeader))), body);

function gapRow({ from, to, text }) {
  const cells = [formatTime(from), formatDuration(to - from), text].map((each) => el("td", {}, each));
  return { element: el("tr", {}, ...cells), update() {} };
}

function timelineUrl(name, { from, to }, format) {
  return `${apiUrl("sources", name, "timeline")}?${new URLSearchParams({ from, to, format })}`;
}

/** @returns {Promise<Day>} */
async function load(name, date, signal) {
  const bounds = dayBounds(date);
  const { people, gaps } = await getJson(timelineUrl(name, bounds, "json"), signal);
  const persons = people.map(toPerson).sort((a, b) => a.first - b.first);
  const nameOf = personNamer(persons);
  return {
    name,
    date,
    ...bounds,
    people: persons.map((person) => ({ ...person, name: nameOf(person) })),
    gaps: gaps.map(({ start_at, end_at, reason }) => ({ from: start_at, to: end_at, text: gapText(reason) })),
  };
}

function toPerson({ person_id, stream_id, segments }) {
  const spans = segments.map(({ label, unknown_reason, start_at, end_at }) =>
    ({ label, unknown_reason, from: start_at, to: end_at }));
  return {
    id: `${stream_id} ${person_id}`,
    stream_id,
    person_id,
    spans,
    first: spans[0].from,
    total_s: spans.reduce((sum, { from, to }) => sum + to - from, 0),
  };
}

/** Returns the range of all segments and gaps, with a margin. @param {Day} day */
function extent({ from, to, people, gaps }) {
  const all = [...people.flatMap(({ spans }) => spans), ...gaps];
  const first = all.reduce((min, span) => Math.min(min, span.from), to);
  const last = all.reduce((max, span) => Math.max(max, span.to), from);
  const margin = Math.max(2, 0.02 * (last - first));
  return { from: Math.max(from, first - margin), to: Math.min(to, last + margin) };
}

/** Reports drag movements of the mouse or a finger as fractions of the width. @param {(fraction: number) => void} pan */
function onDrag(element, pan) {
  let x = null;
  element.addEventListener("pointerdown", (event) => { x = event.clientX; });
  element.addEventListener("pointermove", (event) => {
    if (x === null || !event.buttons) return;
    pan((x - event.clientX) / element.clientWidth);
    x = event.clientX;
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) {
    element.addEventListener(name, () => { x = null; });
  }
}
