// Page of one camera: preview with boxes, people in view, and the last minutes.

import { apiUrl, getJson, poll, problemText, subscribe } from "./api.js";
import { describeState, stateLine } from "./camera-status.js";
import { ServerClock } from "./clock.js";
import { announce, el, notice } from "./dom.js";
import { HISTORY_S, LiveTimeline, MinuteStats } from "./live-timeline.js";
import { peoplePanel, sharesPanel, timelinePanel, timingPanel, videoPanel } from "./panels.js";
import { watchPreviews } from "./preview.js";
import { VideoOverlay } from "./video-overlay.js";

// Interval between two redraws; longer with "reduce motion".
const REDRAW_MS = 250;
const REDUCED_MOTION_REDRAW_MS = 2000;
const SEGMENTS_MS = 10_000;
// Faces of an older frame are not shown as present.
const STALE_S = 3;
const NOT_FOUND = 404;

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** @param {HTMLElement} main */
export function cameraPage(main, [name], signal) {
  const notFound = new AbortController();
  const until = AbortSignal.any([signal, notFound.signal]);
  const canvas = el("canvas", { class: "video", role: "img" });
  const [timeline, stats, overlay] = [new LiveTimeline(), new MinuteStats(), new VideoOverlay(canvas)];
  const clock = new ServerClock();
  const video = videoPanel(overlay, canvas);
  const panels = [video, peoplePanel(), timelinePanel(timeline), sharesPanel(stats), timingPanel(stats)];
  const status = stateLine();
  const errors = notice();
  const pauseButton = el("button", { type: "button", "aria-pressed": "false", onclick: togglePause }, "Pause");
  main.append(...layout(name, status.element, pauseButton, errors.element, panels.map(({ element }) => element)));

  /** @type {any} the newest frame */
  let newest = null;
  let paused = false;
  /** @type {import("./camera-status.js").State | null} the last received state */
  let state = null;

  function togglePause() {
    paused = !paused;
    pauseButton.setAttribute("aria-pressed", String(paused));
  }

  async function redraw() {
    if (paused || document.hidden) return;
    const now = clock.now;
    const live = newest && now - newest.at < STALE_S ? newest : null;
    for (const panel of panels) panel.update({ newest, live, now });
    if (state) status.update(state, now);
  }

  function onFrame(frame) {
    newest = frame;
    stats.add(frame, clock.sync(frame));
    timeline.add(frame);
    overlay.addFrame(frame);
    errors.set("store", "");
  }

  function onState(received) {
    if (state && state.up !== received.up) announce(`${name} is ${describeState(received, clock.now).name}`);
    state = received;
  }

  function onOpen() {
    clock.reconnected();
    timeline.reconnected();
    errors.set("stream", "");
  }

  const listeners = {
    open: onOpen, refused: (reason) => errors.set("stream", reason), frame: onFrame, state: onState,
    problem: (problem) => errors.set("store", problemText(problem)),
  };
  const loadSegments = async () => {
    await loadFinalSegments(name, timeline, clock.now, until);
    errors.set("store", "");
  };
  subscribe(apiUrl("sources", name, "live"), listeners, until);
  watchPreviews(name, (preview) => overlay.addPreview(preview), video.previewsDisabled, until);
  poll(loadSegments, () => SEGMENTS_MS, until);
  poll(redraw, () => (reducedMotion.matches ? REDUCED_MOTION_REDRAW_MS : REDRAW_MS), until);
  getJson(apiUrl("sources", name), signal).then(onState, (error) => {
    errors.set("store", error.message);
    if (error.status === NOT_FOUND) notFound.abort();
  });
}

/** Returns the elements of the page in order. */
function layout(name, status, pauseButton, errors, [video, people, timeline, shares, timing]) {
  return [
    el("div", { class: "title" }, el("h1", { tabindex: "-1" }, name), status,
      el("div", { class: "buttons" }, pauseButton, el("a", { class: "button", href: `#/history/${name}` }, "History"))),
    errors,
    el("p", { class: "note" }, "Labels are provisional: they can change for about two seconds. They are estimates of " +
      "the expression of a face, not of what a person feels."),
    el("div", { class: "live" }, video, people),
    timeline,
    el("div", { class: "split" }, shares, timing),
  ];
}

/** Replaces provisional labels with final segments, including those from before the page was opened. */
async function loadFinalSegments(name, timeline, now, signal) {
  const url = new URL(apiUrl("sources", name, "timeline"));
  url.search = new URLSearchParams({ from: now - HISTORY_S, to: now });
  const { people, gaps } = await getJson(url, signal);
  const span = ({ label, unknown_reason, start_at, end_at }) => ({ label, unknown_reason, from: start_at, to: end_at });
  for (const { stream_id, person_id, segments } of people) {
    timeline.setFinalSegments(stream_id, person_id, segments.map(span));
  }
  timeline.setGaps(gaps.map(span));
}
