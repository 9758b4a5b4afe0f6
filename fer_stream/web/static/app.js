// Entry point: routing between pages, and the notice about a lost connection.

import { connection } from "./api.js";
import { cameraPage } from "./camera.js";
import { camerasPage } from "./cameras.js";
import { el } from "./dom.js";
import { formatTime, timeZoneName } from "./format.js";
import { historyPage } from "./history.js";
import { jobsPage } from "./jobs.js";

const NAME = "[a-z0-9][a-z0-9_-]{0,62}";
const DATE = "\\d{4}-\\d{2}-\\d{2}";

/**
 * A page appends its elements to `main`, and stops its background work at `signal`.
 * @typedef {(main: HTMLElement, parameters: (string | undefined)[], signal: AbortSignal) => void} Page
 * @type {{route: RegExp, page: Page, nav: string}[]}
 */
const PAGES = [
  { route: /^#\/$/, page: camerasPage, nav: "#/" },
  { route: new RegExp(`^#/cameras/(${NAME})$`), page: cameraPage, nav: "#/" },
  { route: /^#\/jobs$/, page: jobsPage, nav: "#/jobs" },
  { route: new RegExp(`^#/history(?:/(${NAME})(?:/(${DATE}))?)?$`), page: historyPage, nav: "#/history" },
];

// A reload of the service interrupts connections briefly, which should not show a notice.
const NOTICE_DELAY_MS = 1500;

const main = document.getElementById("main");
let current = new AbortController();

function notFoundPage() {
  main.append(el("h1", { tabindex: "-1" }, "Page not found"), el("p", {}, el("a", { href: "#/" }, "Cameras")));
}

function render() {
  const hash = location.hash || "#/";
  const match = PAGES.find(({ route }) => route.test(hash));
  current.abort();
  current = new AbortController();
  main.replaceChildren();
  if (match) match.page(main, match.route.exec(hash).slice(1), current.signal);
  else notFoundPage();
  document.title = `${main.querySelector("h1").textContent} · fer-stream`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === match?.nav) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function navigate() {
  render();
  window.scrollTo(0, 0);
  main.querySelector("h1").focus();
}

function showConnection() {
  const notice = document.getElementById("connection");
  setTimeout(() => {
    const { lostAt } = connection;
    notice.hidden = lostAt === null;
    notice.textContent = lostAt === null ? "" :
      `The service has not responded since ${formatTime(lostAt / 1000)}. Reconnecting; the data shown is from before.`;
  }, connection.lostAt === null ? 0 : NOTICE_DELAY_MS);
}

connection.addEventListener("change", showConnection);
window.addEventListener("hashchange", navigate);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("zone").textContent = `Time zone: ${timeZoneName()}.`;
render();
