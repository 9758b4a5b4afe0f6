// Page with the history of a camera, one day at a time.

import { apiUrl, ApiError, getJson, poll } from "./api.js";
import { dayView } from "./day.js";
import { el, notice } from "./dom.js";
import { formatDate } from "./format.js";

const REFRESH_TODAY_MS = 20_000;

/** @param {HTMLElement} main */
export function historyPage(main, [initialName, initialDate], signal) {
  const cameraSelect = el("select", { onchange: () => open(cameraSelect.value) });
  const daySelect = el("select", { onchange: () => open(cameraSelect.value, daySelect.value) });
  const errors = notice();
  const view = dayView();
  main.append(
    el("h1", { tabindex: "-1" }, "History"),
    el("section", { class: "filters", "aria-label": "Camera and day" },
      el("label", { class: "field" }, "Camera", cameraSelect), el("label", { class: "field" }, "Day", daySelect),
      view.csvLink),
    errors.element, view.element,
  );
  let opening = new AbortController();

  /** Shows a day of a camera; by default the last day of the first camera. */
  async function open(name, date) {
    opening.abort();
    opening = new AbortController();
    try {
      errors.set("day", await load(name, date, AbortSignal.any([signal, opening.signal])));
    } catch (error) {
      if (error instanceof ApiError) errors.set("day", error.message);
      else if (error.name !== "AbortError") throw error;
    }
  }

  /** Loads and shows a day. @returns {Promise<string>} a message if there is nothing to show, else an empty string */
  async function load(requestedName, requestedDate, until) {
    const names = (await getJson(apiUrl("sources"), until)).map((source) => source.name);
    const name = requestedName ?? names[0];
    setOptions(cameraSelect, names, name, (value) => value);
    if (name === undefined) return "No cameras yet.";
    const zone = new URLSearchParams({ tz: Intl.DateTimeFormat().resolvedOptions().timeZone });
    const dates = (await getJson(`${apiUrl("sources", name, "days")}?${zone}`, until)).reverse();
    const date = dates.includes(requestedDate) ? requestedDate : dates[0];
    setOptions(daySelect, dates, date, formatDate);
    history.replaceState(null, "", `#/${["history", name, date].filter(Boolean).join("/")}`);
    await view.show(name, date, until);
    return date ? "" : `No stored segments of ${name} yet. A segment appears here when it is complete.`;
  }

  open(initialName, initialDate);
  poll(async () => { if (view.isToday()) await open(cameraSelect.value, daySelect.value); }, () => REFRESH_TODAY_MS, signal);
}

/** Sets the options of a select element. Unchanged options are kept, because the list may be open. */
function setOptions(select, values, selected, format) {
  const before = [...select.options].map(({ value }) => value);
  const same = values.join() === before.join();
  if (!same) select.replaceChildren(...values.map((value) => el("option", { value }, format(value))));
  select.value = selected ?? "";
  select.disabled = values.length === 0;
}
