// Recorded files: what was handed in, how far each is, and what came of it.

import { address, ApiError, ask, getJson, passOver, repeat, upload } from "./api.js";
import { announce, el, keep, say } from "./dom.js";
import { bytes, count, lasting, moment, percent } from "./format.js";

const BUSY_MS = 1000;
const IDLE_MS = 5000;
const REPORT = ".report.html";

/**
 * @typedef {"queued" | "running" | "retrying" | "done" | "failed" | "cancelled"} JobState
 * @typedef {object} Job
 * @property {string} job_id
 * @property {string} name
 * @property {JobState} state
 * @property {string} priority
 * @property {number} submitted_at  Unix seconds, as all that ends in _at
 * @property {number | null} progress  0..1
 * @property {number} frames
 * @property {number | null} started_at
 * @property {number | null} ended_at
 * @property {number | null} retry_at
 * @property {number} attempts
 * @property {string | null} error
 * @property {{name: string, bytes: number}[]} outputs
 * @property {boolean} report
 */

const LOOKS = {
  queued: ["busy", "…", "waiting"], running: ["busy", "▶", "running"], retrying: ["busy", "↻", "tried again"],
  done: ["good", "✓", "done"], failed: ["bad", "✕", "failed"], cancelled: ["off", "–", "cancelled"],
};
const ENDED = new Set(["done", "failed", "cancelled"]);

/** @param {HTMLElement} main */
export function jobsPage(main, _parts, signal) {
  /** @type {Job[]} */
  let jobs = [];
  const note = el("p", { class: "note", role: "alert", hidden: true });
  const list = el("ul", { class: "jobs" });
  const none = el("p", { class: "pale", hidden: true }, "No file was handed in yet.");
  const counts = el("p");
  main.append(
    el("div", { class: "title" }, el("h1", { tabindex: "-1" }, "Recorded jobs"), counts),
    uploads(), note,
    el("section", { "aria-labelledby": "jobs" }, el("h2", { id: "jobs" }, "Jobs"), none, list),
  );

  async function look() {
    /** @type {Job[]} */
    const found = await getJson(address("jobs"), signal);
    const before = new Map(jobs.map((job) => [job.job_id, job.state]));
    for (const { job_id, name, state } of found) {
      const news = before.has(job_id) && before.get(job_id) !== state;
      if (news && ENDED.has(state)) announce(`${name} is ${LOOKS[state][2]}`);
    }
    jobs = found;
    keep(list, jobs, ({ job_id }) => job_id, (job) => jobLine(job, act));
    none.hidden = jobs.length > 0;
    const open = jobs.filter(({ state }) => !ENDED.has(state)).length;
    say(counts, jobs.length ? `${count(jobs.length, "job")}, ${open} to be done` : "");
  }

  async function act(method, ...steps) {
    try {
      await ask(address("jobs", ...steps), { method });
      note.hidden = true;
      await look();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      note.hidden = false;
      say(note, error.message);
    }
  }

  sendings.addEventListener("sent", () => look().catch(passOver), { signal });
  repeat(look, () => (jobs.some(({ state }) => !ENDED.has(state)) ? BUSY_MS : IDLE_MS), signal);
}

/** @param {Job} job @param {(method: string, ...steps: string[]) => Promise<void>} act */
function jobLine({ job_id, name }, act) {
  const sign = el("span", { "aria-hidden": "true" });
  const state = el("span");
  const chip = el("span", { class: "chip" }, sign, " ", state);
  const told = el("span");
  const bar = el("progress", { "aria-label": `Progress of ${name}`, max: 1 });
  const error = el("p", { class: "whole" });
  const button = (text, work) => el("button", { type: "button", "aria-label": `${text} ${name}`, onclick: work }, text);
  const cancel = button("Cancel", () => act("POST", job_id, "cancel"));
  const retry = button("Retry", () => act("POST", job_id, "retry"));
  const forget = button("Delete", async () => { if (await sure(name)) await act("DELETE", job_id); });
  const report = el("a", { class: "button", "aria-label": `Report of ${name}`, href: address("jobs", job_id, "report") });
  report.append("Report");
  const files = el("ul", { class: "files" });
  const all = el("details", { class: "whole" }, el("summary", {}, "Files"), files);
  const element = el("li", {},
    el("div", {}, el("h3", {}, name), el("p", {}, chip, " ", told)),
    el("div", { class: "buttons" }, report, cancel, retry, forget),
    el("div", { class: "whole" }, bar), error, all);
  return {
    element,
    /** @param {Job} job */
    update(job) {
      const [look, mark, word] = LOOKS[job.state];
      chip.className = `chip ${look}`;
      say(sign, mark);
      say(state, word);
      say(told, about(job));
      bar.parentElement.hidden = job.state !== "running";
      if (job.progress === null) bar.removeAttribute("value");
      else bar.value = job.progress;
      say(error, job.error ?? "");
      error.hidden = !job.error;
      const ended = ENDED.has(job.state);
      report.hidden = !job.report;
      cancel.hidden = ended;
      retry.hidden = !ended || job.state === "done";
      forget.hidden = !ended;
      all.hidden = job.outputs.length === 0;
      keep(files, job.outputs, (file) => file.name, (file) => fileLine(job_id, file));
    },
  };
}

/** @param {Job} job */
function about({ state, priority, progress, frames, submitted_at, started_at, ended_at, retry_at, attempts }) {
  const told = [];
  if (state === "running") told.push(progress === null ? count(frames, "frame") : percent(progress));
  if (state === "retrying" && retry_at) told.push(`at ${moment(retry_at)}`);
  if (state === "done") told.push(count(frames, "frame"), `in ${lasting(ended_at - started_at)}`);
  if (attempts > 1) told.push(`attempt ${attempts}`);
  if (priority !== "normal") told.push(`${priority} priority`);
  told.push(`handed in ${moment(submitted_at)}`);
  return told.join(" · ");
}

function fileLine(job_id, { name, bytes: size }) {
  const link = el("a", { href: address("jobs", job_id, "files", name), download: !name.endsWith(REPORT) }, name);
  return { element: el("li", {}, link, ` ${bytes(size)}`), update() {} };
}

/** Asks before something is gone for good. @returns {Promise<boolean>} */
function sure(name) {
  return new Promise((resolve) => {
    const dialog = el("dialog", { "aria-labelledby": "sure" }, el("h2", { id: "sure" }, "Delete this job?"),
      el("p", {}, `${name} and all its files will be gone.`),
      el("form", { method: "dialog", class: "buttons" },
        el("button", { value: "", autofocus: true }, "Keep it"),
        el("button", { value: "delete", class: "danger" }, "Delete it")));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "delete");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// What is being sent goes on while other pages are looked at.
const sendings = el("ul", { class: "jobs" });
/** @type {ReturnType<typeof uploadLine>[]} the one that is being sent, and those that wait for it */
const unsent = [];
window.addEventListener("beforeunload", (event) => { if (unsent.length) event.preventDefault(); });

/** Tells `sendings` with "sent" of each file. */
async function sendAll() {
  while (unsent.length) {
    await unsent[0].send();
    unsent.shift();
    sendings.dispatchEvent(new Event("sent"));
  }
}

/** Where files are handed in, by choosing or by dropping them. One after another is sent. */
function uploads() {
  const files = el("input", { type: "file", multiple: true, accept: "video/*,image/*,.mkv", onchange: () => {
    take(files.files);
    files.value = "";
  } });
  const priority = el("select", {}, ...["normal", "high", "low"].map((value) => el("option", { value }, value)));

  function take(chosen) {
    const lines = [...chosen].map((file) => uploadLine(file, priority.value));
    sendings.append(...lines.map(({ element }) => element));
    const busy = unsent.length > 0;
    unsent.push(...lines);
    if (!busy) sendAll();
  }

  const section = el("section", { class: "drop", "aria-labelledby": "upload" },
    el("h2", { id: "upload" }, "Hand in a file"),
    el("p", { class: "pale" }, "A video or a picture, chosen or dropped here. It is analysed as fer-stream run does it, " +
      "and deleted when that is done."),
    el("div", { class: "buttons" }, el("label", { class: "button" }, files, "Choose files"),
      el("label", { class: "inline" }, "Priority ", priority)),
    sendings);
  const over = (event) => {
    event.preventDefault();
    section.classList.toggle("over", event.type === "dragover");
  };
  section.addEventListener("dragover", over);
  section.addEventListener("dragleave", over);
  section.addEventListener("drop", (event) => {
    over(event);
    take(event.dataTransfer.files);
  });
  return section;
}

/** @param {File} file */
function uploadLine(file, priority) {
  const stop = new AbortController();
  const bar = el("progress", { "aria-label": `Upload of ${file.name}`, max: 1, value: 0 });
  const told = el("p", { role: "status" }, "waiting to be sent");
  const cancel = el("button",
    { type: "button", "aria-label": `Cancel the upload of ${file.name}`, onclick: giveUp }, "Cancel");
  const element = el("li", {},
    el("div", {}, el("h3", {}, file.name), told), cancel, el("div", { class: "whole" }, bar));
  const line = { element, send };

  function giveUp() {
    const place = unsent.indexOf(line);
    if (place === 0) return stop.abort();
    unsent.splice(place, 1);
    return element.remove();
  }

  /** The line goes when the file was sent, and says why where it was not. Never rejects: others wait. */
  async function send() {
    const form = new FormData();
    form.append("priority", priority);
    form.append("file", file);
    try {
      await upload(address("jobs"), form, tell, stop.signal);
      element.remove();
    } catch (error) {
      told.textContent = error.message;
      bar.remove();
      cancel.replaceWith(el("button", { type: "button", onclick: () => element.remove() }, "Close"));
    }
  }

  function tell(share) {
    bar.value = share;
    told.textContent = share < 1 ? `${bytes(share * file.size)} of ${bytes(file.size)}` : "being looked at";
  }

  return line;
}
