// Timeline chart on a canvas: one lane per person, one bar per label. Unknown is hatched, gaps are flat bands.

import { colourOf, LABELS, OUTLINED, UNKNOWN } from "./emotions.js";
import { formatDuration, formatMinute, formatTime, labelText } from "./format.js";

/**
 * @typedef {{label: string, unknown_reason?: string | null, from: number, to: number}} Span  from, to: Unix seconds
 * @typedef {{name: string, spans: Span[]}} Lane
 * @typedef {{text: string, from: number, to: number}} Gap
 * @typedef {{from: number, to: number, lanes: Lane[], gaps: Gap[]}} Timeline
 */

const LANE_PX = 30;
const BAR_PX = 18;
const AXIS_PX = 24;
// A narrower bar would consist of its outline only.
const MIN_OUTLINED_PX = 3;
const MIN_NAME_PX = 60;
const FONT = "12px system-ui, sans-serif";

// Possible distances between two ticks, in seconds.
const TICK_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
const MIN_TICK_PX = 72;

/** Creates the hatch pattern of the report, independent of the pixel ratio of the screen. */
function hatchPattern(context, ratio) {
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

/** Resizes `canvas` to the resolution of the screen and clears it; returns a context in CSS px. */
export function prepareCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Returns tick times at whole steps after local midnight. */
function ticks(from, to, width) {
  const step = TICK_STEPS.find((each) => (each / (to - from)) * width >= MIN_TICK_PX) ?? TICK_STEPS.at(-1);
  const midnight = new Date(from * 1000).setHours(0, 0, 0, 0) / 1000;
  const times = [];
  for (let at = midnight + Math.ceil((from - midnight) / step) * step; at <= to; at += step) times.push(at);
  return { times, format: step < 60 ? formatTime : formatMinute };
}

export class TimelineChart {
  /** @type {Timeline} */
  #timeline = { from: 0, to: 1, lanes: [], gaps: [] };
  #canvas;
  #readout;
  /** Width of the names beside the lanes, in px. */
  #left = 0;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} readout  shows the bar under the pointer as text
   */
  constructor(canvas, readout) {
    this.#canvas = canvas;
    this.#readout = readout;
    canvas.addEventListener("pointermove", (event) => this.#updateReadout(event));
    canvas.addEventListener("pointerdown", (event) => this.#updateReadout(event));
    canvas.addEventListener("pointerleave", () => { readout.textContent = ""; });
  }

  /** @param {Timeline} timeline */
  draw(timeline) {
    this.#timeline = timeline;
    const canvas = this.#canvas;
    const height = Math.max(1, timeline.lanes.length) * LANE_PX + AXIS_PX;
    canvas.style.height = `${height}px`;
    const width = canvas.clientWidth;
    if (width === 0) return;
    const pen = prepareCanvas(canvas, width, height);
    const style = getComputedStyle(canvas);
    const cssColour = (name) => style.getPropertyValue(name).trim();
    pen.font = FONT;
    pen.textBaseline = "middle";
    const names = timeline.lanes.map(({ name }) => pen.measureText(name).width);
    this.#left = Math.ceil(Math.max(MIN_NAME_PX, ...names)) + 10;
    this.#drawAxis(pen, cssColour, height);
    this.#drawGaps(pen, cssColour, height);
    const fills = Object.fromEntries(LABELS.map((label) => [label, colourOf(label)]));
    fills[UNKNOWN] = hatchPattern(pen, canvas.width / width);
    timeline.lanes.forEach((lane, row) => this.#drawLane(pen, cssColour, fills, lane, row));
  }

  #x(at) {
    const { from, to } = this.#timeline;
    const fraction = Math.min(1, Math.max(0, (at - from) / (to - from)));
    return this.#left + fraction * (this.#canvas.clientWidth - this.#left);
  }

  #drawAxis(pen, cssColour, height) {
    const { from, to } = this.#timeline;
    const { times, format } = ticks(from, to, this.#canvas.clientWidth - this.#left);
    pen.strokeStyle = cssColour("--border");
    pen.fillStyle = cssColour("--muted");
    pen.lineWidth = 1;
    for (const at of times) {
      const x = Math.round(this.#x(at)) + 0.5;
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, height - AXIS_PX);
      pen.stroke();
      const half = pen.measureText(format(at)).width / 2;
      if (x + half <= this.#canvas.clientWidth) pen.fillText(format(at), x - half, height - AXIS_PX / 2 + 1);
    }
  }

  #drawGaps(pen, cssColour, height) {
    for (const { text, from, to } of this.#timeline.gaps) {
      const [x, end] = [this.#x(from), this.#x(to)];
      if (end <= x) continue;
      pen.fillStyle = cssColour("--gap");
      pen.fillRect(x, 0, Math.max(1, end - x), height - AXIS_PX);
      pen.fillStyle = cssColour("--muted");
      if (pen.measureText(text).width + 12 < end - x) pen.fillText(text, x + 6, 8);
    }
  }

  #drawLane(pen, cssColour, fills, { name, spans }, row) {
    const top = row * LANE_PX + (LANE_PX - BAR_PX) / 2;
    pen.fillStyle = cssColour("--text");
    pen.fillText(name, 0, top + BAR_PX / 2);
    pen.strokeStyle = cssColour("--muted");
    pen.lineWidth = 1;
    const { from, to } = this.#timeline;
    for (const span of spans) {
      if (span.to < from || span.from > to) continue;
      const x = this.#x(span.from);
      pen.fillStyle = fills[span.label] ?? fills[UNKNOWN];
      // At least half a px, so that short segments remain visible in a long time range.
      const width = Math.max(0.5, this.#x(span.to) - x);
      pen.fillRect(x, top, width, BAR_PX);
      if (OUTLINED.has(span.label) && width > MIN_OUTLINED_PX) pen.strokeRect(x + 0.5, top + 0.5, width - 1, BAR_PX - 1);
    }
  }

  #updateReadout({ offsetX, offsetY }) {
    const { from, to, lanes } = this.#timeline;
    const lane = lanes[Math.floor(offsetY / LANE_PX)];
    const fraction = (offsetX - this.#left) / (this.#canvas.clientWidth - this.#left);
    const at = from + fraction * (to - from);
    const tolerance = (2 * (to - from)) / this.#canvas.clientWidth;
    const hit = (span) => span.from - tolerance <= at && at <= span.to + tolerance;
    const span = fraction < 0 ? undefined : lane?.spans.find(hit);
    this.#readout.textContent = span
      ? `${lane.name}: ${labelText(span)} from ${formatTime(span.from)} for ${formatDuration(span.to - span.from)}`
      : "";
  }
}
