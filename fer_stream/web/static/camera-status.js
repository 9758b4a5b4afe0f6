// State of a camera as icon, text and colour.

import { el, setText } from "./dom.js";
import { formatAge, formatDateTime } from "./format.js";

/**
 * @typedef {object} State
 * @property {boolean | null} up  null if no process reads the camera
 * @property {number | null} since  Unix seconds
 * @property {string} text  why the camera is down, without secrets
 */

/** @param {State} state @param {number} now  Unix seconds */
export function describeState({ up, since, text }, now) {
  if (up === null) {
    return {
      level: "off", icon: "–", name: "not monitored", detail: "No capture process reads this source, or its file has ended.",
    };
  }
  const duration = `since ${formatDateTime(since)} (${formatAge(now - since)})`;
  return up
    ? { level: "good", icon: "✓", name: "up", detail: duration }
    : { level: "bad", icon: "✕", name: "down", detail: `${duration}${text ? `: ${text}` : ""}` };
}

/** Creates a line with the state, since when it lasts, and why. */
export function stateLine() {
  const icon = el("span", { "aria-hidden": "true" });
  const name = el("span");
  const chip = el("span", { class: "chip" }, icon, " ", name);
  const detail = el("span");
  return {
    element: el("p", { class: "state" }, chip, " ", detail),
    /** @param {State} state @param {number} now  Unix seconds */
    update(state, now) {
      const description = describeState(state, now);
      chip.className = `chip ${description.level}`;
      setText(icon, description.icon);
      setText(name, description.name);
      setText(detail, description.detail);
    },
  };
}
