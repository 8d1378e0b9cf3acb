// What forms of every page do: what is refused is shown, nothing is sent twice, and what was typed
// outlives the session.

import { toast } from "./console.js";

const main = document.getElementById("main");

// ---- what is refused is shown: in a long form it is far from the button

function showWrong() {
  const fields = [...main.querySelectorAll(".is-invalid")];
  const seen = fields.find((field) => field.checkVisibility() || field.closest("details:not([open])"));
  const wrong = seen ?? main.querySelector(".alert-danger[role=alert]");
  if (!wrong) return;
  for (let box = wrong.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  if (!seen) wrong.tabIndex = -1;
  wrong.scrollIntoView({ block: "center" });
  wrong.focus({ preventScroll: true });
}

document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => {
  if (ctx?.response?.status >= 400) showWrong();
});

// ---- nothing is sent twice: what has been pressed is busy until the answer is there

function isBusy(element) {
  return element?.getAttribute("aria-busy") === "true";
}

function halt(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}

document.addEventListener(
  "submit",
  (event) => {
    if (isBusy(event.target)) halt(event);
  },
  true,
);
document.addEventListener(
  "click",
  (event) => {
    if (isBusy(event.target.closest?.("button[hx-post]"))) halt(event);
  },
  true,
);
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post" || form.hasAttribute("hx-post")) return;
  keepTyped(); // where the session has ended the answer is the log-in
  form.setAttribute("aria-busy", "true");
});
document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
  if (ctx.sourceElement.matches("form[hx-post], button[hx-post]")) ctx.sourceElement.setAttribute("aria-busy", "true");
});
document.addEventListener("htmx:finally:request", ({ detail: { ctx } }) => {
  if (!ctx.keepIndicators) ctx.sourceElement.removeAttribute("aria-busy"); // else another page comes
});
window.addEventListener("pageshow", () => {
  for (const one of document.querySelectorAll("[aria-busy=true]")) one.removeAttribute("aria-busy");
});

// ---- what was typed when the session ended is there again after the log-in, but for secrets

const KEPT = "typed";
const FORMS = "form[action]:not([data-filters])"; // the address has those
const HERE = location.pathname + location.search;
const touched = new Set(); // the actions of forms: forms themselves may be made anew

function touch(event) {
  const form = event.target.form;
  if (form && main.contains(form)) touched.add(form.getAttribute("action"));
}
document.addEventListener("input", touch);
document.addEventListener("change", touch);

function isKept(field) {
  return field.name && field.name !== "csrf_token" && !["password", "file"].includes(field.type) && !("secret" in field.dataset);
}

function keepTyped() {
  const forms = [...main.querySelectorAll(FORMS)].filter((form) => touched.has(form.getAttribute("action")));
  if (!forms.length) return;
  const kept = forms.map((form) => ({
    action: form.getAttribute("action"),
    fields: [...form.elements].filter(isKept).map(({ name, type, value, checked }) => ({ name, type, value, checked })),
  }));
  sessionStorage.setItem(KEPT, JSON.stringify({ path: HERE, user: document.body.dataset.user, forms: kept }));
}

document.addEventListener("htmx:before:response", ({ detail: { ctx } }) => {
  if (ctx.response.status === 401) keepTyped();
});

function bringBack() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  sessionStorage.removeItem(KEPT);
  const from = document.referrer && new URL(document.referrer);
  if (!kept || from?.pathname !== "/login" || kept.path !== HERE || kept.user !== document.body.dataset.user) return;
  const forms = [...main.querySelectorAll(FORMS)];
  for (const { action, fields } of kept.forms) {
    const form = forms.find((one) => one.getAttribute("action") === action);
    if (form) fill(form, fields);
  }
  toast({ message: "What you had typed is here again", hint: "But for what may hold secrets: passwords, keys, environment, user data and YAML are to be typed again." });
}

function fill(form, fields) {
  const sent = fields.filter(({ type, checked }) => !["checkbox", "radio"].includes(type) || checked);
  if (form.dataset.again) {
    // the server makes the form that was shown, with its rows
    const values = Object.fromEntries(sent.map(({ name, value }) => [name, value]));
    htmx.ajax("POST", form.dataset.again, { source: form, target: `#${form.id}`, select: `#${form.id}`, swap: "outerMorph", values });
    return;
  }
  const rest = [...form.elements].filter(isKept);
  for (const { name, type, value, checked } of fields) {
    const choice = ["checkbox", "radio"].includes(type);
    const at = rest.findIndex((field) => field.name === name && field.type === type && (!choice || field.value === value));
    if (at < 0) continue;
    const [field] = rest.splice(at, 1);
    if (choice ? field.checked === checked : field.value === value) continue;
    if (choice) field.checked = checked;
    else field.value = value;
    for (const told of ["input", "change"]) field.dispatchEvent(new Event(told, { bubbles: true }));
  }
}

bringBack();
showWrong();
