// The parts of a camera's page that are painted again and again. Each is `{element, paint(moment)}`.

import { TimelineChart } from "./chart.js";
import { el, keep, say } from "./dom.js";
import { LABELS, legend, sharesBar, swatch, UNKNOWN } from "./emotions.js";
import { KEPT_S, seenLast } from "./live-timeline.js";
import { title } from "./video-overlay.js";
import { clock, count, lasting, percent, shortClock, unjudged } from "./format.js";

/**
 * @typedef {object} Moment
 * @property {any} newest  the newest frame, or null before the first one
 * @property {any} live  the same, or null where it is too old to say who is there
 * @property {number} now  the clock of the service, in Unix seconds
 */

const WINDOWS_S = [120, KEPT_S];
const MOST_LANES = 20;
const MOST_ROWS = 100;

/** The picture with its boxes. @param {import("./video-overlay.js").Stage} stage @param {HTMLCanvasElement} canvas */
export function picturePanel(stage, canvas) {
  const caption = el("figcaption");
  let off = false;
  return {
    element: el("figure", {}, canvas, caption),
    /** @param {Moment} moment */
    paint({ live }) {
      stage.draw(live?.faces ?? []);
      const told = stage.faces.map(title).join(", ");
      const faces = count(stage.faces.length, "face");
      canvas.setAttribute("aria-label", told ? `${faces}: ${told}` : "No face in the picture");
      say(caption, stage.hasPicture ? "Boxes and labels are those of the picture that is shown."
        : off ? "Pictures of this camera are switched off (web.previews): boxes show where the faces are."
          : "No picture yet: boxes show where the faces are.");
    },
    /** Say that there will be no pictures. */
    withoutPictures() {
      off = true;
    },
  };
}

/** Who is in the picture now. */
export function peoplePanel() {
  const heading = el("h2", { id: "who" }, "In the picture now");
  const none = el("p", { class: "pale" });
  const list = el("ul", { class: "people" });
  return {
    element: el("section", { "aria-labelledby": "who" }, heading, none, list),
    /** @param {Moment} moment */
    paint({ newest, live }) {
      const faces = live?.faces ?? [];
      keep(list, faces, ({ person_id }) => person_id, person);
      none.hidden = faces.length > 0;
      say(none, live ? "No face." : newest ? "No pictures come." : "Waiting for the first picture.");
    },
  };
}

function person({ person_id }) {
  const mark = el("span");
  const label = el("span");
  const told = el("span", { class: "told" });
  const bar = sharesBar();
  const element = el("li", {},
    el("p", {}, mark, el("strong", {}, `Person ${person_id}`), label, told), bar.element);
  return {
    element,
    /** @param {import("./video-overlay.js").Face & {probs: Record<string, number>}} face */
    update(face) {
      const prob = face.probs[face.label];
      mark.className = `swatch ${face.label}`;
      say(label, face.label);
      say(told, prob === undefined ? unjudged(face.quality.reason) : percent(prob));
      bar.update(face.label === UNKNOWN ? { [UNKNOWN]: 1 } : face.probs);
    },
  };
}

/** What each person showed in the last minutes. @param {import("./live-timeline.js").Recent} recent */
export function timelinePanel(recent) {
  let window_s = WINDOWS_S[0];
  const canvas = el("canvas", { role: "img" });
  const told = el("p", { class: "told" });
  const chart = new TimelineChart(canvas, told);
  const more = el("p", { class: "pale" });
  const rows = el("tbody");
  const table = el("details", {}, el("summary", {}, "The same as a table"),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Segments of the last minutes" },
      el("table", {}, el("thead", {}, el("tr", {}, ...["Person", "Label", "From", "Lasted"].map(column))), rows)));
  const choices = WINDOWS_S.map((each) =>
    el("button", { type: "button", onclick: () => { window_s = each; press(); } }, `${each / 60} min`));
  const press = () => choices.forEach((button, index) =>
    button.setAttribute("aria-pressed", String(WINDOWS_S[index] === window_s)));
  press();
  return {
    element: el("section", { "aria-labelledby": "last" },
      el("div", { class: "title" }, el("h2", { id: "last" }, "Last minutes"),
        el("div", { class: "buttons", role: "group", "aria-label": "How far back" }, ...choices)),
      canvas, more, told, legend(),
      el("p", { class: "pale" }, "What began before this page was opened appears when it is over."), table),
    /** @param {Moment} moment */
    paint({ now }) {
      const from = now - window_s;
      const people = recent.people(from);
      const lanes = seenLast(people, MOST_LANES);
      const blanks = recent.blanks(from, now).map((blank) => ({ ...blank, text: "no pictures" }));
      chart.draw({ from, to: now, lanes, blanks });
      canvas.setAttribute("aria-label", `Timeline of ${count(people.length, "person", "people")} ` +
        `from ${shortClock(from)} to ${shortClock(now)}; the table below says the same.`);
      say(more, people.length > lanes.length ? `and ${people.length - lanes.length} more` : "");
      if (table.open) tell(rows, people, from);
    },
  };
}

export const column = (name) => el("th", { scope: "col" }, name);

function tell(rows, people, from) {
  const named = people.flatMap(({ id, name, spans }) => spans.map((span) => ({ id, name, ...span })));
  const spans = named.filter(({ to }) => to >= from).sort((a, b) => b.from - a.from);
  keep(rows, spans.slice(0, MOST_ROWS), (span) => `${span.id} ${span.from}`, segmentRow);
}

/** A row of a table of segments. @param {{name: string, label: string, from: number, to: number}} span */
export function segmentRow({ name, label, from }) {
  const lasted = el("td");
  return {
    element: el("tr", {}, el("td", {}, name), el("td", {}, el("span", { class: "labelled" }, swatch(label), label)),
      el("td", {}, clock(from)), lasted),
    update: (span) => say(lasted, lasting(span.to - span.from)),
  };
}

/** How often each label was seen in the last minute, and how many faces have it now. */
export function sharesPanel(minute) {
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
      el("table", {}, el("thead", {}, el("tr", {}, column("Emotion"), el("td", { class: "wide" }),
        ...["last minute", "faces now"].map((name) => el("th", { scope: "col", class: "number" }, name)))),
      el("tbody", {}, ...lines.map(({ element }) => element)))),
    /** @param {Moment} moment */
    paint({ live, now }) {
      const shares = minute.shares(now);
      for (const { label, fill, share, faces } of lines) {
        fill.style.flexGrow = shares[label];
        say(share, percent(shares[label]));
        say(faces, String(live?.faces.filter((face) => face.label === label).length ?? 0));
      }
    },
  };
}

/** How old results are when they get here, and how many come. */
export function timingPanel(minute) {
  const names = ["Newest result", "95% within, last minute", "Pictures a second", "Newest picture"];
  const facts = names.map((name) => ({ name, value: el("dd") }));
  const ms = (seconds) => (Number.isFinite(seconds) ? `${Math.round(1000 * seconds)} ms` : "–");
  return {
    element: el("section", { "aria-labelledby": "timing" }, el("h2", { id: "timing" }, "Timing"),
      el("dl", { class: "stats" }, ...facts.map(({ name, value }) => el("div", {}, el("dt", {}, name), value))),
      el("p", { class: "pale" }, "From the camera's picture to the label, as the service measured it.")),
    /** @param {Moment} moment */
    paint({ newest, live, now }) {
      const rate = minute.rate(now);
      const playback = Number.isFinite(rate) ? rate.toFixed(1) : "–";
      const values = [ms(live?.latency_s), ms(minute.p95(now)), playback, newest ? clock(newest.at) : "–"];
      facts.forEach(({ value }, index) => say(value, values[index]));
    },
  };
}
