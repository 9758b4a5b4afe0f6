// Panels of a camera's page that are redrawn continuously. Each is `{element, update(view)}`.

import { TimelineChart } from "./chart.js";
import { el, reconcile, setText } from "./dom.js";
import { EMOTIONS, LABELS, legend, sharesBar, swatch, UNKNOWN } from "./emotions.js";
import { formatDuration, formatMinute, formatPercent, formatTime, labelText, pluralize, unknownText } from "./format.js";
import { HISTORY_S, mostRecent } from "./live-timeline.js";
import { faceText } from "./video-overlay.js";

/**
 * @typedef {object} View
 * @property {any} newest  the newest frame, or null before the first one
 * @property {any} live  the newest frame, or null if it is too old to show its faces as present
 * @property {number} now  the clock of the service, in Unix seconds
 */

const WINDOWS_S = [120, HISTORY_S];
const MAX_LANES = 20;
const MAX_ROWS = 100;

/**
 * The preview with its boxes.
 * @param {import("./video-overlay.js").VideoOverlay} overlay
 * @param {HTMLCanvasElement} canvas
 */
export function videoPanel(overlay, canvas) {
  const caption = el("figcaption");
  let disabled = false;
  return {
    element: el("figure", {}, canvas, caption),
    /** @param {View} view */
    update({ live }) {
      overlay.draw(live?.faces ?? []);
      const texts = overlay.faces.map(faceText).join(", ");
      const faces = pluralize(overlay.faces.length, "face");
      canvas.setAttribute("aria-label", texts ? `${faces}: ${texts}` : "No faces in the frame");
      setText(caption, overlay.hasPreview ? "Boxes and labels belong to the frame shown."
        : disabled ? "Previews are disabled (web.previews): boxes show the positions of faces."
          : "No preview yet: boxes show the positions of faces.");
    },
    /** Call if the service has disabled previews. */
    previewsDisabled() {
      disabled = true;
    },
  };
}

/** The people in the current frame. */
export function peoplePanel() {
  const heading = el("h2", { id: "who" }, "People in view");
  const empty = el("p", { class: "muted" });
  const list = el("ul", { class: "people" });
  return {
    element: el("section", { "aria-labelledby": "who" }, heading, empty, list),
    /** @param {View} view */
    update({ newest, live }) {
      const faces = live?.faces ?? [];
      reconcile(list, faces, ({ person_id }) => person_id, personItem);
      empty.hidden = faces.length > 0;
      setText(empty, live ? "No faces." : newest ? "No frames are arriving." : "Waiting for the first frame.");
    },
  };
}

function personItem({ person_id }) {
  const mark = el("span");
  const label = el("span");
  const detail = el("span", { class: "readout" });
  const bar = sharesBar();
  const element = el("li", {},
    el("p", {}, mark, el("strong", {}, `Person ${person_id}`), label, detail), bar.element);
  return {
    element,
    /** @param {import("./video-overlay.js").Face & {smoothed: number[]}} face */
    update(face) {
      const prob = face.smoothed[EMOTIONS.indexOf(face.label)];
      mark.className = `swatch ${face.label}`;
      setText(label, face.label);
      setText(detail, prob === undefined ? unknownText(face.unknown_reason) : formatPercent(prob));
      const shares = EMOTIONS.map((emotion, index) => [emotion, face.smoothed[index]]);
      bar.update(face.label === UNKNOWN ? { [UNKNOWN]: 1 } : Object.fromEntries(shares));
    },
  };
}

/** Labels of each person over the last minutes. @param {import("./live-timeline.js").LiveTimeline} timeline */
export function timelinePanel(timeline) {
  let window_s = WINDOWS_S[0];
  const canvas = el("canvas", { role: "img" });
  const readout = el("p", { class: "readout" });
  const chart = new TimelineChart(canvas, readout);
  const more = el("p", { class: "muted" });
  const rows = el("tbody");
  const table = el("details", {}, el("summary", {}, "View as table"),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Segments of the last minutes" },
      el("table", {}, el("thead", {}, el("tr", {}, ...SEGMENT_COLUMNS.map(columnHeader))), rows)));
  const buttons = WINDOWS_S.map((each) =>
    el("button", { type: "button", onclick: () => { window_s = each; updateButtons(); } }, `${each / 60} min`));
  const updateButtons = () => buttons.forEach((button, index) =>
    button.setAttribute("aria-pressed", String(WINDOWS_S[index] === window_s)));
  updateButtons();
  return {
    element: el("section", { "aria-labelledby": "last" },
      el("div", { class: "title" }, el("h2", { id: "last" }, "Last minutes"),
        el("div", { class: "buttons", role: "group", "aria-label": "Time range" }, ...buttons)),
      canvas, more, readout, legend(),
      el("p", { class: "muted" }, "Segments that began before this page was opened appear when they are complete."), table),
    /** @param {View} view */
    update({ now }) {
      const from = now - window_s;
      const people = timeline.people(from);
      const lanes = mostRecent(people, MAX_LANES);
      const gaps = timeline.gaps(from, now).map((gap) => ({ ...gap, text: "no frames" }));
      chart.draw({ from, to: now, lanes, gaps });
      canvas.setAttribute("aria-label", `Timeline of ${pluralize(people.length, "person", "people")} ` +
        `from ${formatMinute(from)} to ${formatMinute(now)}; the table below has the same content.`);
      setText(more, people.length > lanes.length ? `and ${people.length - lanes.length} more` : "");
      if (table.open) updateRows(rows, people, from);
    },
  };
}

export const SEGMENT_COLUMNS = ["Person", "Label", "From", "Duration"];

export const columnHeader = (name) => el("th", { scope: "col" }, name);

function updateRows(rows, people, from) {
  const all = people.flatMap(({ id, name, spans }) => spans.map((span) => ({ id, name, ...span })));
  const newestFirst = all.filter(({ to }) => to >= from).sort((a, b) => b.from - a.from);
  reconcile(rows, newestFirst.slice(0, MAX_ROWS), (span) => `${span.id} ${span.from}`, segmentRow);
}

/** Creates a row of a table of segments. @param {import("./chart.js").Span & {name: string}} span */
export function segmentRow({ name, label, from }) {
  const text = el("span");
  const duration = el("td");
  return {
    element: el("tr", {}, el("td", {}, name), el("td", {}, el("span", { class: "labelled" }, swatch(label), text)),
      el("td", {}, formatTime(from)), duration),
    /** @param {import("./chart.js").Span} span */
    update(span) {
      setText(text, labelText(span));
      setText(duration, formatDuration(span.to - span.from));
    },
  };
}

/** Share of each label in the last minute, and the number of faces that have it now. */
export function sharesPanel(stats) {
  const lines = LABELS.map((label) => {
    const fill = el("span", { class: label });
    const share = el("td", { class: "number" });
    const faces = el("td", { class: "number" });
    const element = el("tr", {}, el("th", { scope: "row" }, el("span", { class: "labelled" }, swatch(label), label)),
      el("td", { class: "wide", "aria-hidden": "true" }, el("div", { class: "shares" }, fill)), share, faces);
    return { label, fill, share, faces, element };
  });
  return {
    element: el("section", { "aria-labelledby": "shares" }, el("h2", { id: "shares" }, "Distribution"),
      el("table", {}, el("thead", {}, el("tr", {}, columnHeader("Emotion"), el("td", { class: "wide" }),
        ...["last minute", "faces now"].map((name) => el("th", { scope: "col", class: "number" }, name)))),
      el("tbody", {}, ...lines.map(({ element }) => element)))),
    /** @param {View} view */
    update({ live, now }) {
      const shares = stats.shares(now);
      for (const { label, fill, share, faces } of lines) {
        fill.style.flexGrow = shares[label];
        setText(share, formatPercent(shares[label]));
        setText(faces, String(live?.faces.filter((face) => face.label === label).length ?? 0));
      }
    },
  };
}

/** Latency of results and frame rate of the camera. */
export function timingPanel(stats) {
  const names = ["Latency", "Latency, 95th percentile (1 min)", "Frames per second", "Newest frame"];
  const facts = names.map((name) => ({ name, value: el("dd") }));
  const ms = (seconds) => (Number.isFinite(seconds) ? `${Math.round(1000 * seconds)} ms` : "–");
  return {
    element: el("section", { "aria-labelledby": "timing" }, el("h2", { id: "timing" }, "Timing"),
      el("dl", { class: "stats" }, ...facts.map(({ name, value }) => el("div", {}, el("dt", {}, name), value))),
      el("p", { class: "muted" }, "Latency is from the capture of the frame to the label, measured by the service.")),
    /** @param {View} view */
    update({ newest, live, now }) {
      const rate = stats.rate(now);
      const fps = Number.isFinite(rate) ? rate.toFixed(1) : "–";
      const values = [ms(live?.latency_s), ms(stats.p95(now)), fps, newest ? formatTime(newest.at) : "–"];
      facts.forEach(({ value }, index) => setText(value, values[index]));
    },
  };
}
