// Clock of the service, estimated from received frames. The clock of the browser can be minutes off.

export class ServerClock {
  // Until the first frame, the browser's clock is used.
  #server_s = Date.now() / 1000;
  #synced_ms = performance.now();
  #connected_s = 0;

  /** Unix seconds. */
  get now() {
    return this.#server_s + (performance.now() - this.#synced_ms) / 1000;
  }

  /** Call when the event stream was reconnected. */
  reconnected() {
    this.#connected_s = 0;
  }

  /**
   * Synchronises with the time at which a frame was sent.
   * @returns {boolean} whether the latency of the frame is meaningful: not for frames from before the connection
   */
  sync({ at, latency_s }) {
    this.#server_s = at + latency_s;
    this.#synced_ms = performance.now();
    this.#connected_s ||= this.#server_s;
    return at >= this.#connected_s;
  }
}
