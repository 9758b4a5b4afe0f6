// A timeline on a canvas: a lane per person, a bar per label, hatched where it is unknown, flat where no pictures came.

import { colourOf, FAINT, LABELS, UNKNOWN } from "./emotions.js";
import { clock, lasting, shortClock } from "./format.js";

/**
 * @typedef {{label: string, from: number, to: number}} Span  from and to are Unix seconds throughout
 * @typedef {{name: string, spans: Span[]}} Lane
 * @typedef {{text: string, from: number, to: number}} Blank
 * @typedef {{from: number, to: number, lanes: Lane[], blanks: Blank[]}} Timeline
 */

const LANE_PX = 30;
const BAR_PX = 18;
const AXIS_PX = 24;
// What is narrower would be all outline.
const OUTLINED_PX = 3;
const LEAST_NAME_PX = 60;
const FONT = "12px system-ui, sans-serif";

// Between two ticks, in seconds.
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
const TICK_PX = 72;

/** Stripes as in the report, at the density of the screen. */
function hatching(context, ratio) {
  const side = Math.round(6 * ratio);
  const tile = new OffscreenCanvas(side, side);
  const pen = tile.getContext("2d");
  pen.strokeStyle = colourOf(UNKNOWN);
  pen.lineWidth = 1.5 * ratio;
  for (const x of [-side, 0, side]) {
    pen.moveTo(x - 1, side + 1);
    pen.lineTo(x + side + 1, -1);
  }
  pen.stroke();
  const pattern = context.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(1 / ratio));
  return pattern;
}

/** Makes `canvas` as sharp as the screen; what is drawn is measured in CSS px. */
export function sharpen(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Where ticks are: whole steps after midnight, wherever the browser is. */
function ticks(from, to, width) {
  const step = STEPS.find((each) => (each / (to - from)) * width >= TICK_PX) ?? STEPS.at(-1);
  const midnight = new Date(from * 1000).setHours(0, 0, 0, 0) / 1000;
  const found = [];
  for (let at = midnight + Math.ceil((from - midnight) / step) * step; at <= to; at += step) found.push(at);
  return { found, name: step < 60 ? clock : shortClock };
}

export class TimelineChart {
  /** @type {Timeline} */
  #timeline = { from: 0, to: 1, lanes: [], blanks: [] };
  #canvas;
  #told;
  /** How wide the names beside the lanes are, in px. */
  #left = 0;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} told  where the bar under the pointer is put into words
   */
  constructor(canvas, told) {
    this.#canvas = canvas;
    this.#told = told;
    canvas.addEventListener("pointermove", (event) => this.#tell(event));
    canvas.addEventListener("pointerdown", (event) => this.#tell(event));
    canvas.addEventListener("pointerleave", () => { told.textContent = ""; });
  }

  /** @param {Timeline} timeline */
  draw(timeline) {
    this.#timeline = timeline;
    const canvas = this.#canvas;
    const height = Math.max(1, timeline.lanes.length) * LANE_PX + AXIS_PX;
    canvas.style.height = `${height}px`;
    const width = canvas.clientWidth;
    if (width === 0) return;
    const pen = sharpen(canvas, width, height);
    const style = getComputedStyle(canvas);
    const look = (name) => style.getPropertyValue(name).trim();
    pen.font = FONT;
    pen.textBaseline = "middle";
    const names = timeline.lanes.map(({ name }) => pen.measureText(name).width);
    this.#left = Math.ceil(Math.max(LEAST_NAME_PX, ...names)) + 10;
    this.#axis(pen, look, height);
    this.#blanks(pen, look, height);
    const paint = Object.fromEntries(LABELS.map((label) => [label, colourOf(label)]));
    paint[UNKNOWN] = hatching(pen, canvas.width / width);
    timeline.lanes.forEach((lane, row) => this.#lane(pen, look, paint, lane, row));
  }

  #x(at) {
    const { from, to } = this.#timeline;
    const share = Math.min(1, Math.max(0, (at - from) / (to - from)));
    return this.#left + share * (this.#canvas.clientWidth - this.#left);
  }

  #axis(pen, look, height) {
    const { from, to } = this.#timeline;
    const { found, name } = ticks(from, to, this.#canvas.clientWidth - this.#left);
    pen.strokeStyle = look("--line");
    pen.fillStyle = look("--pale");
    pen.lineWidth = 1;
    for (const at of found) {
      const x = Math.round(this.#x(at)) + 0.5;
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, height - AXIS_PX);
      pen.stroke();
      const half = pen.measureText(name(at)).width / 2;
      if (x + half <= this.#canvas.clientWidth) pen.fillText(name(at), x - half, height - AXIS_PX / 2 + 1);
    }
  }

  #blanks(pen, look, height) {
    for (const { text, from, to } of this.#timeline.blanks) {
      const [x, end] = [this.#x(from), this.#x(to)];
      if (end <= x) continue;
      pen.fillStyle = look("--blank");
      pen.fillRect(x, 0, Math.max(1, end - x), height - AXIS_PX);
      pen.fillStyle = look("--pale");
      if (pen.measureText(text).width + 12 < end - x) pen.fillText(text, x + 6, 8);
    }
  }

  #lane(pen, look, paint, { name, spans }, row) {
    const top = row * LANE_PX + (LANE_PX - BAR_PX) / 2;
    pen.fillStyle = look("--ink");
    pen.fillText(name, 0, top + BAR_PX / 2);
    pen.strokeStyle = look("--pale");
    pen.lineWidth = 1;
    const { from, to } = this.#timeline;
    for (const span of spans) {
      if (span.to < from || span.from > to) continue;
      const x = this.#x(span.from);
      pen.fillStyle = paint[span.label] ?? paint[UNKNOWN];
      // Half a px at least: a long day would hide what was short.
      const width = Math.max(0.5, this.#x(span.to) - x);
      pen.fillRect(x, top, width, BAR_PX);
      if (FAINT.has(span.label) && width > OUTLINED_PX) pen.strokeRect(x + 0.5, top + 0.5, width - 1, BAR_PX - 1);
    }
  }

  #tell({ offsetX, offsetY }) {
    const { from, to, lanes } = this.#timeline;
    const lane = lanes[Math.floor(offsetY / LANE_PX)];
    const share = (offsetX - this.#left) / (this.#canvas.clientWidth - this.#left);
    const at = from + share * (to - from);
    const near = (2 * (to - from)) / this.#canvas.clientWidth;
    const span = share < 0 ? undefined : lane?.spans.find((each) => each.from - near <= at && at <= each.to + near);
    this.#told.textContent = span
      ? `${lane.name}: ${span.label} from ${clock(span.from)} for ${lasting(span.to - span.from)}`
      : "";
  }
}
