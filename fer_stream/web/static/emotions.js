// The seven emotions in the order of the classifier, and unknown, which is not an eighth. Colours are in style.css.

import { el } from "./dom.js";

export const EMOTIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"];
export const UNKNOWN = "unknown";
export const LABELS = [...EMOTIONS, UNKNOWN];

/** Those that need an outline on a white card; style.css has the same. */
export const FAINT = new Set(["happy", "surprise", "neutral", UNKNOWN]);

/** A label's colour as #RRGGBB, for canvases. */
export const colourOf = (label) => getComputedStyle(document.documentElement).getPropertyValue(`--${label}`).trim();

/** A small square of the colour of a label, for beside its name. */
export const swatch = (label) => el("span", { class: `swatch ${label}`, "aria-hidden": "true" });

export const legend = () =>
  el("ul", { class: "legend", "aria-label": "Colours of the emotions" },
    ...LABELS.map((label) => el("li", {}, swatch(label), label)));

/** A bar whose parts are as long as the shares of labels; says nothing to a screen reader, a text beside it should. */
export function sharesBar() {
  const parts = new Map(LABELS.map((label) => [label, el("span", { class: label })]));
  const element = el("div", { class: "shares", "aria-hidden": "true" }, ...parts.values());
  return { element, update: (shares) => parts.forEach((part, label) => { part.style.flexGrow = shares[label] ?? 0; }) };
}
