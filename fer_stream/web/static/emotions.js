// The seven emotions in the order of the classifier, and the label "unknown". Colours are defined in style.css.

import { el } from "./dom.js";

export const EMOTIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"];
export const UNKNOWN = "unknown";
export const LABELS = [...EMOTIONS, UNKNOWN];

/** Labels whose colours need an outline on a white background; style.css has the same list. */
export const OUTLINED = new Set(["happy", "surprise", "neutral", UNKNOWN]);

/** Returns the colour of a label as #RRGGBB, for canvases. */
export const colourOf = (label) => getComputedStyle(document.documentElement).getPropertyValue(`--${label}`).trim();

/** Creates a small square in the colour of a label. */
export const swatch = (label) => el("span", { class: `swatch ${label}`, "aria-hidden": "true" });

export const legend = () =>
  el("ul", { class: "legend", "aria-label": "Colours of the emotions" },
    ...LABELS.map((label) => el("li", {}, swatch(label), label)));

/** Creates a stacked bar of label shares. Hidden from screen readers: an adjacent text must have the same content. */
export function sharesBar() {
  const parts = new Map(LABELS.map((label) => [label, el("span", { class: label })]));
  const element = el("div", { class: "shares", "aria-hidden": "true" }, ...parts.values());
  return { element, update: (shares) => parts.forEach((part, label) => { part.style.flexGrow = shares[label] ?? 0; }) };
}
