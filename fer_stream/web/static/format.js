// How times, counts and reasons are said: as in the report of a file.

const HOUR = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const time = new Intl.DateTimeFormat(undefined, { ...HOUR, second: "2-digit" });
const minute = new Intl.DateTimeFormat(undefined, HOUR);
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short", year: "numeric" });
const today = () => day.format(new Date());

/** A moment of the day, as in 14:03:12. @param {number} at Unix seconds */
export const clock = (at) => time.format(at * 1000);

/** As in 14:03. @param {number} at Unix seconds */
export const shortClock = (at) => minute.format(at * 1000);

/** As in Sun, 22 Nov 2026. @param {number} at Unix seconds */
export const dayOf = (at) => day.format(at * 1000);

/** The day of a date as in 2026-11-22, in words. */
export const dateName = (date) => dayOf(boundsOf(date).from);

/** From midnight to midnight in the browser's zone, in Unix seconds. @param {string} date  as in 2026-11-22 */
export function boundsOf(date) {
  const midnight = new Date(`${date}T00:00`);
  const next = new Date(midnight);
  next.setDate(next.getDate() + 1);
  return { from: midnight / 1000, to: next / 1000 };
}

/** A moment, with its day unless that is today. @param {number} at Unix seconds */
export const moment = (at) => (dayOf(at) === today() ? clock(at) : `${dayOf(at)}, ${clock(at)}`);

/** The zone of all times on the page, as in Europe/Berlin (GMT+1). */
export function zone() {
  const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
  const parts = new Intl.DateTimeFormat("en-GB", { timeZoneName: "shortOffset" }).formatToParts(new Date());
  return `${timeZone} (${parts.find((part) => part.type === "timeZoneName").value})`;
}

/** A length of time, as in 4.7 s, 2 min 19 s and 1 h 2 min. */
export function lasting(seconds) {
  if (Math.round(seconds * 10) < 600) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** The same for what need not be exact, as in 40 s, 5 min and 3 h. */
export function roughly(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} days`;
}

/** A number and what it counts, as in 1 person, 0 people and 1,394 frames. */
export const count = (number, noun, plural = `${noun}s`) =>
  `${number.toLocaleString("en-GB")} ${number === 1 ? noun : plural}`;

/** A part of a whole, 0..1, as in 61%; what would round to nothing is under 1%. */
export const percent = (share) => (share >= 0.005 || share <= 0 ? `${Math.round(100 * share)}%` : "under 1%");

/** As in 640 B, 12 KB and 1.4 MB. */
export function bytes(number) {
  if (number < 1e3) return `${number} B`;
  if (number < 1e6) return `${Math.round(number / 1e3)} KB`;
  return number < 1e9 ? `${(number / 1e6).toFixed(1)} MB` : `${(number / 1e9).toFixed(2)} GB`;
}

/**
 * How people are called. A number means another person each time the camera was opened: where there are several such
 * times, the name tells which.
 * @param {{stream_id: string}[]} people
 * @returns {(person: {stream_id: string, number: number}) => string}
 */
export function namer(people) {
  const several = new Set(people.map(({ stream_id }) => stream_id)).size > 1;
  const opened = (stream_id) => Number(stream_id.split("@")[1]) / 1000;
  return ({ stream_id, number }) => `Person ${number}${several ? ` (${shortClock(opened(stream_id))})` : ""}`;
}

const QUALITY = {
  small: "too small", blurred: "blurred", off_frontal: "turned away", truncated: "cut off by the edge",
  unclear: "no clear expression",
};

/** Why a face is not judged; empty where it is. */
export const unjudged = (reason) => QUALITY[reason] ?? "";

const REASONS = {
  refused: "connection refused", unauthorized: "wrong user or password", not_found: "no such stream",
  timeout: "no answer in time", stalled: "sent nothing", ended: "stream ended", decode: "pictures could not be decoded",
  network: "fault of the network", internal: "fault of the service",
};

/** Why a camera gave no pictures. */
export const whyGone = (reason) => REASONS[reason] ?? reason;
