// What a camera showed on a day.

import { address, ApiError, getJson, repeat } from "./api.js";
import { dayView } from "./day.js";
import { el, notice } from "./dom.js";
import { dateName } from "./format.js";

const TODAY_AGAIN_MS = 20_000;

/** @param {HTMLElement} main */
export function historyPage(main, [wantedName, wantedDay], signal) {
  const cameras = el("select", { onchange: () => open(cameras.value) });
  const days = el("select", { onchange: () => open(cameras.value, days.value) });
  const trouble = notice();
  const view = dayView();
  main.append(
    el("h1", { tabindex: "-1" }, "History"),
    el("section", { class: "choice", "aria-label": "Camera and day" },
      el("label", { class: "field" }, "Camera", cameras), el("label", { class: "field" }, "Day", days), view.csv),
    trouble.element, view.element,
  );
  let opening = new AbortController();

  /** Shows a day of a camera; by default the last day of the first camera. */
  async function open(name, day) {
    opening.abort();
    opening = new AbortController();
    try {
      trouble.tell("day", await load(name, day, AbortSignal.any([signal, opening.signal])));
    } catch (error) {
      if (error instanceof ApiError) trouble.tell("day", error.message);
      else if (error.name !== "AbortError") throw error;
    }
  }

  /** What there is to complain of. */
  async function load(wanted, wantedDate, until) {
    const names = (await getJson(address("sources"), until)).map((source) => source.name);
    const name = wanted ?? names[0];
    offer(cameras, names, name, (value) => value);
    if (name === undefined) return "There is no camera yet.";
    const zone = new URLSearchParams({ tz: Intl.DateTimeFormat().resolvedOptions().timeZone });
    const dates = (await getJson(`${address("sources", name, "days")}?${zone}`, until)).reverse();
    const date = dates.includes(wantedDate) ? wantedDate : dates[0];
    offer(days, dates, date, dateName);
    history.replaceState(null, "", `#/${["history", name, date].filter(Boolean).join("/")}`);
    await view.show(name, date, until);
    return date ? "" : `Nothing is kept of ${name} yet: a segment appears here when it is over.`;
  }

  open(wantedName, wantedDay);
  repeat(async () => { if (view.isToday()) await open(cameras.value, days.value); }, () => TODAY_AGAIN_MS, signal);
}

/** Fills a choice, unless it is as it should be: somebody may be choosing. */
function offer(select, values, chosen, name) {
  const before = [...select.options].map(({ value }) => value);
  const same = values.join() === before.join();
  if (!same) select.replaceChildren(...values.map((value) => el("option", { value }, name(value))));
  select.value = chosen ?? "";
  select.disabled = values.length === 0;
}
