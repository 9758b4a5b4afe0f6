// The HTTP API: requests, the event stream, uploads, and whether the service can be reached at all.

import { outOfSight, pause, visible } from "./visibility.js";

const API = new URL("api/v1/", document.baseURI);
const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 10_000;
// Over HTTP/1.1 a browser has six connections to a service for all its tabs, and a stream is one of them.
const UNSEEN_MS = 5000;

/** Tells with "change" when the service goes and comes back. */
class Connection extends EventTarget {
  /** When it was lost, in Unix ms; null while it is there. */
  lost = null;

  set up(up) {
    if (up === (this.lost === null)) return;
    this.lost = up ? null : Date.now();
    this.dispatchEvent(new Event("change"));
  }
}

export const connection = new Connection();

export class ApiError extends Error {
  /** @param {number} status of HTTP; 0 where there was no answer */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The address of a part of the API; each of `parts` is one step of the path. */
export const address = (...parts) => new URL(parts.map(encodeURIComponent).join("/"), API).href;

/** What a problem (RFC 9457) says, and its cure. @param {{detail?: string, cure?: string} | null} problem */
export const wordsOf = (problem) => [problem?.detail, problem?.cure].filter(Boolean).join(" ");

const complaint = (problem, status) => new ApiError(wordsOf(problem) || `The service answered ${status}.`, status);

/**
 * Asks, and reads a good answer. Whatever goes wrong is an ApiError, but for the AbortError of who asks no longer.
 * @template T
 * @param {(response: Response) => Promise<T>} read  by default the body is left unread
 * @returns {Promise<T>}
 */
export async function ask(url, options, read = async ({ body }) => body?.cancel()) {
  let response;
  try {
    response = await fetch(url, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connection.up = false;
    throw new ApiError("The service does not answer.", 0);
  }
  connection.up = true;
  if (!response.ok) throw complaint(await response.json().catch(() => null), response.status);
  return read(response).catch((error) => {
    throw error.name === "AbortError" ? error : new ApiError("The answer of the service broke off.", 0);
  });
}

export const getJson = (url, signal) => ask(url, { signal }, (response) => response.json());

/** For work that is done again soon: it does not matter that the service is away, or that the page was left. */
export function passOver(error) {
  if (!(error instanceof ApiError) && error.name !== "AbortError") throw error;
}

/**
 * Calls `work` again and again, `ms` after it ended, until `signal`.
 * @param {() => Promise<void>} work
 * @param {() => number} ms
 */
export async function repeat(work, ms, signal) {
  while (!signal.aborted) {
    await work().catch(passOver);
    await pause(ms(), signal);
  }
}

/**
 * Follows an event stream until `signal`, over any loss of the connection, while the page is looked at.
 * @typedef {object} Listeners
 * @property {() => void} open  for each new connection
 * @property {(why: string) => void} refused  where there is none, as when all streams are taken
 * @param {Listeners & Record<string, (data: any) => void>} listeners  the others by the name of the event
 */
export async function follow(url, { open, refused, ...events }, signal) {
  let wait_ms = RETRY_FIRST_MS;
  const opened = () => {
    wait_ms = RETRY_FIRST_MS;
    open();
  };
  for (await visible(signal); !signal.aborted; await visible(signal)) {
    if (await listen(url, opened, events, signal)) continue;
    await ask(url, { signal }).catch((error) => { if (error instanceof ApiError) refused(error.message); });
    await pause(wait_ms, signal);
    wait_ms = Math.min(2 * wait_ms, RETRY_MAX_MS);
  }
}

/**
 * Listens until `signal`, until the page is out of sight, or until the browser gives up. By itself it tries again, but
 * for answers that are no event stream: a problem, which it shows nobody, or one of a proxy.
 * @returns {Promise<boolean>} false where the browser gave up
 */
async function listen(url, opened, events, signal) {
  const givenUp = new AbortController();
  const source = new EventSource(url);
  source.onopen = () => {
    connection.up = true;
    opened();
  };
  source.onerror = () => {
    connection.up = false;
    if (source.readyState === EventSource.CLOSED) givenUp.abort();
  };
  for (const [name, listener] of Object.entries(events)) {
    source.addEventListener(name, ({ data }) => listener(JSON.parse(data)));
  }
  await outOfSight(UNSEEN_MS, AbortSignal.any([signal, givenUp.signal]));
  source.close();
  return !givenUp.signal.aborted;
}

/**
 * Sends a form, as fetch does, but says how far it is.
 * @param {(share: number) => void} onProgress  0..1
 * @returns {Promise<any>}
 */
export function upload(url, form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const cancelled = () => reject(new ApiError("The upload was cancelled.", 0));
    if (signal.aborted) return cancelled();
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    request.onload = () => {
      if (request.status < 300) resolve(request.response);
      else reject(complaint(request.response, request.status));
    };
    request.onerror = () => reject(new ApiError("The upload broke off: the service does not take it.", 0));
    request.onabort = cancelled;
    signal.addEventListener("abort", () => request.abort(), { once: true });
    return request.send(form);
  });
}
