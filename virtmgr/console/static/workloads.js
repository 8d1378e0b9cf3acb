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

// ---- the text that a viewer has opened stays open while the form changes

let opened = null;

document.addEventListener(
  "toggle",
  (event) => {
    const details = event.target;
    if (!details.matches?.("[data-say]")) return;
    if (details.open) opened = details.dataset.say;
    else if (opened === details.dataset.say && document.activeElement?.parentElement === details) opened = null;
  },
  true,
);

function reopen() {
  for (const details of document.querySelectorAll("[data-say]")) {
    if (details.dataset.say === opened && !details.open) details.open = true;
  }
}

document.addEventListener("htmx:after:swap", (event) => {
  reopen();
  if (event.target.id === "create") document.body.dispatchEvent(new Event("preview"));
});
