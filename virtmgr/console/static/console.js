// What every page does: news from the server, messages, confirmation, the palette, the menu.

import { span } from "./format.js";

const body = document.body;

// ---- news: one stream a visible page; parts listen to "live-TYPE" on the body

const BACK_AFTER = 1500; // milliseconds
let stream = null;
let staleSince = null;

function follow() {
  if (stream || document.hidden) return;
  stream = new EventSource("/live");
  stream.onopen = () => {
    if (staleSince) refreshAll();
    staleSince = null;
    showLive("live", "Live: changes appear by themselves");
  };
  stream.onerror = () => {
    staleSince ??= Date.now();
    showLive("stale", "No news from the server: what is shown may be old");
    if (stream.readyState === EventSource.CLOSED) {
      leave();
      setTimeout(follow, BACK_AFTER);
    }
  };
  stream.onmessage = announce;
}

const NOUNS = ["workload", "host", "cluster", "image", "volume", "network", "project", "user", "operation"];

function announce(event) {
  const data = JSON.parse(event.data);
  const heard = new Set(["event", data.target.type]);
  if (data.operation_id) heard.add("operation");
  for (const noun of heard) body.dispatchEvent(new CustomEvent(`live-${noun}`, { detail: data }));
}

function leave() {
  stream?.close();
  stream = null;
}

function refreshAll() {
  for (const noun of [...NOUNS, "event"]) {
    body.dispatchEvent(new CustomEvent(`live-${noun}`, { detail: null }));
  }
}

function showLive(state, title) {
  const shown = document.getElementById("live");
  if (!shown) return;
  shown.dataset.state = state;
  shown.title = title;
  shown.textContent = state === "stale" ? "stale" : "";
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    leave();
    staleSince = Date.now();
  } else follow();
});
window.addEventListener("pagehide", leave);

// ---- messages in the corner

const SHOWN_FOR = 6000; // milliseconds; failures stay until they are closed

export function toast({ message, hint = null, ways = [], level = "success", later = false }) {
  if (!message) return;
  if (later) {
    sessionStorage.setItem("toast", JSON.stringify({ message, hint, ways, level }));
    return;
  }
  const box = document.createElement("div");
  box.className = `toast-box toast-${level}`;
  const text = document.createElement("div");
  const strong = document.createElement("b");
  strong.textContent = message;
  text.append(strong);
  if (hint) {
    const more = document.createElement("div");
    more.textContent = hint;
    text.append(more);
  }
  for (const way of ways) {
    const link = document.createElement("a");
    link.href = way.path;
    link.textContent = way.text;
    text.append(link, " ");
  }
  const close = document.createElement("button");
  close.type = "button";
  close.className = "btn-close";
  close.setAttribute("aria-label", "Close");
  close.addEventListener("click", () => box.remove());
  box.append(text, close);
  document.getElementById("toasts")?.append(box);
  if (level !== "danger") setTimeout(() => box.remove(), SHOWN_FOR);
}

document.addEventListener("toast", (event) => toast(event.detail));
const told = sessionStorage.getItem("toast"); // by the page before
if (told) {
  sessionStorage.removeItem("toast");
  toast(JSON.parse(told));
}
document.addEventListener("htmx:error", () =>
  toast({ message: "The server cannot be reached", hint: "Try again in a moment.", level: "danger" }),
);

// ---- confirmation before loss: data-confirm on whatever htmx sends, or on a form's button

const confirmed = new WeakSet();

document.addEventListener(
  "click",
  (event) => {
    const button = event.target.closest?.("[data-confirm]");
    if (!button || !button.dataset.confirm || confirmed.delete(button)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    ask(button);
  },
  true,
);

function ask(button) {
  palette?.close();
  const dialog = document.getElementById("confirm");
  const { confirm, confirmText, confirmName, confirmYes } = button.dataset;
  const form = dialog.querySelector("form");
  const named = dialog.querySelector("[data-named]");
  const input = named.querySelector("input");
  const yes = dialog.querySelector("[data-yes]");
  dialog.querySelector("h2").textContent = confirm;
  dialog.querySelector("[data-text]").textContent = confirmText ?? "";
  dialog.querySelector("[data-name]").textContent = confirmName ?? "";
  named.hidden = !confirmName;
  input.value = "";
  yes.textContent = confirmYes || "Do it";
  yes.disabled = Boolean(confirmName);
  input.oninput = () => {
    yes.disabled = input.value !== confirmName;
  };
  dialog.querySelector("[data-cancel]").onclick = () => dialog.close("");
  form.onsubmit = (event) => {
    if (yes.disabled) event.preventDefault();
  };
  dialog.returnValue = "";
  dialog.onclose = () => {
    button.focus();
    if (dialog.returnValue !== "yes") return;
    const still = present(button);
    if (!still) return;
    confirmed.add(still);
    still.click();
  };
  dialog.showModal();
  (confirmName ? input : yes).focus();
}

// The button, or what stands in its place since the page was read again while the viewer thought.
function present(button) {
  if (button.isConnected) return button;
  const path = button.getAttribute("hx-post");
  const same = [...document.querySelectorAll("[data-confirm][hx-post]")];
  return same.find((other) => path && other.getAttribute("hx-post") === path);
}

// ---- palette

const palette = document.getElementById("palette");

function openPalette() {
  if (!palette || palette.open) return;
  palette.showModal();
  const input = palette.querySelector("input");
  input.value = "";
  input.focus();
  input.dispatchEvent(new Event("open"));
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable], .xterm, canvas");
  const wanted =
    (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) ||
    (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.target.closest?.(".xterm, canvas"));
  if (wanted) {
    event.preventDefault();
    openPalette();
  }
});

palette?.addEventListener("keydown", (event) => {
  const links = [...palette.querySelectorAll("#palette-found a, #palette-found button")];
  const at = links.indexOf(document.activeElement);
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const next = at + (event.key === "ArrowDown" ? 1 : -1);
    (links[next] ?? palette.querySelector("input")).focus();
  } else if (event.key === "Enter" && at < 0 && links.length) {
    event.preventDefault();
    links[0].click();
  } else if (event.key === "Escape") {
    event.preventDefault(); // else it only empties the field
    palette.close();
  }
});
palette?.addEventListener("click", (event) => {
  if (event.target === palette || event.target.closest("[data-palette-does]")) palette.close();
});

// ---- menus, the side menu on narrow screens, dark and light

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
  if (event.target.closest("[data-palette]")) openPalette();
  if (event.target.closest("[data-toggle=side]")) body.classList.toggle("side-open");
  else if (!event.target.closest("#side")) body.classList.remove("side-open");
  if (event.target.closest("[data-theme-switch]")) switchTheme();
  const fold = event.target.closest("[data-toggle=filters]");
  if (fold) fold.setAttribute("aria-expanded", String(fold.form.classList.toggle("filters-open")));
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  body.classList.remove("side-open");
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

function switchTheme() {
  const root = document.documentElement;
  const theme = root.dataset.bsTheme === "dark" ? "light" : "dark";
  root.dataset.theme = theme;
  root.dataset.bsTheme = theme;
  document.cookie = `virtmgr-theme=${theme}; path=/; max-age=31536000; samesite=strict; secure`;
}

// ---- the drawer of tasks stays as the viewer left it; filters are sent without empty ones

document.addEventListener(
  "toggle",
  (event) => {
    if (event.target.matches?.("[data-drawer]")) {
      sessionStorage.setItem("drawer", event.target.open ? "open" : "");
    }
  },
  true,
);

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-filters]")) return;
  for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-filters] select")) event.target.form.requestSubmit();
});

// ---- ages go with the time, by the server's clock

const AHEAD = Date.parse(body.dataset.now) - Date.now(); // milliseconds

function age(time) {
  const away = (Date.parse(time.dateTime) - Date.now() - AHEAD) / 1000;
  if (Math.abs(away) < 1) return "now";
  return away > 0 ? `in ${span(away)}` : `${span(away)} ago`;
}

function showAges() {
  if (document.hidden) return;
  for (const time of document.querySelectorAll("time[data-age]")) {
    const words = age(time);
    if (time.textContent !== words) time.textContent = words;
  }
}

setInterval(showAges, 1000);

// ---- what is swapped in: times in the viewer's zone, the drawer and the tabs as they were

function settle() {
  for (const time of document.querySelectorAll("time[datetime]:not([data-local])")) {
    time.dataset.local = "";
    time.title = new Date(time.dateTime).toLocaleString(undefined, {
      dateStyle: "medium",
      timeStyle: "long",
    });
  }
  letScroll();
  showTab();
  const drawer = document.querySelector("[data-drawer]");
  if (drawer && sessionStorage.getItem("drawer") === "open") drawer.open = true;
}

// On a narrow screen the tabs are scrolled to the one that is shown; the page is not.
function showTab() {
  const tab = document.querySelector(".tabs [aria-current]");
  if (!tab) return;
  const tabs = tab.closest(".tabs");
  tabs.scrollLeft = tab.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - tab.offsetWidth) / 2;
}

// What is wider or longer than its place is scrolled by keys once it can have the focus.
function letScroll() {
  for (const box of document.querySelectorAll(".table-responsive, pre")) {
    const cut = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (cut && !box.hasAttribute("tabindex")) {
      box.tabIndex = 0;
      box.dataset.scrolls = "";
    } else if (!cut && "scrolls" in box.dataset) {
      box.removeAttribute("tabindex");
      delete box.dataset.scrolls;
    }
  }
}

window.addEventListener("resize", letScroll);
document.addEventListener("htmx:after:swap", settle);
settle();
follow();
