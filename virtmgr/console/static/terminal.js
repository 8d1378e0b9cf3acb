// A terminal: the serial console of a VM, the terminal of a container, or a shell in either.

import { toast } from "./console.js";
import { Screen } from "./streams.js";
import { FitAddon } from "./vendor/xterm-fit.js";
import { Terminal } from "./vendor/xterm.js";

const KEYS = {
  "Ctrl-C": "\x03",
  "Ctrl-D": "\x04",
  "Ctrl-Z": "\x1a",
  "Ctrl-L": "\x0c",
  "Ctrl-R": "\x12",
  "Ctrl-]": "\x1d",
  Escape: "\x1b",
  Tab: "\t",
  Up: "\x1b[A",
  Down: "\x1b[B",
};
const SIZES = [10, 11, 12, 13, 14, 16, 18, 20, 24];
const encoder = new TextEncoder();

const view = document.getElementById("view");
const form = document.getElementById("shell-form");
const isShell = Boolean(form);

const terminal = new Terminal({
  fontSize: Number(localStorage.getItem("terminal-size")) || 14,
  fontFamily: 'ui-monospace, "DejaVu Sans Mono", "Liberation Mono", Menlo, Consolas, monospace',
  scrollback: 10_000,
  cursorBlink: true,
  screenReaderMode: false,
  theme: { background: "#10141b", foreground: "#dbe2ee", cursor: "#8db4f5", selectionBackground: "#3b5b8c" },
});
const fit = new FitAddon();
terminal.loadAddon(fit);
terminal.open(view);
fit.fit();

const screen = new Screen({
  request: () => {
    const size = { rows: terminal.rows, columns: terminal.cols };
    if (!isShell) return size;
    return { ...size, command: form.elements.command.value, user: form.elements.user.value };
  },
  opened: (stream) => {
    stream.resize(terminal.rows, terminal.cols);
    terminal.focus();
  },
  data: (_channel, bytes) => terminal.write(bytes),
  closed: (told) => {
    if (told === null && !isShell) return null; // it is tried again
    if (told === null) {
      return {
        title: "The connection broke off",
        why: "The shell has ended with it.",
        hint: "Connecting again begins a new one.",
        again: "New shell",
      };
    }
    if (told.code) return { title: "It has ended", why: told.detail, hint: told.hint ?? "" };
    if (isShell) return { title: "The shell has ended", why: `Exit code ${told.exit_code}.`, again: "New shell" };
    return {
      title: "The console has ended",
      why: "The workload has stopped or is starting anew.",
      hint: "It comes back by itself once the workload runs.",
    };
  },
  actions: {
    copy,
    paste,
    larger: () => changeSize(1),
    smaller: () => changeSize(-1),
    size: () => type(`stty rows ${terminal.rows} columns ${terminal.cols}\r`),
    reconnect: begin,
  },
});

function begin() {
  if (isShell) terminal.reset();
  screen.connect();
}

function type(text) {
  screen.send(encoder.encode(text));
}

terminal.onData(type);
terminal.onBinary((text) => screen.send(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
terminal.onResize(({ rows, cols }) => screen.stream?.resize(rows, cols));
new ResizeObserver(() => fit.fit()).observe(view);

terminal.attachCustomKeyEventHandler((event) => {
  if (event.type !== "keydown") return true;
  if (event.ctrlKey && event.key === "F6") {
    event.preventDefault();
    document.querySelector(".screen-bar a, .screen-bar button").focus();
    return false;
  }
  if (event.ctrlKey && event.shiftKey && event.code === "KeyC") {
    event.preventDefault();
    copy();
    return false;
  }
  return !(event.ctrlKey && event.shiftKey && event.code === "KeyV"); // the browser pastes
});

async function copy() {
  let text = terminal.getSelection();
  if (!text) {
    const buffer = terminal.buffer.active;
    const lines = Array.from({ length: buffer.length }, (_, row) => buffer.getLine(row).translateToString(true));
    text = `${lines.join("\n").trimEnd()}\n`;
  }
  try {
    await navigator.clipboard.writeText(text);
    toast({ message: terminal.hasSelection() ? "The selection is copied" : "All of it is copied" });
  } catch {
    toast({ message: "The browser does not let the page copy", hint: "Select, then Ctrl+Insert.", level: "warning" });
  }
  terminal.focus();
}

async function paste() {
  try {
    terminal.paste(await navigator.clipboard.readText());
  } catch {
    toast({ message: "The browser does not let the page paste", hint: "Use Ctrl+Shift+V.", level: "warning" });
  }
  terminal.focus();
}

function changeSize(step) {
  const at = SIZES.indexOf(terminal.options.fontSize);
  const size = SIZES[Math.max(0, Math.min(SIZES.length - 1, at + step))];
  terminal.options.fontSize = size;
  localStorage.setItem("terminal-size", String(size));
  fit.fit();
}

document.getElementById("keys").addEventListener("click", (event) => {
  const button = event.target.closest("[data-keys]");
  if (!button) return;
  type(KEYS[button.dataset.keys]);
  button.closest("details").open = false;
  terminal.focus();
});
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  begin();
});

screen.connect();
