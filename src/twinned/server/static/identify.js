// Identify an image among the enrolled ones.

import { get, post } from "./api.js";
import { failure, h, number, percent, plural, spinner } from "./elements.js";
import { emptyGallery, face, noGallery } from "./gallery.js";
import { picker } from "./picker.js";
import { scale } from "./scale.js";

const STRICT = [
  ["0.1", "1 in 10, lenient"],
  ["0.01", "1 in 100, usual"],
  ["0.001", "1 in 1,000, strict"],
];

export function identify(place, facts) {
  if (!facts.gallery) {
    place.append(noGallery());
    return {};
  }
  const tile = picker({ label: "An image", limits: facts.limits, changed: ask });
  const strict = h("select", { id: "strict" }, STRICT.map(([value, words]) => h("option", { value }, words)));
  strict.value = "0.01";
  strict.addEventListener("change", ask);
  const known = h("p", { class: "note" });
  const said = h("div", { class: "said", "aria-live": "polite" });
  const near = h("div", { class: "near" });
  const body = h(
    "div",
    { class: "two" },
    h("div", {}, tile.element, h("label", { class: "field", for: "strict" }, "False identifications allowed", strict), known),
    h("div", { class: "panel result" }, said, near),
  );
  const empty = emptyGallery(facts.read_only);
  empty.hidden = true; // until the count is known
  place.append(empty, body);
  let round = 0;
  invite();

  function invite() {
    said.replaceChildren(h("p", { class: "verdict waiting" }, "Choose an image."));
    near.replaceChildren();
  }

  async function ask() {
    round += 1;
    const mine = round;
    if (!tile.file) return invite();
    said.replaceChildren(spinner("Identifying …"));
    near.replaceChildren();
    try {
      const [found] = await post("/v1/identify", { image: tile.file, fpir: strict.value, nearest: 6 });
      if (mine === round) show(found);
    } catch (error) {
      if (mine !== round) return;
      if (error.status === 422) tile.fail(error.message);
      said.replaceChildren(failure(error, error.status === 422 ? null : ask));
    }
  }

  function show(found) {
    const line = scale({ stored: found.threshold, zones: ["known", "unknown"] });
    const unknown = found.label === null;
    const closest = found.nearest.find((hit) => hit.label !== null);
    said.replaceChildren(
      h("p", { class: `verdict ${unknown ? "unknown" : "same"}` }, h("bdi", {}, found.label ?? "Unknown")),
      unknown
        ? h("p", { class: "sure" }, "No enrolled image is close enough", closest ? [". Closest is ", h("bdi", {}, closest.label), "."] : ".")
        : h("p", { class: "sure" }, h("strong", {}, percent(found.probability)), " likely, at distance ", h("span", { class: "figure" }, number(found.distance)), "."),
      line.element,
    );
    if (found.distance !== null) line.set({ distance: found.distance });
    near.replaceChildren(
      h("h2", {}, "Nearest enrolled images"),
      h(
        "ol",
        { class: "strip" },
        found.nearest.map((hit) =>
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
    );
  }

  return {
    paste: (file) => tile.put(file),
    async enter() {
      const { count: images, labels } = await get("/v1/gallery/labels");
      empty.hidden = images > 0;
      body.hidden = images === 0;
      known.textContent = `${plural(Object.keys(labels).length, "name")}, ${plural(images, "image")} enrolled.`;
    },
  };
}

