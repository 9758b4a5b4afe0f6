// Waiting, for a time or for somebody who looks. All of it ends with `signal`.

export const pause = (ms, signal) =>
  new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });

/** Waits until the page comes into sight or goes out of it. */
const changed = (signal) =>
  new Promise((resolve) => {
    const end = () => {
      document.removeEventListener("visibilitychange", end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    document.addEventListener("visibilitychange", end);
    signal.addEventListener("abort", end);
  });

/** Waits until the page is looked at. */
export async function visible(signal) {
  while (document.hidden && !signal.aborted) await changed(signal);
}

/** Waits until nobody has looked at the page for `ms`. */
export async function outOfSight(ms, signal) {
  while (!signal.aborted) {
    const wasHidden = document.hidden;
    await Promise.race(wasHidden ? [changed(signal), pause(ms, signal)] : [changed(signal)]);
    if (wasHidden && document.hidden) return;
  }
}
