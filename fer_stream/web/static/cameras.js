// All cameras at a glance.

import { address, follow, getJson, passOver, repeat, wordsOf } from "./api.js";
import { sharpen } from "./chart.js";
import { Clock } from "./clock.js";
import { announce, el, keep, notice, say } from "./dom.js";
import { NO_PICTURES, picture } from "./preview.js";
import { stateLine, stateOf } from "./camera-status.js";
import { pause, visible } from "./visibility.js";
import { count, moment } from "./format.js";

const LIST_MS = 15_000;
// Pictures are made only while somebody asks for them, and the first question begins it: ask again soon, then leave it.
const SECOND_ASK_MS = 800;
const NEXT_ROUND_MS = 15_000;
// What was seen longer ago is not now.
const NOW_S = 5;

const EXAMPLE = `sources:
  front-door:
    url: rtsp://viewer:\${CAMERA_PASSWORD}@192.0.2.10:554/stream1`;

/** @typedef {import("./camera-status.js").State & {name: string, latest_at: number | null, faces: number | null}} Source */

/** @param {HTMLElement} main */
export function camerasPage(main, _parts, signal) {
  /** @type {Map<string, Source>} */
  const sources = new Map();
  /** @type {Map<string, ReturnType<typeof cameraCard>>} */
  const cards = new Map();
  const list = el("ul", { class: "cards" });
  const counts = el("p");
  const none = emptyState();
  const trouble = notice();
  const clock = new Clock();
  let asked = false;
  main.append(el("div", { class: "title" }, el("h1", { tabindex: "-1" }, "Cameras"), counts), trouble.element, none,
    list);

  function paint() {
    asked = false;
    const all = [...sources.values()].sort((a, b) => a.name.localeCompare(b.name));
    keep(list, all, ({ name }) => name, ({ name }) => {
      cards.set(name, cameraCard(name, clock));
      return cards.get(name);
    });
    none.hidden = all.length > 0;
    say(counts, all.length ? `${all.filter(({ up }) => up).length} of ${count(all.length, "camera")} up` : "");
  }

  function paintSoon() {
    if (!asked) requestAnimationFrame(paint);
    asked = true;
  }

  /** @param {Source} source */
  function hear(source) {
    const before = sources.get(source.name);
    if (before && before.up !== source.up) announce(`${source.name} is ${stateOf(source, clock.now).name}`);
    sources.set(source.name, source);
    trouble.tell("store", "");
    paintSoon();
  }

  /** @param {{source: string, at: number, latency_s: number, faces: object[]}} frame */
  function see(frame) {
    clock.hear(frame);
    const known = sources.get(frame.source);
    if (known) Object.assign(known, { latest_at: frame.at, faces: frame.faces.length });
    trouble.tell("store", "");
    paintSoon();
  }

  async function look() {
    /** @type {Source[]} */
    const all = await getJson(address("sources"), signal);
    sources.clear();
    for (const source of all) sources.set(source.name, source);
    for (const name of cards.keys()) if (!sources.has(name)) cards.delete(name);
    trouble.tell("store", "");
    paint();
  }

  const listeners = {
    open: () => trouble.tell("stream", ""), refused: (why) => trouble.tell("stream", why), state: hear, latest: see,
    trouble: (problem) => trouble.tell("store", wordsOf(problem)),
  };
  repeat(look, () => LIST_MS, signal);
  follow(address("live"), listeners, signal);
  showPictures(cards, signal);
}

function emptyState() {
  return el("section", { hidden: true, "aria-labelledby": "none" },
    el("h2", { id: "none" }, "No camera yet"),
    el("p", {}, "Write your cameras into the settings of the service, then tell it to read them again with ",
      el("code", {}, "kill -HUP PID"), " of serve. They appear here by themselves."),
    el("pre", {}, el("code", {}, EXAMPLE)));
}

/** @param {string} name @param {Clock} clock */
function cameraCard(name, clock) {
  const thumbnail = el("p", { class: "thumbnail", "aria-hidden": "true" }, "no picture");
  const state = stateLine();
  const seen = el("p", { class: "pale" });
  const element = el("li", { class: "camera" }, thumbnail,
    el("div", {}, el("h2", {}, el("a", { href: `#/cameras/${name}` }, name)), state.element, seen));
  return {
    element,
    thumbnail,
    /** @param {Source} source */
    update(source) {
      state.update(source, clock.now);
      say(seen, sight(source, clock.now));
    },
  };
}

/** @param {Source} source @param {number} now  Unix seconds */
function sight({ latest_at, faces }, now) {
  if (latest_at === null) return "No picture yet";
  if (now - latest_at > NOW_S) return `Last picture ${moment(latest_at)}`;
  return faces ? `${count(faces, "face")} now` : "No face now";
}

/** Shows a picture on each card that is in sight, one camera after another. */
async function showPictures(cards, signal) {
  while (!signal.aborted) {
    await visible(signal);
    for (const [name, card] of cards) {
      const { top, bottom } = card.element.getBoundingClientRect();
      const inSight = bottom > 0 && top < window.innerHeight;
      if (inSight) await showPicture(name, card.thumbnail, signal);
    }
    await pause(NEXT_ROUND_MS, signal);
  }
}

async function showPicture(name, thumbnail, signal) {
  try {
    let found = await picture(name, signal);
    if (!found) {
      await pause(SECOND_ASK_MS, signal);
      found = await picture(name, signal);
    }
    if (found) draw(thumbnail, found);
    else thumbnail.textContent = "no picture";
  } catch (error) {
    if (error.status === NO_PICTURES) thumbnail.hidden = true;
    else passOver(error);
  }
}

/** Fills the space with the picture, whose edges are cut off where its shape is another. */
function draw(thumbnail, { bitmap }) {
  const canvas = thumbnail.querySelector("canvas") ?? el("canvas");
  if (!canvas.isConnected) thumbnail.replaceChildren(canvas);
  const { width, height } = thumbnail.getBoundingClientRect();
  const pen = sharpen(canvas, width, height);
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [wide, high] = [bitmap.width * scale, bitmap.height * scale];
  pen.drawImage(bitmap, (width - wide) / 2, (height - high) / 2, wide, high);
  bitmap.close();
}
