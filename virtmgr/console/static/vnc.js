// The display of a VM: noVNC over a stream whose bytes are RFB.

import { toast } from "./console.js";
import { Screen, STDOUT, ask } from "./streams.js";
import keysyms from "./vendor/novnc/core/input/keysymdef.js";
import { initLogging } from "./vendor/novnc/core/util/logging.js";
import RFB from "./vendor/novnc/core/rfb.js";

const SYMBOLS = {
  Ctrl: 0xffe3,
  Alt: 0xffe9,
  Shift: 0xffe1,
  Super: 0xffeb,
  Delete: 0xffff,
  Backspace: 0xff08,
  Tab: 0xff09,
  Enter: 0xff0d,
  Escape: 0xff1b,
  Print: 0xff61,
  F1: 0xffbe,
  F2: 0xffbf,
  F4: 0xffc1,
  F7: 0xffc4,
};
const SHIFTED = '~!@#$%^&*()_+{}|:"<>?';
const TAKEN_WITHIN = 15; // seconds between another's opening and the end of this one
const TYPE_EVERY = 12; // milliseconds: a guest's keyboard buffer holds few keys

initLogging("none"); // what goes wrong is shown on the page

const view = document.getElementById("view");
const scale = document.getElementById("vnc-scale");
const look = document.getElementById("vnc-look");
const dialog = document.getElementById("type");
let rfb = null;
let pipe = null;
let shared = true;
let openedAt = 0;

/** What noVNC takes for a WebSocket. */
class Pipe {
  constructor(screen) {
    this.screen = screen;
    this.binaryType = "arraybuffer";
    this.protocol = "";
    this.readyState = "open";
    this.onopen = this.onmessage = this.onclose = this.onerror = null;
  }

  send(data) {
    this.screen.send(data instanceof Uint8Array ? data.slice() : new Uint8Array(data));
  }

  close() {
    this.readyState = "closed";
    this.onclose?.({ code: 1000, reason: "", wasClean: true });
  }
}

const screen = new Screen({
  opened: () => {
    openedAt = performance.now();
    view.replaceChildren();
    pipe = new Pipe(screen);
    rfb = new RFB(view, pipe, { shared });
    rfb.background = "#10141b";
    rfb.showDotCursor = true;
    rfb.viewOnly = look.checked;
    fitView();
    rfb.addEventListener("connect", () => {
      screen.show("connected", shared ? "Connected" : "Connected: taken over");
      shared = true;
      rfb.focus();
    });
    rfb.addEventListener("clipboard", ({ detail }) => navigator.clipboard?.writeText(detail.text).catch(() => {}));
    rfb.addEventListener("securityfailure", ({ detail }) =>
      screen.tell({ title: "The display refused", why: detail.reason ?? "" }),
    );
  },
  data: (channel, bytes) => {
    if (channel === STDOUT) pipe?.onmessage?.({ data: bytes.slice().buffer });
  },
  closed: async (told) => {
    pipe?.close();
    rfb = pipe = null;
    if (told === null) return null; // the connection broke off: it is tried again
    if (told.code) return { title: "It cannot be shown", why: told.detail, hint: told.hint ?? "" };
    const last = await lastOpened();
    screen.taken = last.another;
    return {
      title: "The display was closed",
      why: last.another
        ? `${last.user} opened it ${last.ago}, and may have taken it over.`
        : "The VM has stopped, or somebody took the display over.",
      hint: last.another ? "" : "It comes back by itself once the VM runs.",
    };
  },
  actions: {
    "take-over": () => {
      shared = false;
      again();
    },
    reconnect: again,
    picture,
    type: openDialog,
  },
});

function again() {
  screen.taken = false;
  rfb?.disconnect();
  rfb = pipe = null;
  screen.connect();
}

/** Whether it was opened elsewhere just now. */
async function lastOpened() {
  const own = (performance.now() - openedAt) / 1000;
  try {
    const { user, seconds } = await ask(`${screen.path}/display/opened`);
    const another = seconds !== null && seconds < own - 1 && seconds < TAKEN_WITHIN;
    return { user: user ?? "somebody", ago: `${Math.round(seconds)} s ago`, another };
  } catch {
    return { user: "", ago: "", another: false };
  }
}

function fitView() {
  if (!rfb) return;
  rfb.scaleViewport = scale.checked;
  rfb.clipViewport = false;
  view.toggleAttribute("data-scroll", !scale.checked);
}
scale.addEventListener("change", fitView);
look.addEventListener("change", () => {
  if (rfb) rfb.viewOnly = look.checked;
});

document.getElementById("keys").addEventListener("click", (event) => {
  const button = event.target.closest("[data-keys]");
  if (!button || !rfb) return;
  const names = button.dataset.keys.split("+");
  for (const name of names) rfb.sendKey(SYMBOLS[name], null, true);
  for (const name of names.reverse()) rfb.sendKey(SYMBOLS[name], null, false);
  button.closest("details").open = false;
  rfb.focus();
});

// Before noVNC has it: the way out for whoever has no mouse.
view.addEventListener(
  "keydown",
  (event) => {
    if (!event.ctrlKey || event.key !== "F6") return;
    event.preventDefault();
    event.stopImmediatePropagation();
    rfb?.sendKey(SYMBOLS.Ctrl, "ControlLeft", false);
    rfb?.blur();
    document.querySelector(".screen-bar a, .screen-bar button").focus();
  },
  true,
);

function openDialog() {
  if (!rfb) return;
  rfb.blur();
  dialog.querySelector("textarea").value = "";
  dialog.querySelector("[data-cancel]").onclick = () => dialog.close("");
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue === "yes") typeText(dialog.querySelector("textarea").value);
    rfb?.focus();
  };
  dialog.showModal();
}

async function typeText(text) {
  for (const letter of text.replaceAll("\r\n", "\n")) {
    if (!rfb) return;
    const symbol = letter === "\n" ? SYMBOLS.Enter : letter === "\t" ? SYMBOLS.Tab : keysyms.lookup(letter.codePointAt(0));
    const shift = SHIFTED.includes(letter) || (letter !== letter.toLowerCase() && letter === letter.toUpperCase());
    if (shift) rfb.sendKey(SYMBOLS.Shift, null, true);
    rfb.sendKey(symbol, null);
    if (shift) rfb.sendKey(SYMBOLS.Shift, null, false);
    await new Promise((done) => setTimeout(done, TYPE_EVERY));
  }
}

function picture() {
  const canvas = view.querySelector("canvas");
  if (!canvas) return;
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${screen.element.dataset.name}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    toast({ message: "The picture is saved" });
  });
}

window.addEventListener("pagehide", () => screen.stream?.close());
screen.connect();
