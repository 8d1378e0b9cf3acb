// The log of a workload, as it goes on: plain lines, so that the browser selects and finds in them.

import { Screen } from "./streams.js";

const KEPT = 10_000; // lines
const NEAR_END = 40; // pixels
const SEQUENCES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g;
const UNSEEN = /[\x00-\x08\x0b-\x1f\x7f]/g;

const log = document.getElementById("log");
const filter = document.getElementById("log-filter");
const follow = document.getElementById("log-follow");
const wrap = document.getElementById("log-wrap");
let decoder = new TextDecoder();
let rest = "";
let waiting = [];

/** A line as people read it: what a terminal would not show is left out. */
function plain(line) {
  const text = line.replace(/\r+$/, "").replace(SEQUENCES, "");
  return text.slice(text.lastIndexOf("\r") + 1).replace(UNSEEN, "");
}

function mark(line) {
  const text = line.textContent;
  const wanted = filter.value.toLowerCase();
  const at = wanted ? text.toLowerCase().indexOf(wanted) : -1;
  line.hidden = Boolean(wanted) && at < 0;
  if (at < 0) {
    line.textContent = text;
    return;
  }
  const marked = document.createElement("mark");
  marked.textContent = text.slice(at, at + wanted.length);
  line.replaceChildren(text.slice(0, at), marked, text.slice(at + wanted.length));
}

function show() {
  const lines = waiting.slice(-KEPT);
  waiting = [];
  const fragment = document.createDocumentFragment();
  for (const text of lines) {
    const line = document.createElement("div");
    line.textContent = text || "\u00a0";
    if (filter.value) mark(line);
    fragment.append(line);
  }
  log.append(fragment);
  while (log.childElementCount > KEPT) log.firstElementChild.remove();
  if (follow.checked) log.scrollTop = log.scrollHeight;
}

const screen = new Screen({
  opened: () => {
    decoder = new TextDecoder();
    rest = "";
    log.replaceChildren();
    screen.show("connected", "Following");
  },
  data: (_channel, bytes) => {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop().slice(-65536);
    if (!waiting.length && lines.length) requestAnimationFrame(show);
    waiting.push(...lines.map(plain));
  },
  closed: (told) => {
    if (rest) waiting.push(plain(rest));
    rest = "";
    show();
    if (told === null) return null;
    if (told.code) return { title: "The log cannot be read", why: told.detail, hint: told.hint ?? "" };
    screen.show("ended", "The workload has ended: no more comes");
    return { quiet: true };
  },
});

wrap.addEventListener("change", () => log.toggleAttribute("data-wrap", wrap.checked));
log.toggleAttribute("data-wrap", wrap.checked);
filter.addEventListener("input", () => {
  for (const line of log.children) mark(line);
  if (follow.checked) log.scrollTop = log.scrollHeight;
});
follow.addEventListener("change", () => {
  if (follow.checked) log.scrollTop = log.scrollHeight;
});
log.addEventListener("scroll", () => {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
  if (follow.checked !== atEnd) follow.checked = atEnd;
});

screen.connect();
