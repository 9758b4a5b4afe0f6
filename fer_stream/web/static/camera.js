// One camera: its picture with boxes, who is there, and the last minutes.

import { address, follow, getJson, repeat, wordsOf } from "./api.js";
import { Clock } from "./clock.js";
import { announce, el, notice } from "./dom.js";
import { peoplePanel, picturePanel, sharesPanel, timelinePanel, timingPanel } from "./panels.js";
import { watch } from "./preview.js";
import { KEPT_S, Minute, Recent } from "./live-timeline.js";
import { Stage } from "./video-overlay.js";
import { stateLine, stateOf } from "./camera-status.js";

// How often the page is painted; seldom for those who asked for less motion.
const PAINT_MS = 250;
const CALM_PAINT_MS = 2000;
const SETTLE_MS = 10_000;
const STALE_S = 3;
const NOT_FOUND = 404;

const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** @param {HTMLElement} main */
export function cameraPage(main, [name], signal) {
  const gone = new AbortController();
  const until = AbortSignal.any([signal, gone.signal]);
  const canvas = el("canvas", { class: "picture", role: "img" });
  const [recent, minute, stage, clock] = [new Recent(), new Minute(), new Stage(canvas), new Clock()];
  const picture = picturePanel(stage, canvas);
  const panels = [picture, peoplePanel(), timelinePanel(recent), sharesPanel(minute), timingPanel(minute)];
  const state = stateLine();
  const trouble = notice();
  const pauser = el("button", { type: "button", "aria-pressed": "false", onclick: freeze }, "Pause");
  main.append(...arranged(name, state.element, pauser, trouble.element, panels.map(({ element }) => element)));

  /** @type {any} the newest frame */
  let newest = null;
  let paused = false;
  /** @type {import("./camera-status.js").State | null} how the camera is, as far as it was told */
  let known = null;

  function freeze() {
    paused = !paused;
    pauser.setAttribute("aria-pressed", String(paused));
  }

  async function paint() {
    if (paused || document.hidden) return;
    const now = clock.now;
    const live = newest && now - newest.at < STALE_S ? newest : null;
    for (const panel of panels) panel.paint({ newest, live, now });
    if (known) state.update(known, now);
  }

  function see(frame) {
    newest = frame;
    minute.add(frame, clock.hear(frame));
    recent.add(frame);
    stage.addFrame(frame);
    trouble.tell("store", "");
  }

  function hear(told) {
    if (known && known.up !== told.up) announce(`${name} is ${stateOf(told, clock.now).name}`);
    known = told;
  }

  function reopen() {
    clock.reopen();
    recent.reopen();
    trouble.tell("stream", "");
  }

  const listeners = {
    open: reopen, refused: (why) => trouble.tell("stream", why), frame: see, state: hear,
    trouble: (problem) => trouble.tell("store", wordsOf(problem)),
  };
  follow(address("sources", name, "live"), listeners, until);
  watch(name, (shown) => stage.addPicture(shown), picture.withoutPictures, until);
  repeat(() => settle(name, recent, clock.now, until).then(() => trouble.tell("store", "")), () => SETTLE_MS, until);
  repeat(paint, () => (calm.matches ? CALM_PAINT_MS : PAINT_MS), until);
  getJson(address("sources", name), signal).then(hear, (error) => {
    trouble.tell("store", error.message);
    if (error.status === NOT_FOUND) gone.abort();
  });
}

/** The elements of the page, in order. */
function arranged(name, state, pauser, trouble, [figure, people, timeline, shares, timing]) {
  return [
    el("div", { class: "title" }, el("h1", { tabindex: "-1" }, name), state,
      el("div", { class: "buttons" }, pauser, el("a", { class: "button", href: `#/history/${name}` }, "History"))),
    trouble,
    el("p", { class: "note" }, "Labels are provisional: they may change for about two seconds. They are estimates of " +
      "the expression of a face, not of what a person feels."),
    el("div", { class: "live" }, figure, people),
    timeline,
    el("div", { class: "split" }, shares, timing),
  ];
}

/** Final segments in place of provisional labels, and what was before the page was opened. */
async function settle(name, recent, now, signal) {
  const url = new URL(address("sources", name, "timeline"));
  url.search = new URLSearchParams({ from: now - KEPT_S, to: now });
  const { people, gaps } = await getJson(url, signal);
  const span = ({ label, start_at, end_at }) => ({ label, from: start_at, to: end_at });
  for (const { stream_id, person, segments } of people) recent.settle(stream_id, person, segments.map(span));
  recent.settleGaps(gaps.map(span));
}
