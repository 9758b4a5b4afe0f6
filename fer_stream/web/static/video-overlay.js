// Preview with boxes. The boxes belong to the frame that the preview shows.

import { prepareCanvas } from "./chart.js";
import { colourOf } from "./emotions.js";
import { labelText } from "./format.js";

// Results arrive ten times per second; previews less often and not in step. Boxes are interpolated between the two
// results next to the preview, and a preview waits up to MAX_WAIT_MS for the second one.
const MAX_RESULTS = 90;
const MAX_INTERPOLATION_FRAMES = 30;
const MAX_WAIT_MS = 1000;
// An older preview is removed.
const STALE_MS = 4000;

const OUTLINE = "#181b20";
const LABEL_TEXT = "#fafafa";
const LABEL_BACKGROUND = "rgb(24 27 32 / .82)";
const TEXT_PX = 13;
const LABEL_PX = 22;

/** @typedef {{person_id: number, xyxy: number[], label: string, unknown_reason: string | null}} Face */

/** Returns the text beside a box, the same as in annotated videos. @param {Face} face */
export const faceText = (face) => `${face.person_id}  ${labelText(face)}`;

export class VideoOverlay {
  #canvas;
  /** @type {Map<number, Face[]>} by frame index, oldest first */
  #results = new Map();
  #streamId = "";
  #size = { width: 16, height: 9 };
  /** @type {import("./preview.js").Preview | null} the preview that is shown */
  #preview = null;
  /** @type {{preview: import("./preview.js").Preview, since: number} | null} the preview that waits for its results */
  #pending = null;
  #shown_ms = 0;
  /** @type {Face[]} the faces that are drawn */
  faces = [];

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
  }

  get hasPreview() {
    return this.#preview !== null;
  }

  /** @param {{stream_id: string, index: number, width: number, height: number, faces: Face[]}} frame */
  addFrame(frame) {
    if (frame.stream_id !== this.#streamId) this.#results.clear();
    this.#streamId = frame.stream_id;
    this.#results.set(frame.index, frame.faces);
    if (this.#results.size > MAX_RESULTS) this.#results.delete(this.#results.keys().next().value);
    if (frame.width && frame.height) this.#size = { width: frame.width, height: frame.height };
  }

  /** @param {import("./preview.js").Preview} preview */
  addPreview(preview) {
    const newest = this.#pending?.preview ?? this.#preview;
    if (newest?.streamId === preview.streamId && newest.index === preview.index) return preview.bitmap.close();
    this.#pending?.preview.bitmap.close();
    this.#pending = { preview, since: this.#pending?.since ?? performance.now() };
    return undefined;
  }

  /** Draws the current preview with its boxes; without a preview, only `faces`. @param {Face[]} faces */
  draw(faces) {
    this.#updatePreview();
    if (!this.#preview) this.faces = faces;
    const { width: clientWidth } = this.#canvas.getBoundingClientRect();
    const { width, height } = this.#preview ?? this.#size;
    const scale = clientWidth / width;
    this.#canvas.style.aspectRatio = `${width} / ${height}`;
    const pen = prepareCanvas(this.#canvas, clientWidth, height * scale);
    if (this.#preview) pen.drawImage(this.#preview.bitmap, 0, 0, clientWidth, height * scale);
    pen.font = `600 ${TEXT_PX}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    for (const face of this.faces) drawBox(pen, face, scale);
    for (const face of this.faces) drawLabel(pen, face, scale, clientWidth, height * scale);
  }

  /** Shows the pending preview when there are results from before and after it, or when it has waited long enough. */
  #updatePreview() {
    if (this.#preview && performance.now() - this.#shown_ms > STALE_MS) this.#setPreview(null);
    if (!this.#pending) return;
    const { preview, since } = this.#pending;
    const sameSession = preview.streamId === this.#streamId;
    const complete = sameSession && [...this.#results.keys()].at(-1) >= preview.index;
    if (!complete && performance.now() - since < MAX_WAIT_MS) return;
    this.#setPreview(preview);
    this.#canvas.dataset.frame = `${preview.streamId} ${preview.index}`;
    this.#pending = null;
    this.faces = sameSession ? interpolateFaces(this.#results, preview.index) : [];
  }

  #setPreview(preview) {
    this.#preview?.bitmap.close();
    this.#preview = preview;
    this.#shown_ms = performance.now();
  }
}

/** Returns the faces of a frame, interpolated between the results next to it. @returns {Face[]} */
function interpolateFaces(results, index) {
  const near = [...results.keys()].filter((each) => Math.abs(each - index) <= MAX_INTERPOLATION_FRAMES);
  const before = near.filter((each) => each <= index).at(-1);
  const after = near.find((each) => each >= index);
  const faces = results.get(before ?? after) ?? [];
  if (before === after || before === undefined || after === undefined) return faces;
  const fraction = (index - before) / (after - before);
  const next = new Map(results.get(after).map((face) => [face.person_id, face]));
  return faces.map((face) => {
    const xyxy = next.get(face.person_id)?.xyxy ?? face.xyxy;
    return { ...face, xyxy: face.xyxy.map((side, each) => side + fraction * (xyxy[each] - side)) };
  });
}

/** Draws a thin box with thick corners and a dark outline, visible on any background. */
function drawBox(pen, { xyxy, label }, scale) {
  const [left, top, right, bottom] = xyxy.map((value) => Math.round(value * scale));
  const [width, height] = [right - left, bottom - top];
  pen.lineWidth = 4;
  pen.strokeStyle = OUTLINE;
  pen.strokeRect(left, top, width, height);
  pen.lineWidth = 2;
  pen.strokeStyle = colourOf(label);
  pen.strokeRect(left, top, width, height);
  const corner = Math.round(0.18 * Math.min(width, height));
  pen.lineWidth = 4;
  pen.beginPath();
  for (const [x, inwards] of [[left, corner], [right, -corner]]) {
    for (const [y, down] of [[top, corner], [bottom, -corner]]) {
      pen.moveTo(x + inwards, y);
      pen.lineTo(x, y);
      pen.lineTo(x, y + down);
    }
  }
  pen.stroke();
}

/** Draws number and label above the box, or below if there is no space. */
function drawLabel(pen, face, scale, width, height) {
  const text = faceText(face);
  const [left, top, , bottom] = face.xyxy.map((value) => Math.round(value * scale));
  const labelWidth = Math.ceil(pen.measureText(text).width) + 18;
  const x = Math.max(0, Math.min(left - 2, width - labelWidth));
  const above = top - LABEL_PX - 4;
  const y = above >= 0 ? above : Math.min(bottom + 4, height - LABEL_PX);
  pen.fillStyle = LABEL_BACKGROUND;
  pen.fillRect(x, y, labelWidth, LABEL_PX);
  pen.fillStyle = colourOf(face.label);
  pen.fillRect(x, y, 5, LABEL_PX);
  pen.fillStyle = LABEL_TEXT;
  pen.fillText(text, x + 11, y + LABEL_PX / 2 + 1);
}
