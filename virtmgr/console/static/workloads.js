// Pages of workloads: what is copied, which texts are open.

import { toast } from "./console.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = button.parentElement.querySelector("pre").textContent;
  try {
    await navigator.clipboard.writeText(text);
    toast({ message: "Copied" });
  } catch {
    toast({ message: "The browser does not let the page copy", hint: "Select the text and copy it.", level: "warning" });
  }
});

// ---- what a viewer has opened stays open when the part around it is read again

let opened = [];
const KEPT = "main details[open]";

function nameOf(details) {
  return details.querySelector("summary").textContent.trim();
}

document.addEventListener("htmx:before:swap", () => {
  opened = [...document.querySelectorAll(KEPT)].map(nameOf);
});

document.addEventListener("htmx:after:swap", (event) => {
  for (const details of document.querySelectorAll("main details:not([open])")) {
    if (opened.includes(nameOf(details))) details.open = true;
  }
  if (event.detail.ctx?.target?.id === "create") document.body.dispatchEvent(new Event("preview"));
});

// ---- the selection of a list

function select() {
  const form = document.querySelector("[data-selection]");
  if (!form) return;
  const boxes = [...document.querySelectorAll("#list [data-select]")];
  const chosen = boxes.filter((box) => box.checked);
  const head = document.querySelector("#list [data-select-all]");
  if (head) {
    head.checked = boxes.length > 0 && chosen.length === boxes.length;
    head.indeterminate = chosen.length > 0 && !head.checked;
  }
  form.hidden = chosen.length === 0;
  const all = form.elements.namedItem("all");
  if (form.hidden && all) all.checked = false;
  form.querySelector("[data-selected-count]").textContent = `${chosen.length} selected`;
  form.querySelector("[data-selected]").replaceChildren(...chosen.map(reference));
}

function reference(box) {
  const link = box.closest("tr").querySelector('a[href^="/projects/"]');
  const [, , project, , name] = link.getAttribute("href").split("/");
  const field = document.createElement("input");
  field.type = "hidden";
  field.name = "selected";
  field.value = `${decodeURIComponent(project)}/${decodeURIComponent(name)}`;
  return field;
}

document.addEventListener("change", (event) => {
  const box = event.target;
  if (box.matches("[data-select-all]")) {
    for (const one of document.querySelectorAll("#list [data-select]")) one.checked = box.checked;
  }
  if (box.matches("[data-select], [data-select-all]")) select();
  if (box.matches("[data-column-choice]")) chooseColumns();
});
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-select-none]")) return;
  for (const one of document.querySelectorAll("#list [data-select]")) one.checked = false;
  select();
});

// ---- which columns are shown: kept by the browser

const COLUMNS = "columns-workloads";

function read(name) {
  try {
    const found = JSON.parse(localStorage.getItem(name) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

function chooseColumns() {
  const hidden = [...document.querySelectorAll("[data-column-choice]")].filter((box) => !box.checked).map((box) => box.dataset.columnChoice);
  localStorage.setItem(COLUMNS, JSON.stringify(hidden));
  showColumns();
}

function showColumns() {
  const list = document.querySelector("[data-columns-of]");
  if (!list) return;
  const hidden = read(COLUMNS).map(String);
  for (const box of document.querySelectorAll("[data-column-choice]")) {
    const number = box.dataset.columnChoice;
    box.checked = !hidden.includes(number);
    list.classList.toggle(`hide-${number}`, hidden.includes(number));
  }
}

// ---- views: addresses of the list by name, kept by the browser

const VIEWS = "views-workloads";

function showViews() {
  const menu = document.querySelector("[data-views]");
  if (!menu) return;
  for (const old of menu.querySelectorAll("[data-view]")) old.remove();
  const form = menu.querySelector("form");
  for (const { name, address } of read(VIEWS)) {
    if (typeof name !== "string" || !/^\/workloads(\?|$)/.test(address)) continue;
    const line = document.createElement("div");
    line.className = "view";
    line.dataset.view = name;
    const link = document.createElement("a");
    link.href = address;
    link.textContent = name;
    if (address === location.pathname + location.search) link.setAttribute("aria-current", "page");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "btn-close";
    remove.setAttribute("aria-label", `Forget the view ${name}`);
    remove.addEventListener("click", () => {
      localStorage.setItem(VIEWS, JSON.stringify(read(VIEWS).filter((view) => view.name !== name)));
      showViews();
    });
    line.append(link, remove);
    menu.insertBefore(line, form);
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-save-view]")) return;
  event.preventDefault();
  const input = event.target.querySelector("input");
  const name = input.value.trim();
  if (!name) return;
  const others = read(VIEWS).filter((view) => view.name !== name);
  const address = location.pathname + location.search;
  localStorage.setItem(VIEWS, JSON.stringify([...others, { name, address }].slice(-30)));
  input.value = "";
  showViews();
  toast({ message: `The view ${name} is kept in this browser` });
});

// ---- a run over many: the form goes when the outcomes come; those that are not final are followed

document.addEventListener("htmx:before:request", (event) => {
  if (event.target.matches?.("[data-bulk-run]")) {
    document.getElementById("outcome-card").hidden = false;
    event.target.hidden = true;
  } else if (event.target.matches?.("[data-follow-outcomes]")) {
    if (!document.querySelector("#outcomes [name=follow]")) event.preventDefault();
  }
});

function countOutcomes() {
  const shown = document.querySelector("[data-count-outcomes]");
  if (!shown) return;
  const counts = ["done", "begun", "failed", "refused"]
    .map((word) => [word, document.querySelectorAll(`#outcomes [data-outcome=${word}]`).length])
    .filter(([, number]) => number);
  const parts = counts.flatMap(([word, number]) => {
    const bold = document.createElement("b");
    bold.className = word === "failed" || word === "refused" ? "bad" : "";
    bold.textContent = `${number.toLocaleString("en")} ${shown.dataset[word]}`;
    return [", ", bold];
  });
  shown.replaceChildren(...parts.slice(1), parts.length ? "." : "");
}

function settle() {
  countOutcomes();
  select();
  showColumns();
  showViews();
}

document.addEventListener("htmx:after:swap", settle);
settle();
