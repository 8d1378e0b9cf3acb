// Files and folders into a workload: packed here as one tar archive that is never whole in memory.

import { amount } from "./format.js";
import { proof } from "./streams.js";
import { archive, walk } from "./tar.js";

const root = document.getElementById("push");
const folder = document.getElementById("push-folder");
const drop = document.getElementById("push-drop");
const list = document.getElementById("push-list");
const bar = list.querySelector("progress");
const status = list.querySelector("[data-status]");
const begin = list.querySelector("[data-begin]");
let chosen = []; // {name, file}; a folder has no file
let request = null;

function choose(found) {
  chosen = found;
  const files = found.filter(({ file }) => file);
  const size = files.reduce((sum, { file }) => sum + file.size, 0);
  list.hidden = !found.length;
  list.querySelector("[data-what]").textContent = files.length === 1 ? files[0].name : `${files.length} files`;
  list.querySelector("[data-how]").textContent = amount(size);
  bar.value = 0;
  begin.disabled = false;
  status.textContent = "";
  if (found.length) begin.focus();
}

function send() {
  if (!folder.value.startsWith("/")) {
    fail("The folder's path begins with /.");
    folder.focus();
    return;
  }
  const body = archive(chosen);
  const asked = new XMLHttpRequest();
  request = asked;
  begin.disabled = true;
  const began = performance.now();
  asked.open("PUT", `${root.dataset.path}?path=${encodeURIComponent(folder.value)}`);
  asked.setRequestHeader("X-CSRF-Token", proof());
  asked.setRequestHeader("Content-Type", "application/x-tar");
  asked.upload.onprogress = ({ loaded, total }) => {
    bar.value = loaded / total;
    const speed = loaded / ((performance.now() - began) / 1000);
    status.textContent = loaded < total ? `${amount(loaded)} of ${amount(total)}, ${amount(speed)}/s` : "It is being written…";
  };
  asked.onload = () => {
    if (asked.status < 400 && !asked.responseURL.includes("/login")) {
      bar.value = 1;
      status.textContent = `It is in ${folder.value}.`;
    } else fail(problem(asked));
  };
  asked.onerror = () => fail("The connection broke off. Try again.");
  asked.onloadend = () => {
    request = null;
    begin.disabled = false;
  };
  status.textContent = "Connecting…";
  asked.send(body);
}

function problem(asked) {
  try {
    const { detail, hint } = JSON.parse(asked.responseText);
    return hint ? `${detail}: ${hint}` : detail;
  } catch {
    return `The server answered ${asked.status}: load the page again.`;
  }
}

function fail(why) {
  bar.value = 0;
  status.textContent = why;
}

begin.addEventListener("click", send);
list.querySelector("[data-cancel]").addEventListener("click", () => {
  if (request) {
    request.abort();
    fail("It is cancelled. What had come may be there already.");
  } else choose([]);
});
for (const input of [document.getElementById("push-files"), document.getElementById("push-directory")]) {
  input.addEventListener("change", () => {
    choose([...input.files].map((file) => ({ name: file.webkitRelativePath || file.name, file })));
    input.value = "";
  });
}
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.dataset.over = "";
});
drop.addEventListener("dragleave", () => delete drop.dataset.over);
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  delete drop.dataset.over;
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  choose((await Promise.all(entries.map((entry) => walk(entry)))).flat());
});
