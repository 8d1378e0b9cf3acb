// Host pages: copy what is shown once, and keep the end of a log in sight.

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const from = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(from.value ?? from.textContent);
  button.lastChild.textContent = "Copied";
});

const NEAR = 60; // pixels from the end that count as following

for (const log of document.querySelectorAll("[data-follow]")) {
  let following = true;
  log.scrollTop = log.scrollHeight;
  log.addEventListener("scroll", () => {
    following = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
  });
  new MutationObserver(() => {
    if (following) log.scrollTop = log.scrollHeight;
  }).observe(log, { childList: true, subtree: true });
}
