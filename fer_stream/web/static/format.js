// Formatting of times, counts and reasons, consistent with the report of a file.

const HOUR = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const time = new Intl.DateTimeFormat(undefined, { ...HOUR, second: "2-digit" });
const minute = new Intl.DateTimeFormat(undefined, HOUR);
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short", year: "numeric" });
const today = () => day.format(new Date());

/** Time of day: 14:03:12. @param {number} at Unix seconds */
export const formatTime = (at) => time.format(at * 1000);

/** Time of day: 14:03. @param {number} at Unix seconds */
export const formatMinute = (at) => minute.format(at * 1000);

/** Date: Sun, 22 Nov 2026. @param {number} at Unix seconds */
export const formatDay = (at) => day.format(at * 1000);

/** Formats an ISO date like `formatDay`. @param {string} date  2026-11-22 */
export const formatDate = (date) => formatDay(dayBounds(date).from);

/** Returns the start and end of a day in the browser's time zone, in Unix seconds. @param {string} date  2026-11-22 */
export function dayBounds(date) {
  const midnight = new Date(`${date}T00:00`);
  const next = new Date(midnight);
  next.setDate(next.getDate() + 1);
  return { from: midnight / 1000, to: next / 1000 };
}

/** Time of day, with the date unless it is today. @param {number} at Unix seconds */
export const formatDateTime = (at) =>
  (formatDay(at) === today() ? formatTime(at) : `${formatDay(at)}, ${formatTime(at)}`);

/** Time zone of all times on the page: Europe/Berlin (GMT+1). */
export function timeZoneName() {
  const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
  const parts = new Intl.DateTimeFormat("en-GB", { timeZoneName: "shortOffset" }).formatToParts(new Date());
  return `${timeZone} (${parts.find((part) => part.type === "timeZoneName").value})`;
}

/** Duration: 4.7 s, 2 min 19 s, 1 h 2 min. */
export function formatDuration(seconds) {
  if (Math.round(seconds * 10) < 600) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** Rounded duration: 40 s, 5 min, 3 h. */
export function formatAge(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} days`;
}

/** Number with its noun: 1 person, 0 people, 1,394 frames. */
export const pluralize = (number, noun, plural = `${noun}s`) =>
  `${number.toLocaleString("en-GB")} ${number === 1 ? noun : plural}`;

/** Percentage of a fraction 0..1: 61 %; "under 1 %" instead of a misleading 0 %. */
export const formatPercent = (fraction) =>
  (fraction >= 0.005 || fraction <= 0 ? `${Math.round(100 * fraction)} %` : "under 1 %");

/** Size: 640 B, 12 KB, 1.4 MB. */
export function formatBytes(number) {
  if (number < 1e3) return `${number} B`;
  if (number < 1e6) return `${Math.round(number / 1e3)} KB`;
  return number < 1e9 ? `${(number / 1e6).toFixed(1)} MB` : `${(number / 1e9).toFixed(2)} GB`;
}

/**
 * Returns a function that names people. Person numbers restart with each session, so the name includes the start of the
 * session if `people` are from several.
 * @param {{stream_id: string}[]} people
 * @returns {(person: {stream_id: string, person_id: number}) => string}
 */
export function personNamer(people) {
  const severalSessions = new Set(people.map(({ stream_id }) => stream_id)).size > 1;
  const sessionStart = (stream_id) => Number(stream_id.split("@")[1]) / 1000;
  return ({ stream_id, person_id }) =>
    `Person ${person_id}${severalSessions ? ` (${formatMinute(sessionStart(stream_id))})` : ""}`;
}

const UNKNOWN_REASONS = {
  small: "too small", blurred: "blurred", off_frontal: "turned away", truncated: "cut off by the edge",
  unclear: "no clear expression", undecided: "undecided",
};

/** Why a label is unknown; empty for an emotion. @param {string | null} [reason] */
export const unknownText = (reason) => (reason ? UNKNOWN_REASONS[reason] ?? reason : "");

/**
 * A label with the reason if it is unknown: "unknown: too small".
 * @param {{label: string, unknown_reason?: string | null}} labelled
 */
export const labelText = ({ label, unknown_reason }) =>
  [label, unknownText(unknown_reason)].filter(Boolean).join(": ");

const GAP_REASONS = {
  refused: "connection refused", unauthorized: "wrong user or password", not_found: "no such stream",
  timeout: "connection timeout", stalled: "no data received", ended: "stream ended", decode: "cannot decode the video",
  network: "network error", internal: "internal error", unknown_host: "unknown host name",
  certificate: "certificate not accepted", transport: "transport refused", no_video: "no video track",
};

/** Why a camera delivered no frames. */
export const gapText = (reason) => GAP_REASONS[reason] ?? reason;
