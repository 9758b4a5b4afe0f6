// The HTTP API: requests, the event stream, uploads, and whether the service can be reached at all.

const API = new URL("api/v1/", document.baseURI);
const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 10_000;

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

/** Asks, and waits for a good answer. @returns {Promise<Response>} */
export async function ask(url, options) {
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
  return response;
}

export const getJson = async (url, signal) => (await ask(url, { signal })).json();

export const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });

/**
 * Calls `work` again and again, `ms` after it ended, until `signal`; sooner when the page is looked at again.
 * @param {() => Promise<void>} work
 * @param {() => number} ms
 */
export async function repeat(work, ms, signal) {
  while (!signal.aborted) {
    await work().catch((error) => { if (!(error instanceof ApiError) && error.name !== "AbortError") throw error; });
    await pause(ms(), signal);
  }
}

/**
 * Follows an event stream until `signal`, over any loss of the connection.
 * @param {Record<string, (data?: any) => void>} listeners  by the name of the event, `open` for each new connection
 */
export function follow(url, listeners, signal) {
  let wait_ms = RETRY_FIRST_MS;
  const open = () => {
    if (signal.aborted) return;
    const source = new EventSource(url);
    const close = () => source.close();
    signal.addEventListener("abort", close, { once: true });
    source.onopen = () => {
      connection.up = true;
      wait_ms = RETRY_FIRST_MS;
      listeners.open?.();
    };
    source.onerror = () => {
      connection.up = false;
      // The browser tries again by itself, but for answers that are no event stream, as of a proxy.
      if (source.readyState !== EventSource.CLOSED) return;
      signal.removeEventListener("abort", close);
      setTimeout(open, wait_ms);
      wait_ms = Math.min(2 * wait_ms, RETRY_MAX_MS);
    };
    for (const [name, listener] of Object.entries(listeners)) {
      if (name !== "open") source.addEventListener(name, ({ data }) => listener(JSON.parse(data)));
    }
  };
  open();
}

/**
 * Sends a form, as fetch does, but says how far it is.
 * @param {(share: number) => void} onProgress  0..1
 * @returns {Promise<any>}
 */
export function upload(url, form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    request.onload = () => {
      if (request.status < 300) resolve(request.response);
      else reject(complaint(request.response, request.status));
    };
    request.onerror = () => reject(new ApiError("The upload broke off: the service does not take it.", 0));
    request.onabort = () => reject(new ApiError("The upload was cancelled.", 0));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}
