// Client of the HTTP API: requests, event streams, uploads, and the state of the connection.

import { sleep, untilHiddenFor, untilVisible } from "./visibility.js";

const API = new URL("api/v1/", document.baseURI);
const RETRY_MIN_MS = 1000;
const RETRY_MAX_MS = 10_000;
// With HTTP/1.1 a browser opens at most six connections to a service for all its tabs, and a stream occupies one.
const HIDDEN_TIMEOUT_MS = 5000;

/** Dispatches "change" when the service becomes unreachable or reachable. */
class Connection extends EventTarget {
  /** @type {number | null} when the connection was lost, in Unix ms; null while the service is reachable */
  lostAt = null;

  set up(up) {
    if (up === (this.lostAt === null)) return;
    this.lostAt = up ? null : Date.now();
    this.dispatchEvent(new Event("change"));
  }
}

export const connection = new Connection();

export class ApiError extends Error {
  /** @param {number} status HTTP status; 0 if there was no response */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Returns the URL of an API path; each of `segments` is one path segment. */
export const apiUrl = (...segments) => new URL(segments.map(encodeURIComponent).join("/"), API).href;

/** Returns the text of a problem (RFC 9457). @param {{detail?: string, hint?: string} | null} problem */
export const problemText = (problem) => [problem?.detail, problem?.hint].filter(Boolean).join(" ");

const problemError = (problem, status) =>
  new ApiError(problemText(problem) || `The service responded with status ${status}.`, status);

/**
 * Sends a request and reads a successful response. Every failure is an ApiError, except the AbortError of `signal`.
 * @template T
 * @param {(response: Response) => Promise<T>} read  discards the body by default
 * @returns {Promise<T>}
 */
export async function request(url, options, read = async ({ body }) => body?.cancel()) {
  let response;
  try {
    response = await fetch(url, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connection.up = false;
    throw new ApiError("The service does not respond.", 0);
  }
  connection.up = true;
  if (!response.ok) throw problemError(await response.json().catch(() => null), response.status);
  return read(response).catch((error) => {
    throw error.name === "AbortError" ? error : new ApiError("The response of the service was incomplete.", 0);
  });
}

export const getJson = (url, signal) => request(url, { signal }, (response) => response.json());

/** Error handler for requests that are repeated anyway: ignores API errors and aborts. */
export function ignoreApiErrors(error) {
  if (!(error instanceof ApiError) && error.name !== "AbortError") throw error;
}

/**
 * Calls `work` repeatedly until `signal`, `intervalMs()` after the previous call has finished.
 * @param {() => Promise<void>} work
 * @param {() => number} intervalMs
 */
export async function poll(work, intervalMs, signal) {
  while (!signal.aborted) {
    await work().catch(ignoreApiErrors);
    await sleep(intervalMs(), signal);
  }
}

/**
 * Receives an event stream until `signal` while the page is visible, and reconnects after every loss.
 * @typedef {object} Listeners
 * @property {() => void} open  called for each new connection
 * @property {(reason: string) => void} refused  called if the service refuses, for example if all streams are in use
 * @param {Listeners & Record<string, (data: any) => void>} listeners  all others by event name
 */
export async function subscribe(url, { open, refused, ...events }, signal) {
  let retryMs = RETRY_MIN_MS;
  const onOpen = () => {
    retryMs = RETRY_MIN_MS;
    open();
  };
  for (await untilVisible(signal); !signal.aborted; await untilVisible(signal)) {
    if (await receive(url, onOpen, events, signal)) continue;
    await request(url, { signal }).catch((error) => { if (error instanceof ApiError) refused(error.message); });
    await sleep(retryMs, signal);
    retryMs = Math.min(2 * retryMs, RETRY_MAX_MS);
  }
}

/**
 * Receives events until `signal`, until the page has been hidden for a while, or until the browser stops reconnecting.
 * It does so if the response is not an event stream, and does not expose the body of that response.
 * @returns {Promise<boolean>} false if the browser stopped reconnecting
 */
async function receive(url, onOpen, events, signal) {
  const closed = new AbortController();
  const source = new EventSource(url);
  source.onopen = () => {
    connection.up = true;
    onOpen();
  };
  source.onerror = () => {
    connection.up = false;
    if (source.readyState === EventSource.CLOSED) closed.abort();
  };
  for (const [name, listener] of Object.entries(events)) {
    source.addEventListener(name, ({ data }) => listener(JSON.parse(data)));
  }
  await untilHiddenFor(HIDDEN_TIMEOUT_MS, AbortSignal.any([signal, closed.signal]));
  source.close();
  return !closed.signal.aborted;
}

/**
 * Sends a form like fetch, but reports the progress.
 * @param {(fraction: number) => void} onProgress  0..1
 * @returns {Promise<any>}
 */
export function upload(url, form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const cancelled = () => reject(new ApiError("The upload was cancelled.", 0));
    if (signal.aborted) return cancelled();
    const xhr = new XMLHttpRequest();
    xhr.open("POST", url);
    xhr.responseType = "json";
    xhr.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    xhr.onload = () => {
      if (xhr.status < 300) resolve(xhr.response);
      else reject(problemError(xhr.response, xhr.status));
    };
    xhr.onerror = () => reject(new ApiError("The upload failed: the service closed the connection.", 0));
    xhr.onabort = cancelled;
    signal.addEventListener("abort", () => xhr.abort(), { once: true });
    return xhr.send(form);
  });
}
