// Previews of a camera. Requesting them makes the capture process publish them.

import { apiUrl, ApiError, request } from "./api.js";
import { sleep, untilVisible } from "./visibility.js";

// Intervals between two requests: after a preview, if there is none yet, and after an error. The service publishes about
// three previews per second.
const NEXT_MS = 300;
const UNAVAILABLE_MS = 500;
const ERROR_MS = 3000;
/** HTTP status if previews are disabled. */
export const PREVIEWS_DISABLED = 403;

/**
 * @typedef {{streamId: string, index: number, width: number, height: number, bitmap: ImageBitmap}} Preview
 * `width` and `height` are the size of the frame; the bitmap can be smaller.
 */

/**
 * Requests the newest preview; null if there is none yet.
 * @returns {Promise<Preview | null>}
 */
export const getPreview = (name, signal) => request(apiUrl("sources", name, "preview.jpg"), { signal }, parse);

/** @param {Response} response @returns {Promise<Preview | null>} */
async function parse(response) {
  if (response.status === 204) return null;
  const header = (key) => response.headers.get(`X-${key}`);
  return {
    streamId: header("Stream-Id"),
    index: Number(header("Frame-Index")),
    width: Number(header("Frame-Width")),
    height: Number(header("Frame-Height")),
    bitmap: await createImageBitmap(await response.blob()),
  };
}

/**
 * Fetches the previews of a camera continuously while the page is visible.
 * @param {(preview: Preview) => void} onPreview  must close the bitmap
 * @param {() => void} onDisabled  called once if previews are disabled
 */
export async function watchPreviews(name, onPreview, onDisabled, signal) {
  while (!signal.aborted) {
    await untilVisible(signal);
    let intervalMs = UNAVAILABLE_MS;
    try {
      const preview = await getPreview(name, signal);
      if (preview && !signal.aborted) {
        onPreview(preview);
        intervalMs = NEXT_MS;
      }
    } catch (error) {
      if (error.status === PREVIEWS_DISABLED) return onDisabled();
      if (!(error instanceof ApiError)) return undefined;
      intervalMs = ERROR_MS;
    }
    await sleep(intervalMs, signal);
  }
  return undefined;
}
