// A switch that hides all code, remembered from page to page.
addEventListener("DOMContentLoaded", () => {
  if (!document.querySelector("div.cell_input")) return;
  const body = document.body, button = document.createElement("button");
  const set = hidden => { body.classList.toggle("no-code", hidden); button.textContent = hidden ? "Show the code" : "Hide the code"; button.setAttribute("aria-pressed", hidden); };
  let hidden = false;
  try { hidden = localStorage.getItem("no-code") === "yes"; } catch {}
  button.className = "code-switch";
  button.addEventListener("click", () => { hidden = !hidden; set(hidden); try { localStorage.setItem("no-code", hidden ? "yes" : "no"); } catch {} });
  set(hidden);
  (document.querySelector("article h1 + blockquote") ?? document.querySelector("article h1")).after(button);
});
