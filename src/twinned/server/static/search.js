// Search for the nearest enrolled images; each result can be the next query.

import { get, post } from "./api.js";
import { failure, h, number, plural, spinner } from "./elements.js";
import { cutOut } from "./faces.js";
import { emptyGallery, face, noGallery, temporary } from "./gallery.js";
import { picker } from "./picker.js";

export function search(place, facts) {
  if (!facts.gallery) {
    place.append(noGallery(facts));
    return {};
  }
  const tile = picker({ label: "An image", facts, changed });
  const many = h("select", { id: "many" }, [12, 24, 48, 96].map((n) => h("option", { value: n }, `${n} images`)));
  many.value = "24";
  many.addEventListener("change", () => ask());
  const trail = h("nav", { class: "trail", "aria-label": "Previous queries" });
  const said = h("div", { "aria-live": "polite" });
  const grid = h("ol", { class: "grid" });
  const body = h(
    "div",
    { class: "two searching" },
    h("div", {}, tile.element, h("label", { class: "field", for: "many" }, "Show", many)),
    h("div", { class: "panel result" }, trail, said, grid),
  );
  const empty = emptyGallery(facts.read_only);
  empty.hidden = true; // until the count is known
  place.append(...[temporary(facts), empty, body].filter(Boolean));
  let steps = []; // {file} or {id, label}
  let round = 0;
  invite();

  function invite() {
    trail.replaceChildren();
    grid.replaceChildren();
    said.replaceChildren(h("p", { class: "verdict waiting" }, "Choose an image."));
  }

  function changed() {
    steps = tile.images.length ? [{ file: tile.images[0] }] : [];
    if (location.hash !== "#search") history.replaceState(null, "", "#search");
    ask();
  }

  async function ask() {
    round += 1;
    const mine = round;
    const step = steps.at(-1);
    if (!step) return invite();
    showTrail();
    said.replaceChildren(spinner("Searching …"));
    try {
      const hits = await post("/v1/search", step.file ? { image: step.file, k: many.value, ...cutOut(facts) } : { id: step.id, k: many.value });
      if (mine === round) show(hits);
    } catch (error) {
      if (mine !== round) return;
      if (error.status === 422) tile.fail(error.message);
      grid.replaceChildren();
      said.replaceChildren(failure(error, error.status === 422 ? null : ask));
    }
  }

  function show(hits) {
    const within = hits.filter((hit) => hit.distance <= facts.threshold).length;
    const words = facts.threshold === null ? "" : ` ${within ? `${plural(within, "image")} within` : "None within"} the threshold for two images, ${number(facts.threshold)}.`;
    said.replaceChildren(h("p", { class: "note" }, hits.length ? `Nearest first.${words}` : "The gallery has no other image."));
    grid.replaceChildren(
      ...hits.map((hit) =>
        h(
          "li",
          { class: facts.threshold !== null && hit.distance <= facts.threshold ? "near" : "far" },
          h(
            "a",
            { href: `#search/${hit.id}`, onclick: () => steps.push({ id: hit.id, label: hit.label }) },
            face(hit.id, hit.label),
            h("bdi", { class: "name" }, hit.label ?? "no name"),
            h("span", { class: "figure" }, number(hit.distance)),
          ),
        ),
      ),
    );
  }

  function showTrail() {
    const parts = steps.map((step, place) => {
      const words = step.file ? [h("span", {}, "your image")] : [face(step.id, step.label), h("bdi", {}, step.label ?? "no name")];
      const here = place === steps.length - 1;
      if (here) return h("span", { class: "step", "aria-current": "step" }, words);
      return h("button", { type: "button", class: "step", onclick: () => back(place) }, words);
    });
    trail.replaceChildren(h("span", { class: "note" }, "Similar to"), ...parts);
  }

  function back(place) {
    steps = steps.slice(0, place + 1);
    const step = steps.at(-1);
    location.hash = step.file ? "#search" : `#search/${step.id}`;
    if (step.file) ask();
  }

  return {
    paste: (file) => tile.put([file]),
    async enter(id) {
      const { count } = await get("/v1/gallery/labels");
      empty.hidden = count > 0;
      body.hidden = count === 0;
      if (!id) {
        if (steps.length > 1) back(0);
        return;
      }
      const known = steps.findIndex((step) => step.id === id);
      if (known >= 0) steps = steps.slice(0, known + 1);
      else steps = [...(tile.images.length && steps[0]?.file ? steps.slice(0, 1) : []), { id, label: null }];
      await ask();
    },
  };
}
