// Start the page: load the model's description, build the views, and switch between them.

import { forgetToken, get, hasToken, onTokenNeeded } from "./api.js";
import { compare } from "./compare.js";
import { failure, h } from "./elements.js";
import { enroll } from "./enroll.js";
import { identify } from "./identify.js";
import { map } from "./map.js";
import { imagesOf } from "./picker.js";
import { report } from "./report.js";
import { search } from "./search.js";

const PLACES = { compare, identify, enroll, search, map, report };
const built = {};
let current = null;
let facts = null;

/** Show a short message at the bottom; one with an action stays longer. */
function toast(words, action = null, act = null) {
  const close = () => note.remove();
  const note = h("div", { class: "toast" }, h("span", {}, words));
  if (action) {
    const button = h("button", { type: "button" }, action);
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await act();
      } catch (error) {
        toast(error.message);
      }
      close();
    });
    note.append(button);
  }
  document.getElementById("toasts").replaceChildren(note);
  setTimeout(close, action ? 20000 : 5000);
}

function go() {
  const [name, inner] = location.hash.slice(1).split("/");
  const wanted = name in PLACES ? name : "compare";
  for (const other of Object.keys(PLACES)) document.getElementById(`place-${other}`).hidden = other !== wanted;
  for (const link of document.querySelectorAll(".places a")) {
    if (link.hash === `#${wanted}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const place = document.getElementById(`place-${wanted}`);
  built[wanted] ??= PLACES[wanted](place, facts, toast);
  document.title = `${wanted[0].toUpperCase()}${wanted.slice(1)} · Twinned`;
  const moved = current !== null && current !== wanted;
  current = wanted;
  if (moved) window.scrollTo(0, 0);
  Promise.resolve(built[wanted].enter?.(inner)).catch((error) => toast(error.message));
}

document.addEventListener("paste", (event) => {
  const [file] = imagesOf(event.clipboardData);
  if (!file || !facts || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  built[current]?.paste?.(file);
});
// A file dropped outside of a tile must not replace the page.
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());

onTokenNeeded((wrong) => {
  const dialog = document.getElementById("token-dialog");
  const field = document.getElementById("token");
  const problem = document.getElementById("token-error");
  problem.hidden = !wrong;
  problem.textContent = wrong ? "The token is wrong." : "";
  field.value = "";
  dialog.oncancel = (event) => event.preventDefault();
  dialog.showModal();
  return new Promise((done) => {
    document.getElementById("token-form").onsubmit = () => done(field.value.trim());
  });
});

const forget = document.getElementById("forget");
forget.addEventListener("click", () => {
  forgetToken();
  location.reload();
});

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const stored = localStorage.getItem("twinned-theme");
if (stored) root.dataset.theme = stored;
document.getElementById("theme").addEventListener("click", () => {
  const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("twinned-theme", root.dataset.theme);
  document.dispatchEvent(new Event("theme"));
});

async function start() {
  const starting = document.getElementById("starting");
  starting.hidden = false;
  try {
    facts = await get("/v1/model");
  } catch (error) {
    starting.replaceChildren(failure(error, start));
    return;
  }
  starting.hidden = true;
  forget.hidden = !hasToken();
  const name = document.querySelector(".model-name");
  name.textContent = facts.name;
  name.hidden = false;
  go();
  window.addEventListener("hashchange", go);
}

// A gallery was made: build the views again that need one.
document.addEventListener("gallery", async () => {
  facts = await get("/v1/model");
  for (const name of ["identify", "enroll", "search", "map", "report"]) {
    const place = document.getElementById(`place-${name}`);
    place.replaceChildren(place.querySelector("h1"));
    delete built[name];
  }
  go();
});

start();
