// An image's file in pieces: with pause, and resumed after a lost connection or a reload.

import { amount } from "./format.js";
import { Refusal, ask, proof } from "./streams.js";

const PIECE = 8 * 1024 ** 2; // bytes
const PAUSES = [1, 2, 4, 8, 15]; // seconds before it is tried again
const TRIES = 60;
const SPEED_OVER = 8; // pieces
const PENDING = "upload-pending";

const sending = document.getElementById("sending");
const drop = document.getElementById("drop");
const input = document.getElementById("file");
const bar = sending.querySelector("progress");
const pause = sending.querySelector("[data-pause]");
const resume = sending.querySelector("[data-resume]");
const button = document.getElementById("import-button");
let upload = null; // {file, key, id, offset}
let sent = null; // the file of the last import, to be sent again where that fails
let running = false;
let turn = 0; // of sending: what waits in an older one has nothing more to do
let request = null;
let speeds = [];

function say(name, text) {
  sending.querySelector(`[data-${name}]`).textContent = text;
}

function span(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function shownAt(offset) {
  const { file } = upload;
  bar.value = offset / file.size;
  say("share", `${Math.floor((100 * offset) / file.size)} %`);
  say("done", `${amount(offset)} of ${amount(file.size)}`);
  const speed = speeds.length ? speeds.reduce((sum, one) => sum + one) / speeds.length : 0;
  say("speed", running && speed ? `${amount(speed)}/s` : "");
  say("left", running && speed ? `${span((file.size - offset) / speed)} left` : "");
}

function buttons() {
  const done = upload && upload.offset === upload.file.size;
  pause.hidden = !running;
  resume.hidden = running || !upload || done;
  button.disabled = !done;
  document.getElementById("import-note").hidden = Boolean(done);
}

async function choose(file) {
  if (!file) return;
  stop();
  if (!file.size) return;
  upload = { file, key: await keyOf(file), id: null, offset: 0 };
  speeds = [];
  drop.hidden = true;
  sending.hidden = false;
  say("name", file.name);
  const name = document.getElementById("field-name");
  if (!name.value) name.value = proposed(file.name);
  localStorage.setItem(PENDING, JSON.stringify({ name: file.name, size: file.size }));
  await go();
}

/** Stands for the file as it is now: another size or time is another file. */
async function keyOf(file) {
  const text = JSON.stringify([file.name, file.size, file.lastModified]);
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A name of an image out of a file's. */
function proposed(name) {
  const bare = name.toLowerCase().replace(/\.(qcow2|img|raw|iso|tar|gz|xz|zst|tgz)\b/g, "");
  return bare.replace(/[^a-z0-9.-]+/g, "-").replace(/^[-.]+|[-.]+$/g, "").slice(0, 60);
}

async function go() {
  const mine = upload;
  const own = ++turn;
  const goes = () => running && upload === mine && turn === own;
  running = true;
  say("status", "");
  buttons();
  for (let tries = 0; goes(); ) {
    try {
      const begun = await ask("/images/upload/begin", { key: mine.key, size: mine.file.size });
      mine.id = begun.id;
      mine.offset = begun.offset;
      if (mine.offset) say("status", `${amount(mine.offset)} had come already.`);
      await pieces(mine, goes, () => {
        tries = 0;
      });
      if (goes() && mine.offset === mine.file.size) finished();
      return;
    } catch (error) {
      if (!goes()) return;
      const passes = !(error instanceof Refusal) || error.status >= 500 || error.status === 409;
      if (!passes || tries === TRIES) {
        stop();
        say("status", `${error.message}${error.hint ? `: ${error.hint}` : ""}`);
        return;
      }
      const seconds = PAUSES[Math.min(tries, PAUSES.length - 1)];
      tries += 1;
      say("status", `${error.message}. It goes on in ${seconds} s.`);
      await new Promise((done) => setTimeout(done, 1000 * seconds));
    }
  }
}

async function pieces(mine, goes, came) {
  while (goes() && mine.offset < mine.file.size) {
    const began = performance.now();
    const before = mine.offset;
    const answer = await piece(mine);
    came();
    mine.offset = answer.offset;
    speeds = [...speeds, (mine.offset - before) / ((performance.now() - began) / 1000)].slice(-SPEED_OVER);
    say("status", "");
    shownAt(mine.offset);
  }
}

function piece(mine) {
  return new Promise((done, failed) => {
    const asked = new XMLHttpRequest();
    request = asked;
    asked.open("PATCH", `/images/upload/${mine.id}`);
    asked.setRequestHeader("X-CSRF-Token", proof());
    asked.setRequestHeader("Upload-Offset", String(mine.offset));
    asked.setRequestHeader("Content-Type", "application/partial-upload");
    asked.upload.onprogress = ({ loaded }) => upload === mine && shownAt(mine.offset + loaded);
    asked.onload = () => {
      let told = {};
      try {
        told = JSON.parse(asked.responseText);
      } catch {
        told = { detail: "The session has ended", hint: "Load the page again, log in, and choose the same file." };
        if (asked.status < 400) return failed(new Refusal(401, told));
      }
      if (asked.status >= 400) failed(new Refusal(asked.status, told));
      else done(told);
    };
    asked.onerror = () => failed(new Error("The connection broke off"));
    asked.onabort = () => failed(new Error("It is paused"));
    asked.send(mine.file.slice(mine.offset, mine.offset + PIECE));
  });
}

function finished() {
  running = false;
  localStorage.removeItem(PENDING);
  document.getElementById("upload-id").value = upload.id;
  say("status", "The file has come. Name the image, and make it.");
  shownAt(upload.offset);
  buttons();
}

function stop() {
  running = false;
  request?.abort();
  request = null;
  buttons();
}

pause.addEventListener("click", () => {
  stop();
  say("status", "It is paused.");
  shownAt(upload.offset);
});
resume.addEventListener("click", () => go());
sending.querySelector("[data-cancel]").addEventListener("click", async () => {
  const { id } = upload;
  stop();
  upload = null;
  localStorage.removeItem(PENDING);
  drop.hidden = false;
  sending.hidden = true;
  buttons();
  if (id) await ask(`/images/upload/${id}/discard`, {}).catch(() => {});
});
input.addEventListener("change", () => {
  choose(input.files[0]);
  input.value = "";
});
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.dataset.over = "";
});
drop.addEventListener("dragleave", () => delete drop.dataset.over);
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  delete drop.dataset.over;
  choose(event.dataTransfer.files[0]);
});
window.addEventListener("beforeunload", (event) => {
  if (running) event.preventDefault();
});

// Once the import is begun the file is the server's.
document.addEventListener("htmx:after:swap", () => {
  if (!document.getElementById("import-operation")) return;
  sent = upload?.file ?? sent;
  upload = null;
  sending.querySelector("[data-cancel]").hidden = true;
  buttons();
  document.getElementById("import-note").hidden = true;
});

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-send-again]")) return;
  document.getElementById("imported").replaceChildren();
  sending.querySelector("[data-cancel]").hidden = false;
  choose(sent);
  sending.scrollIntoView({ block: "center" });
});

const pending = JSON.parse(localStorage.getItem(PENDING) ?? "null");
if (pending) drop.querySelector("[data-ask]").textContent = `The upload of ${pending.name} (${amount(pending.size)}) was interrupted: choose the same file, and it goes on.`;
