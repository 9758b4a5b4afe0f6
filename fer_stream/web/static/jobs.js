// Page with recorded files: upload, progress and results of jobs.

import { apiUrl, ApiError, getJson, ignoreApiErrors, poll, request, upload } from "./api.js";
import { announce, el, reconcile, setText } from "./dom.js";
import { formatBytes, formatDateTime, formatDuration, formatPercent, pluralize } from "./format.js";

const ACTIVE_POLL_MS = 1000;
const IDLE_POLL_MS = 5000;
const REPORT_SUFFIX = ".report.html";

/**
 * @typedef {"queued" | "running" | "retrying" | "done" | "failed" | "cancelled"} JobState
 * @typedef {object} Job
 * @property {string} job_id
 * @property {string} name
 * @property {JobState} state
 * @property {string} priority
 * @property {number} submitted_at  Unix seconds, like all names ending in _at
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

// Colour, icon and name of each state.
const STATES = {
  queued: ["busy", "…", "queued"], running: ["busy", "▶", "running"], retrying: ["busy", "↻", "retrying"],
  done: ["good", "✓", "done"], failed: ["bad", "✕", "failed"], cancelled: ["off", "–", "cancelled"],
};
const TERMINAL_STATES = new Set(["done", "failed", "cancelled"]);

/** @param {HTMLElement} main */
export function jobsPage(main, _parameters, signal) {
  /** @type {Job[]} */
  let jobs = [];
  const note = el("p", { class: "note", role: "alert", hidden: true });
  const list = el("ul", { class: "jobs" });
  const empty = el("p", { class: "muted", hidden: true }, "No files yet.");
  const summary = el("p");
  main.append(
    el("div", { class: "title" }, el("h1", { tabindex: "-1" }, "Recorded jobs"), summary),
    uploadSection(), note,
    el("section", { "aria-labelledby": "jobs" }, el("h2", { id: "jobs" }, "Jobs"), empty, list),
  );

  async function loadJobs() {
    /** @type {Job[]} */
    const loaded = await getJson(apiUrl("jobs"), signal);
    const before = new Map(jobs.map((job) => [job.job_id, job.state]));
    for (const { job_id, name, state } of loaded) {
      const changed = before.has(job_id) && before.get(job_id) !== state;
      if (changed && TERMINAL_STATES.has(state)) announce(`${name} is ${STATES[state][2]}`);
    }
    jobs = loaded;
    reconcile(list, jobs, ({ job_id }) => job_id, (job) => jobItem(job, act));
    empty.hidden = jobs.length > 0;
    const pending = jobs.filter(({ state }) => !TERMINAL_STATES.has(state)).length;
    setText(summary, jobs.length ? `${pluralize(jobs.length, "job")}, ${pending || "none"} pending` : "");
  }

  async function act(method, ...path) {
    try {
      await request(apiUrl("jobs", ...path), { method });
      note.hidden = true;
      await loadJobs();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      note.hidden = false;
      setText(note, error.message);
    }
  }

  uploadList.addEventListener("uploaded", () => loadJobs().catch(ignoreApiErrors), { signal });
  const pending = () => jobs.some(({ state }) => !TERMINAL_STATES.has(state));
  poll(loadJobs, () => (pending() ? ACTIVE_POLL_MS : IDLE_POLL_MS), signal);
}

/** @param {Job} job @param {(method: string, ...path: string[]) => Promise<void>} act */
function jobItem({ job_id, name }, act) {
  const icon = el("span", { "aria-hidden": "true" });
  const state = el("span");
  const chip = el("span", { class: "chip" }, icon, " ", state);
  const details = el("span");
  const bar = el("progress", { "aria-label": `Progress of ${name}`, max: 1 });
  const error = el("p", { class: "full-width" });
  const button = (text, onclick) => el("button", { type: "button", "aria-label": `${text} ${name}`, onclick }, text);
  const cancel = button("Cancel", () => act("POST", job_id, "cancel"));
  const retry = button("Retry", () => act("POST", job_id, "retry"));
  const remove = button("Delete", async () => { if (await confirmDelete(name)) await act("DELETE", job_id); });
  const report = el("a", { class: "button", "aria-label": `Report of ${name}`, href: apiUrl("jobs", job_id, "report") });
  report.append("Report");
  const files = el("ul", { class: "files" });
  const filesSection = el("details", { class: "full-width" }, el("summary", {}, "Files"), files);
  const element = el("li", {},
    el("div", {}, el("h3", {}, name), el("p", {}, chip, " ", details)),
    el("div", { class: "buttons" }, report, cancel, retry, remove),
    el("div", { class: "full-width" }, bar), error, filesSection);
  return {
    element,
    /** @param {Job} job */
    update(job) {
      const [level, symbol, stateName] = STATES[job.state];
      chip.className = `chip ${level}`;
      setText(icon, symbol);
      setText(state, stateName);
      setText(details, detailsText(job));
      bar.parentElement.hidden = job.state !== "running";
      if (job.progress === null) bar.removeAttribute("value");
      else bar.value = job.progress;
      setText(error, job.error ?? "");
      error.hidden = !job.error;
      const ended = TERMINAL_STATES.has(job.state);
      report.hidden = !job.report;
      cancel.hidden = ended;
      retry.hidden = !ended || job.state === "done";
      remove.hidden = !ended;
      filesSection.hidden = job.outputs.length === 0;
      reconcile(files, job.outputs, (file) => file.name, (file) => fileItem(job_id, file));
    },
  };
}

/** @param {Job} job */
function detailsText({ state, priority, progress, frames, submitted_at, started_at, ended_at, retry_at, attempts }) {
  const texts = [];
  if (state === "running") texts.push(progress === null ? pluralize(frames, "frame") : formatPercent(progress));
  if (state === "retrying" && retry_at) texts.push(`at ${formatDateTime(retry_at)}`);
  if (state === "done") texts.push(pluralize(frames, "frame"), `in ${formatDuration(ended_at - started_at)}`);
  if (attempts > 1) texts.push(`attempt ${attempts}`);
  if (priority !== "normal") texts.push(`${priority} priority`);
  texts.push(`submitted ${formatDateTime(submitted_at)}`);
  return texts.join(" · ");
}

function fileItem(job_id, { name, bytes }) {
  const link = el("a", { href: apiUrl("jobs", job_id, "files", name), download: !name.endsWith(REPORT_SUFFIX) }, name);
  return { element: el("li", {}, link, ` ${formatBytes(bytes)}`), update() {} };
}

/** Asks for confirmation. @returns {Promise<boolean>} */
function confirmDelete(name) {
  return new Promise((resolve) => {
    const dialog = el("dialog", { "aria-labelledby": "confirm" }, el("h2", { id: "confirm" }, "Delete this job?"),
      el("p", {}, `${name} and all its files will be deleted.`),
      el("form", { method: "dialog", class: "buttons" },
        el("button", { value: "", autofocus: true }, "Keep"),
        el("button", { value: "delete", class: "danger" }, "Delete")));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "delete");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Uploads continue while other pages are shown.
const uploadList = el("ul", { class: "jobs" });
/** @type {ReturnType<typeof uploadItem>[]} the current upload, followed by those that wait */
const uploadQueue = [];
window.addEventListener("beforeunload", (event) => { if (uploadQueue.length) event.preventDefault(); });

/** Uploads all queued files in order, and dispatches "uploaded" to `uploadList` after each. */
async function processQueue() {
  while (uploadQueue.length) {
    await uploadQueue[0].send();
    uploadQueue.shift();
    uploadList.dispatchEvent(new Event("uploaded"));
  }
}

/** Creates the section in which files are chosen or dropped. They are uploaded one after another. */
function uploadSection() {
  const files = el("input", { type: "file", multiple: true, accept: "video/*,image/*,.mkv", onchange: () => {
    enqueue(files.files);
    files.value = "";
  } });
  const priority = el("select", {}, ...["normal", "high", "low"].map((value) => el("option", { value }, value)));

  function enqueue(chosen) {
    const items = [...chosen].map((file) => uploadItem(file, priority.value));
    uploadList.append(...items.map(({ element }) => element));
    const active = uploadQueue.length > 0;
    uploadQueue.push(...items);
    if (!active) processQueue();
  }

  const section = el("section", { class: "drop", "aria-labelledby": "upload" },
    el("h2", { id: "upload" }, "Upload a file"),
    el("p", { class: "muted" }, "Choose or drop a video or a still image. It is processed like fer-stream run, and the " +
      "upload is deleted afterwards."),
    el("div", { class: "buttons" }, el("label", { class: "button" }, files, "Choose files"),
      el("label", { class: "inline" }, "Priority ", priority)),
    uploadList);
  const onDragEvent = (event) => {
    event.preventDefault();
    section.classList.toggle("dragover", event.type === "dragover");
  };
  section.addEventListener("dragover", onDragEvent);
  section.addEventListener("dragleave", onDragEvent);
  section.addEventListener("drop", (event) => {
    onDragEvent(event);
    enqueue(event.dataTransfer.files);
  });
  return section;
}

/** @param {File} file */
function uploadItem(file, priority) {
  const abort = new AbortController();
  const bar = el("progress", { "aria-label": `Upload of ${file.name}`, max: 1, value: 0 });
  const status = el("p", { role: "status" }, "waiting for upload");
  const cancel = el("button",
    { type: "button", "aria-label": `Cancel the upload of ${file.name}`, onclick: onCancel }, "Cancel");
  const element = el("li", {},
    el("div", {}, el("h3", {}, file.name), status), cancel, el("div", { class: "full-width" }, bar));
  const item = { element, send };

  function onCancel() {
    const position = uploadQueue.indexOf(item);
    if (position === 0) return abort.abort();
    uploadQueue.splice(position, 1);
    return element.remove();
  }

  /** Uploads the file, then removes the item or shows the error. Never rejects, so that the queue continues. */
  async function send() {
    const form = new FormData();
    form.append("priority", priority);
    form.append("file", file);
    try {
      await upload(apiUrl("jobs"), form, onProgress, abort.signal);
      element.remove();
    } catch (error) {
      status.textContent = error.message;
      bar.remove();
      cancel.replaceWith(el("button", { type: "button", onclick: () => element.remove() }, "Close"));
    }
  }

  function onProgress(fraction) {
    bar.value = fraction;
    status.textContent = fraction < 1 ? `${formatBytes(fraction * file.size)} of ${formatBytes(file.size)}` : "submitting";
  }

  return item;
}
