// A picture with its boxes, which are those of the very frame that it shows.

import { sharpen } from "./chart.js";
import { colourOf, UNKNOWN } from "./emotions.js";
import { unjudged } from "./format.js";

// Results come ten a second, pictures fewer and not in step. So many results are remembered, faces are put between the
// two results beside their picture unless these are too far apart, and a picture waits so long for the second one.
const REMEMBERED = 90;
const MOST_APART = 30;
const WAIT_MS = 1000;
// A picture that is older says nothing of now.
const STALE_MS = 4000;

const INK = "#181b20";
const PAPER = "#fafafa";
const PLATE = "rgb(24 27 32 / .82)";
const TEXT_PX = 13;
const PLATE_PX = 22;

/** @typedef {{person_id: number, xyxy: number[], label: string, quality: {reason: string}}} Face */

/** What stands beside a box, as in annotated videos. @param {Face} face */
export function title({ person_id, label, quality }) {
  const reason = label === UNKNOWN ? unjudged(quality.reason) : "";
  return reason ? `${person_id}  unknown: ${reason}` : `${person_id}  ${label}`;
}

export class Stage {
  #canvas;
  /** @type {Map<number, Face[]>} by the index of the frame, oldest first */
  #frames = new Map();
  #streamId = "";
  #size = { width: 16, height: 9 };
  /** @type {import("./preview.js").Picture | null} */
  #picture = null;
  /** @type {{picture: import("./preview.js").Picture, since: number} | null} */
  #waiting = null;
  #shown_ms = 0;
  /** @type {Face[]} those that are drawn */
  faces = [];

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
  }

  get hasPicture() {
    return this.#picture !== null;
  }

  /** @param {{stream_id: string, index: number, width: number, height: number, faces: Face[]}} frame */
  addFrame(frame) {
    if (frame.stream_id !== this.#streamId) this.#frames.clear();
    this.#streamId = frame.stream_id;
    this.#frames.set(frame.index, frame.faces);
    if (this.#frames.size > REMEMBERED) this.#frames.delete(this.#frames.keys().next().value);
    if (frame.width && frame.height) this.#size = { width: frame.width, height: frame.height };
  }

  /** @param {import("./preview.js").Picture} picture */
  addPicture(picture) {
    const newest = this.#waiting?.picture ?? this.#picture;
    if (newest?.streamId === picture.streamId && newest.index === picture.index) return picture.bitmap.close();
    this.#waiting?.picture.bitmap.close();
    this.#waiting = { picture, since: this.#waiting?.since ?? performance.now() };
    return undefined;
  }

  /** Draws what there is by now; without a picture, `faces` alone. @param {Face[]} faces */
  draw(faces) {
    this.#show();
    if (!this.#picture) this.faces = faces;
    const { width: clientWidth } = this.#canvas.getBoundingClientRect();
    const { width, height } = this.#picture ?? this.#size;
    const scale = clientWidth / width;
    this.#canvas.style.aspectRatio = `${width} / ${height}`;
    const pen = sharpen(this.#canvas, clientWidth, height * scale);
    if (this.#picture) pen.drawImage(this.#picture.bitmap, 0, 0, clientWidth, height * scale);
    pen.font = `600 ${TEXT_PX}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    for (const face of this.faces) outline(pen, face, scale);
    for (const face of this.faces) plate(pen, face, scale, clientWidth, height * scale);
  }

  /** Takes the picture that waits, once there are results from before and after it. */
  #show() {
    if (this.#picture && performance.now() - this.#shown_ms > STALE_MS) this.#take(null);
    if (!this.#waiting) return;
    const { picture, since } = this.#waiting;
    const sameStream = picture.streamId === this.#streamId;
    const passed = sameStream && [...this.#frames.keys()].at(-1) >= picture.index;
    if (!passed && performance.now() - since < WAIT_MS) return;
    this.#take(picture);
    this.#canvas.dataset.frame = `${picture.streamId} ${picture.index}`;
    this.#waiting = null;
    this.faces = sameStream ? facesAt(this.#frames, picture.index) : [];
  }

  #take(picture) {
    this.#picture?.bitmap.close();
    this.#picture = picture;
    this.#shown_ms = performance.now();
  }
}

/** The faces of a frame, or where they must have been between the frames beside it. @returns {Face[]} */
function facesAt(frames, index) {
  const near = [...frames.keys()].filter((each) => Math.abs(each - index) <= MOST_APART);
  const before = near.filter((each) => each <= index).at(-1);
  const after = near.find((each) => each >= index);
  const first = frames.get(before ?? after) ?? [];
  if (before === after || before === undefined || after === undefined) return first;
  const share = (index - before) / (after - before);
  const next = new Map(frames.get(after).map((face) => [face.person_id, face]));
  return first.map((face) => {
    const xyxy = next.get(face.person_id)?.xyxy ?? face.xyxy;
    return { ...face, xyxy: face.xyxy.map((side, each) => side + share * (xyxy[each] - side)) };
  });
}

/** A thin box with strong corners, dark outside so that it stands out from any background. */
function outline(pen, { xyxy, label }, scale) {
  const [left, top, right, bottom] = xyxy.map((value) => Math.round(value * scale));
  const [width, height] = [right - left, bottom - top];
  pen.lineWidth = 4;
  pen.strokeStyle = INK;
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

/** Number and label above the box, or below where there is no room. */
function plate(pen, face, scale, width, height) {
  const text = title(face);
  const [left, top, , bottom] = face.xyxy.map((value) => Math.round(value * scale));
  const wide = Math.ceil(pen.measureText(text).width) + 18;
  const x = Math.max(0, Math.min(left - 2, width - wide));
  const above = top - PLATE_PX - 4;
  const y = above >= 0 ? above : Math.min(bottom + 4, height - PLATE_PX);
  pen.fillStyle = PLATE;
  pen.fillRect(x, y, wide, PLATE_PX);
  pen.fillStyle = colourOf(face.label);
  pen.fillRect(x, y, 5, PLATE_PX);
  pen.fillStyle = PAPER;
  pen.fillText(text, x + 11, y + PLATE_PX / 2 + 1);
}
