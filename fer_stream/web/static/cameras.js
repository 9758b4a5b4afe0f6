// Page with all cameras.

import { apiUrl, getJson, ignoreApiErrors, poll, problemText, subscribe } from "./api.js";
import { describeState, stateLine } from "./camera-status.js";
import { prepareCanvas } from "./chart.js";
import { ServerClock } from "./clock.js";
import { announce, el, notice, reconcile, setText } from "./dom.js";
import { formatDateTime, pluralize } from "./format.js";
import { getPreview, PREVIEWS_DISABLED } from "./preview.js";
import { sleep, untilVisible } from "./visibility.js";

const LIST_MS = 15_000;
// The first request only makes the capture process publish previews, so a second one follows.
const SECOND_REQUEST_MS = 800;
const THUMBNAILS_MS = 15_000;
const NO_CARDS_MS = 300;
// Faces of an older result are not shown as present.
const STALE_S = 5;

const EXAMPLE = `sources:
  front-door:
    url: rtsp://192.0.2.10:554/stream1
    username: viewer
    password: \${CAMERA_PASSWORD}`;

/** @typedef {import("./camera-status.js").State & {name: string, latest_at: number | null, faces: number | null}} Source */

/** @param {HTMLElement} main */
export function camerasPage(main, _parameters, signal) {
  /** @type {Map<string, Source>} */
  const sources = new Map();
  /** @type {Map<string, ReturnType<typeof cameraCard>>} */
  const cards = new Map();
  const list = el("ul", { class: "cards" });
  const summary = el("p");
  const empty = emptyState();
  const errors = notice();
  const clock = new ServerClock();
  let redrawRequested = false;
  main.append(el("div", { class: "title" }, el("h1", { tabindex: "-1" }, "Cameras"), summary), errors.element, empty,
    list);

  function redraw() {
    redrawRequested = false;
    const all = [...sources.values()].sort((a, b) => a.name.localeCompare(b.name));
    reconcile(list, all, ({ name }) => name, ({ name }) => {
      cards.set(name, cameraCard(name, clock));
      return cards.get(name);
    });
    empty.hidden = all.length > 0;
    setText(summary, all.length ? `${all.filter(({ up }) => up).length} of ${pluralize(all.length, "camera")} up` : "");
  }

  function requestRedraw() {
    if (!redrawRequested) requestAnimationFrame(redraw);
    redrawRequested = true;
  }

  /** @param {Source} source */
  function onState(source) {
    const before = sources.get(source.name);
    if (before && before.up !== source.up) announce(`${source.name} is ${describeState(source, clock.now).name}`);
    sources.set(source.name, source);
    errors.set("store", "");
    requestRedraw();
  }

  /** @param {{source: string, at: number, latency_s: number, faces: object[]}} frame */
  function onLatest(frame) {
    clock.sync(frame);
    const source = sources.get(frame.source);
    if (source) Object.assign(source, { latest_at: frame.at, faces: frame.faces.length });
    errors.set("store", "");
    requestRedraw();
  }

  /** @param {{name: string}} source */
  function onRemoved({ name }) {
    sources.delete(name);
    cards.delete(name);
    requestRedraw();
  }

  async function loadSources() {
    /** @type {Source[]} */
    const all = await getJson(apiUrl("sources"), signal);
    sources.clear();
    for (const source of all) sources.set(source.name, source);
    for (const name of cards.keys()) if (!sources.has(name)) cards.delete(name);
    errors.set("store", "");
    redraw();
  }

  const listeners = {
    open: () => errors.set("stream", ""), refused: (reason) => errors.set("stream", reason), state: onState,
    latest: onLatest, removed: onRemoved, problem: (problem) => errors.set("store", problemText(problem)),
  };
  poll(loadSources, () => LIST_MS, signal);
  subscribe(apiUrl("live"), listeners, signal);
  updateThumbnails(cards, signal);
}

function emptyState() {
  return el("section", { hidden: true, "aria-labelledby": "none" },
    el("h2", { id: "none" }, "No cameras yet"),
    el("p", {}, "Add cameras to the configuration file, then reload it with ", el("code", {}, "kill -HUP PID"),
      " of the serve process. They appear here automatically."),
    el("pre", {}, el("code", {}, EXAMPLE)));
}

/** @param {string} name @param {ServerClock} clock */
function cameraCard(name, clock) {
  const thumbnail = el("p", { class: "thumbnail", "aria-hidden": "true" }, "no preview");
  const status = stateLine();
  const faces = el("p", { class: "muted" });
  const element = el("li", { class: "camera" }, thumbnail,
    el("div", {}, el("h2", {}, el("a", { href: `#/cameras/${name}` }, name)), status.element, faces));
  return {
    element,
    thumbnail,
    /** @param {Source} source */
    update(source) {
      status.update(source, clock.now);
      setText(faces, facesText(source, clock.now));
    },
  };
}

/** @param {Source} source @param {number} now  Unix seconds */
function facesText({ latest_at, faces }, now) {
  if (latest_at === null) return "No frames yet";
  if (now - latest_at > STALE_S) return `Last frame ${formatDateTime(latest_at)}`;
  return faces ? `${pluralize(faces, "face")} now` : "No faces now";
}

/** Updates the previews of all cards in the viewport, one camera after another. */
async function updateThumbnails(cards, signal) {
  while (!signal.aborted) {
    await untilVisible(signal);
    for (const [name, card] of cards) {
      const { top, bottom } = card.element.getBoundingClientRect();
      const inViewport = bottom > 0 && top < window.innerHeight;
      if (inViewport) await updateThumbnail(name, card.thumbnail, signal);
    }
    await sleep(cards.size ? THUMBNAILS_MS : NO_CARDS_MS, signal);
  }
}

async function updateThumbnail(name, thumbnail, signal) {
  try {
    let preview = await getPreview(name, signal);
    if (!preview) {
      await sleep(SECOND_REQUEST_MS, signal);
      preview = await getPreview(name, signal);
    }
    if (preview) draw(thumbnail, preview);
    else thumbnail.textContent = "no preview";
  } catch (error) {
    if (error.status === PREVIEWS_DISABLED) thumbnail.hidden = true;
    else ignoreApiErrors(error);
  }
}

/** Fills the thumbnail with the preview, cropped to its aspect ratio. */
function draw(thumbnail, { bitmap }) {
  const canvas = thumbnail.querySelector("canvas") ?? el("canvas");
  if (!canvas.isConnected) thumbnail.replaceChildren(canvas);
  const { width, height } = thumbnail.getBoundingClientRect();
  const context = prepareCanvas(canvas, width, height);
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [drawnWidth, drawnHeight] = [bitmap.width * scale, bitmap.height * scale];
  context.drawImage(bitmap, (width - drawnWidth) / 2, (height - drawnHeight) / 2, drawnWidth, drawnHeight);
  bitmap.close();
}
