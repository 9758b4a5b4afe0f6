// The pictures of a camera. They are made only while somebody asks for them.

import { address, ApiError, ask } from "./api.js";
import { pause, visible } from "./visibility.js";

// Between two questions, where there is a picture and where there is none yet. Previews are a few a second.
const NEXT_MS = 300;
const NONE_YET_MS = 500;
const TROUBLE_MS = 3000;
/** The status where pictures are switched off. */
export const NO_PICTURES = 403;

/**
 * @typedef {{streamId: string, index: number, width: number, height: number, bitmap: ImageBitmap}} Picture
 * width and height are those of the frame, which the preview may be smaller than.
 */

/**
 * The newest picture, or null where there is none yet.
 * @returns {Promise<Picture | null>}
 */
export const picture = (name, signal) => ask(address("sources", name, "preview.jpg"), { signal }, read);

/** @param {Response} response @returns {Promise<Picture | null>} */
async function read(response) {
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
 * Gives the pictures of a camera as they come, while the page is looked at.
 * @param {(picture: Picture) => void} onPicture  who closes the bitmap
 * @param {() => void} onOff  where pictures are switched off
 */
export async function watch(name, onPicture, onOff, signal) {
  while (!signal.aborted) {
    await visible(signal);
    let wait_ms = NONE_YET_MS;
    try {
      const found = await picture(name, signal);
      if (found && !signal.aborted) {
        onPicture(found);
        wait_ms = NEXT_MS;
      }
    } catch (error) {
      if (error.status === NO_PICTURES) return onOff();
      if (!(error instanceof ApiError)) return undefined;
      wait_ms = TROUBLE_MS;
    }
    await pause(wait_ms, signal);
  }
  return undefined;
}
