// What time it is where the service runs: that of the browser may be minutes off.

export class Clock {
  // Until something was heard, the browser's own clock has to do.
  #told_s = Date.now() / 1000;
  #heard_ms = performance.now();
  #opened_s = 0;

  /** Unix seconds. */
  get now() {
    return this.#told_s + (performance.now() - this.#heard_ms) / 1000;
  }

  /** The connection was made anew. */
  reopen() {
    this.#opened_s = 0;
  }

  /**
   * Takes the time that a frame tells.
   * @returns {boolean} whether the frame tells of latency: not if it was taken before the connection was made
   */
  hear({ at, latency_s }) {
    this.#told_s = at + latency_s;
    this.#heard_ms = performance.now();
    this.#opened_s ||= this.#told_s;
    return at >= this.#opened_s;
  }
}
