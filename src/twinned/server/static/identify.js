// Identify an image, or each face of a photograph, among the enrolled images.

import { get, post } from "./api.js";
import { failure, h, number, percent, plural, spinner } from "./elements.js";
import { cutOut } from "./faces.js";
import { emptyGallery, face, noGallery, temporary } from "./gallery.js";
import { picker } from "./picker.js";
import { scale } from "./scale.js";

const STRICT = [
  ["0.1", "1 in 10, lenient"],
  ["0.01", "1 in 100, usual"],
  ["0.001", "1 in 1,000, strict"],
];
const MOST = 40; // faces of one request

export function identify(place, facts) {
  if (!facts.gallery) {
    place.append(noGallery(facts));
    return {};
  }
  const tile = picker({ label: "An image", facts, changed });
  const strict = h("select", { id: "strict" }, STRICT.map(([value, words]) => h("option", { value }, words)));
  strict.value = "0.01";
  strict.addEventListener("change", ask);
  const known = h("p", { class: "note" });
  const crowd = h("ul", { class: "crowd" });
  const said = h("div", { class: "said", "aria-live": "polite" });
  const near = h("div", { class: "near" });
  const body = h(
    "div",
    { class: "two" },
    h("div", {}, tile.element, crowd, h("label", { class: "field", for: "strict" }, "Unknown images that may get a name", strict), known),
    h("div", { class: "panel result" }, said, near),
  );
  const empty = emptyGallery(facts.read_only);
  empty.hidden = true; // until the count is known
  place.append(...[temporary(facts), empty, body].filter(Boolean));
  let round = 0;
  let labels = 0;
  let answers = null; // one for each face
  invite();

  function invite() {
    round += 1;
    said.replaceChildren(h("p", { class: "verdict waiting" }, "Choose an image."));
    near.replaceChildren();
  }

  /** Another face of the same photograph is answered already. */
  function changed() {
    for (const [place, button] of [...crowd.querySelectorAll("button")].entries()) button.setAttribute("aria-pressed", String(place === tile.chosen));
    if (answers?.faces === tile.faces && answers.found[tile.chosen]) show(answers.found[tile.chosen]);
    else ask();
  }

  async function ask() {
    answers = null;
    crowd.replaceChildren();
    if (!tile.images.length) return invite();
    round += 1;
    const mine = round;
    said.replaceChildren(spinner("Identifying …"));
    near.replaceChildren();
    const faces = tile.faces;
    try {
      const images = faces.length > 1 ? faces.slice(0, MOST).map((one) => one.file) : tile.images;
      const found = await post("/v1/identify", { images, fpir: strict.value, nearest: 6, ...cutOut(facts) });
      if (mine !== round) return;
      answers = { faces, found };
      found.forEach((one, place) => tag(faces[place], one));
      if (found.length > 1) crowd.replaceChildren(...found.map((one, place) => member(faces[place], one, place)));
      show(found[tile.chosen] ?? found[0]);
    } catch (error) {
      if (mine !== round) return;
      if (error.status === 422) tile.fail(error.message);
      said.replaceChildren(failure(error, error.status === 422 ? null : ask));
    }
  }

  /** A face of a photograph with its answer, in a list beside the photograph. */
  function member(one, { label }, place) {
    return h("li", {}, h("button", { type: "button", "aria-pressed": String(place === tile.chosen), onclick: () => tile.choose(place) }, h("span", { class: "face small" }, h("img", { alt: "", src: one.url })), h("bdi", { class: label === null ? "note" : null }, label ?? "unknown")));
  }

  /** Write the answer on the box of its face. */
  function tag(one, { label }) {
    if (!one) return;
    one.button.classList.toggle("unknown", label === null);
    one.button.querySelector(".tag").replaceChildren(h("bdi", {}, label ?? "unknown"));
  }

  function show(found) {
    const line = scale({ stored: found.threshold, zones: ["known", "unknown"] });
    const { nearest } = found;
    const figure = (value) => h("span", { class: "figure" }, number(value));
    const unknown = found.label === null;
    said.replaceChildren(
      h("p", { class: `verdict ${unknown ? "unknown" : "same"}` }, h("bdi", {}, found.label ?? "Unknown")),
      nearest
        ? h("p", { class: "sure" }, unknown ? ["The nearest name is ", h("strong", {}, h("bdi", {}, nearest.label)), ": "] : "", h("strong", {}, percent(nearest.probability)), " likely to be the same, at distance ", figure(nearest.distance), unknown ? [", beyond the ", figure(found.threshold), " that a name needs here.", nearest.probability >= 0.8 ? " If most of your images show enrolled names, let more unknown images get a name." : ""] : ".")
        : h("p", { class: "sure" }, "No image with a name is enrolled."),
      line.element,
    );
    if (found.distance !== null) line.set({ distance: found.distance, threshold: found.threshold });
    near.replaceChildren(
      h("h2", {}, "Nearest enrolled images"),
      h(
        "ol",
        { class: "strip" },
        found.hits.map((hit) =>
          h(
            "li",
            {},
            h(
              "a",
              { href: `#search/${hit.id}`, title: "Search for images similar to this one" },
              face(hit.id, hit.label),
              h("bdi", { class: "name" }, hit.label ?? "no name"),
              h("span", { class: "figure" }, number(hit.distance)),
            ),
          ),
        ),
      ),
      h("p", { class: "note" }, `Two thresholds: ${number(found.threshold)} for a name in this gallery of ${plural(labels, "name")}, and ${number(facts.threshold)} for two images in Compare.${found.threshold < facts.threshold ? " The first is stricter, because an unknown image could resemble any of the names." : ""}`),
    );
  }

  return {
    paste: (file) => tile.put([file]),
    async enter() {
      const found = await get("/v1/gallery/labels");
      labels = Object.keys(found.labels).length;
      empty.hidden = found.count > 0;
      body.hidden = found.count === 0;
      known.textContent = `${plural(labels, "name")}, ${plural(found.count, "image")} enrolled.`;
    },
  };
}
