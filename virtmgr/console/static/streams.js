// Streams of workloads: a WebSocket whose messages begin with their channel (docs/api.md).

export const STDIN = 0;
export const STDOUT = 1;
export const STDERR = 2;
const END = 3;
const RESIZE = 4;

const PAUSES = [1, 2, 4, 8, 15]; // seconds before it is tried again after a loss
const TRIES = 40;
const IN_USE_EVERY = 300_000; // milliseconds
const PIECE = 32 * 1024; // bytes of input in a message

/** What forms of this session carry. */
export function proof() {
  return JSON.parse(document.body.getAttribute("hx-headers:inherited"))["X-CSRF-Token"];
}

/** An answer that says what went wrong. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The server answered ${status}`);
    this.status = status;
    this.hint = problem.hint ?? "";
    this.code = problem.code ?? "";
  }
}

/** Ask this console for JSON; a body is sent by POST. */
export async function ask(path, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    headers["X-CSRF-Token"] = proof();
  } else headers["X-Background"] = "1";
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const kind = response.headers.get("Content-Type") ?? "";
  if (response.redirected || (response.ok && !kind.includes("json"))) {
    throw new Refusal(401, { detail: "The session has ended", hint: "Load the page again and log in." });
  }
  const told = kind.includes("json") ? await response.json() : { hint: "Load the page again." };
  if (!response.ok) throw new Refusal(response.status, told);
  return told;
}

/** One connection with its ticket. `data` gets channel and bytes; `end` what it ended with, or null. */
export class Stream {
  constructor(path, { open, data, end }) {
    this.told = null;
    this.socket = new WebSocket(`wss://${location.host}${path}`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => open();
    this.socket.onmessage = ({ data: message }) => {
      const bytes = new Uint8Array(message);
      if (bytes[0] === END) this.told = JSON.parse(new TextDecoder().decode(bytes.subarray(1)));
      else if (bytes.length > 1) data(bytes[0], bytes.subarray(1));
    };
    this.socket.onclose = () => end(this.told);
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  send(bytes) {
    for (let at = 0; at < bytes.length; at += PIECE) this._frame(STDIN, bytes.subarray(at, at + PIECE));
  }

  resize(rows, columns) {
    this._frame(RESIZE, new TextEncoder().encode(JSON.stringify({ rows, columns })));
  }

  close() {
    this.socket.onclose = null;
    this.socket.onmessage = null;
    this.socket.onopen = null;
    this.socket.close();
  }

  _frame(channel, bytes) {
    if (!this.isOpen) return;
    const message = new Uint8Array(bytes.length + 1);
    message[0] = channel;
    message.set(bytes, 1);
    this.socket.send(message);
  }
}

/**
 * A screen of the page: its stream, its state for people, its buttons.
 *
 * `request()` is what the ticket is asked with; `opened(stream)`, `data(channel, bytes)`, and
 * `closed(told)` which may answer {title, why, hint} to say the end in its own words.
 */
export class Screen {
  constructor({ request = () => ({}), opened = () => {}, data, closed = () => null, actions = {} }) {
    this.element = document.getElementById("screen");
    this.path = this.element.dataset.path;
    this.name = this.element.dataset.screen;
    this.wants = { request, opened, data, closed };
    this.stream = null;
    this.tries = 0;
    this.timer = null;
    this.wasOpen = false; // a shell that has ended is not begun anew unasked
    this.number = 0; // of the connection: what comes of an older one is not heard
    this.usedAt = Date.now();
    this.actions = { reconnect: () => this.connect(), full: () => this.full(), ...actions };
    this.element.addEventListener("click", (event) => {
      const button = event.target.closest("[data-do]");
      if (button) this.actions[button.dataset.do]?.(button);
    });
    document.body.addEventListener("live-workload", ({ detail }) => this._heard(detail));
    window.addEventListener("online", () => this.state === "lost" && this.connect());
  }

  async connect() {
    clearTimeout(this.timer);
    this.stream?.close();
    this.stream = null;
    const number = ++this.number;
    this.show("connecting", this.tries ? "Connecting again…" : "Connecting…");
    try {
      const ticket = await ask(`${this.path}/${this.name}/ticket`, this.wants.request());
      if (number !== this.number) return;
      this.stream = new Stream(ticket.path, {
        open: () => this._opened(),
        data: (channel, bytes) => this.wants.data(channel, bytes),
        end: (told) => number === this.number && this._ended(told),
      });
    } catch (error) {
      if (number !== this.number) return;
      if (error instanceof Refusal && ![502, 503, 504].includes(error.status)) {
        this.tries = 0;
        this.tell({ title: "It cannot be opened", why: error.message, hint: error.hint });
      } else this._again(error.message);
    }
  }

  send(bytes) {
    this.stream?.send(bytes);
    if (Date.now() - this.usedAt > IN_USE_EVERY) {
      this.usedAt = Date.now();
      fetch(`${this.path}/here`); // somebody works here: the session goes on
    }
  }

  /** The state beside the buttons. */
  show(state, text) {
    this.state = state;
    const shown = document.getElementById("screen-state");
    shown.dataset.state = state;
    shown.querySelector("[data-text]").textContent = text;
    if (state === "connected") document.getElementById("over").hidden = true;
  }

  /** It has ended, and why; the viewer decides what is next. */
  tell({ title, why = "", hint = "", again = "Connect again" }) {
    this.show("ended", "Not connected");
    const over = document.getElementById("over");
    over.querySelector("[data-title]").textContent = title;
    over.querySelector("[data-why]").textContent = why;
    over.querySelector("[data-hint]").textContent = hint;
    over.querySelector("[data-again]").textContent = again;
    over.querySelector("[data-start]").hidden = !/start it|not running|stopped/i.test(`${why} ${hint}`);
    over.hidden = false;
  }

  full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.element.requestFullscreen();
  }

  _opened() {
    this.tries = 0;
    this.wasOpen = true;
    this.show("connected", "Connected");
    this.wants.opened(this.stream);
  }

  async _ended(told) {
    const number = this.number;
    this.stream = null;
    const own = await this.wants.closed(told);
    if (number !== this.number) return;
    if (own) own.quiet || this.tell(own);
    else if (told === null) this._again("the connection broke off");
    else if (told.code) this.tell({ title: "It has ended", why: told.detail, hint: told.hint ?? "" });
    else this.tell({ title: "It has ended", why: `Exit code ${told.exit_code}.` });
  }

  _again(why) {
    if (this.tries >= TRIES) {
      this.tries = 0;
      this.tell({ title: "The connection is lost", why, hint: "The workload goes on; connect again." });
      return;
    }
    const pause = PAUSES[Math.min(this.tries, PAUSES.length - 1)];
    this.tries += 1;
    this.show("lost", `Connection lost: again in ${pause} s`);
    this.timer = setTimeout(() => this.connect(), pause * 1000);
  }

  /** The workload was started, perhaps: whoever waits for it gets it back. */
  _heard(event) {
    const opening = ["workload.console", "workload.vnc", "workload.exec"];
    if (this.state !== "ended" || this.taken || (this.name === "shell" && this.wasOpen)) return;
    if (event?.target?.id !== this.element.dataset.workload || opening.includes(event.type)) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.state === "ended" && this.connect(), 700);
  }
}
