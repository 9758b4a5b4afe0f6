// Which page is shown, and whether the service is there.

import { connection } from "./api.js";
import { cameraPage } from "./camera.js";
import { camerasPage } from "./cameras.js";
import { el } from "./dom.js";
import { historyPage } from "./history.js";
import { jobsPage } from "./jobs.js";
import { clock, zone } from "./format.js";

const NAME = "[a-z0-9][a-z0-9_-]{0,62}";
const DATE = "\\d{4}-\\d{2}-\\d{2}";

/**
 * A page adds its elements to `main`; what it goes on doing ends with `signal`.
 * @typedef {(main: HTMLElement, parts: (string | undefined)[], signal: AbortSignal) => void} Page
 * @type {{route: RegExp, page: Page, nav: string}[]}
 */
const PAGES = [
  { route: /^#\/$/, page: camerasPage, nav: "#/" },
  { route: new RegExp(`^#/cameras/(${NAME})$`), page: cameraPage, nav: "#/" },
  { route: /^#\/jobs$/, page: jobsPage, nav: "#/jobs" },
  { route: new RegExp(`^#/history(?:/(${NAME})(?:/(${DATE}))?)?$`), page: historyPage, nav: "#/history" },
];

// A reload of the service breaks connections for a moment, which is not worth a word.
const PATIENCE_MS = 1500;

const main = document.getElementById("main");
let shown = new AbortController();

function missing() {
  main.append(el("h1", { tabindex: "-1" }, "There is no such page"), el("p", {}, el("a", { href: "#/" }, "Cameras")));
}

function show() {
  const hash = location.hash || "#/";
  const found = PAGES.find(({ route }) => route.test(hash));
  shown.abort();
  shown = new AbortController();
  main.replaceChildren();
  if (found) found.page(main, found.route.exec(hash).slice(1), shown.signal);
  else missing();
  document.title = `${main.querySelector("h1").textContent} · fer-stream`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === found?.nav) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function turn() {
  show();
  window.scrollTo(0, 0);
  main.querySelector("h1").focus();
}

function tellConnection() {
  const notice = document.getElementById("connection");
  setTimeout(() => {
    notice.hidden = connection.lost === null;
    notice.textContent = connection.lost === null ? "" :
      `The service has not answered since ${clock(connection.lost / 1000)}. Trying again; what you see is from before.`;
  }, connection.lost === null ? 0 : PATIENCE_MS);
}

connection.addEventListener("change", tellConnection);
window.addEventListener("hashchange", turn);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("zone").textContent = `Times are those of ${zone()}.`;
show();
