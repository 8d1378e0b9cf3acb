// Pages of nouns: what is shown once is copied; fields follow a choice.

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  const words = button.querySelector("span");
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    words.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source); // no right to the clipboard: one key is left to press
    words.textContent = "Press Ctrl-C";
  }
});

// data-fill='{"FIELD": "value"}' fills the form that it is in.
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-fill]");
  if (!button) return;
  for (const [name, value] of Object.entries(JSON.parse(button.dataset.fill))) {
    const field = button.closest("form").elements[name];
    if (field) field.value = value;
  }
  button.closest("form").elements.alias?.focus();
});

// data-shown-for="FIELD:a b" is shown, and sent, while FIELD has one of these values.
function follow() {
  for (const part of document.querySelectorAll("[data-shown-for]")) {
    const [name, values] = part.dataset.shownFor.split(":");
    const form = part.closest("form");
    const shown = values.split(" ").includes(form?.elements[name]?.value ?? "");
    part.hidden = !shown;
    for (const field of part.querySelectorAll("input, select, textarea")) field.disabled = !shown;
  }
}
document.addEventListener("change", follow);

// What was unfolded stays so when its part of the page is read again.
let unfolded = [];
document.addEventListener("htmx:before:swap", () => {
  unfolded = [...document.querySelectorAll("main details[id][open]")].map((each) => each.id);
});
document.addEventListener("htmx:after:swap", () => {
  for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
});
document.addEventListener("htmx:after:swap", follow);
follow();
