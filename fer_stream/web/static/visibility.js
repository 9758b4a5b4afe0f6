// Timers and page visibility as promises. All of them resolve early when `signal` is aborted.

export const sleep = (ms, signal) =>
  new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });

/** Resolves when the page becomes visible or hidden. */
const visibilityChange = (signal) =>
  new Promise((resolve) => {
    const end = () => {
      document.removeEventListener("visibilitychange", end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    document.addEventListener("visibilitychange", end);
    signal.addEventListener("abort", end);
  });

/** Resolves when the page is visible. */
export async function untilVisible(signal) {
  while (document.hidden && !signal.aborted) await visibilityChange(signal);
}

/** Resolves when the page has been hidden for `ms`. */
export async function untilHiddenFor(ms, signal) {
  while (!signal.aborted) {
    const wasHidden = document.hidden;
    await Promise.race(wasHidden ? [visibilityChange(signal), sleep(ms, signal)] : [visibilityChange(signal)]);
    if (wasHidden && document.hidden) return;
  }
}
