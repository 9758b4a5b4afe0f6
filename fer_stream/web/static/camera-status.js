// How a camera is, in words, a sign and a colour.

import { el, say } from "./dom.js";
import { moment, roughly } from "./format.js";

/**
 * @typedef {object} State
 * @property {boolean | null} up  null where nobody reads the camera
 * @property {number | null} since  Unix seconds
 * @property {string} text  why it is down, without any secret
 */

/** @param {State} state @param {number} now  Unix seconds */
export function stateOf({ up, since, text }, now) {
  if (up === null) {
    return { look: "off", sign: "–", name: "not read", why: "No capture reads this camera now, or its file has ended." };
  }
  const lasted = `since ${moment(since)} (${roughly(now - since)})`;
  return up
    ? { look: "good", sign: "✓", name: "up", why: lasted }
    : { look: "bad", sign: "✕", name: "down", why: `${lasted}${text ? `: ${text}` : ""}` };
}

/** A chip with the state, and a text that says since when and why. */
export function stateLine() {
  const sign = el("span", { "aria-hidden": "true" });
  const name = el("span");
  const chip = el("span", { class: "chip" }, sign, " ", name);
  const why = el("span");
  return {
    element: el("p", { class: "state" }, chip, " ", why),
    /** @param {State} state @param {number} now  Unix seconds */
    update(state, now) {
      const told = stateOf(state, now);
      chip.className = `chip ${told.look}`;
      say(sign, told.sign);
      say(name, told.name);
      say(why, told.why);
    },
  };
}
