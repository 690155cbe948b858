// Compare two images.

import { post } from "./api.js";
import { failure, h, number, percent, spinner } from "./elements.js";
import { picker } from "./picker.js";
import { scale } from "./scale.js";

export function compare(place, facts) {
  const tiles = ["First image", "Second image"].map((label) => picker({ label, limits: facts.limits, changed: ask }));
  const word = h("p", { class: "verdict" });
  const sure = h("p", { class: "sure" });
  const said = h("div", { class: "said", "aria-live": "polite" });
  const line = scale({ stored: facts.threshold, curve: facts.held_out.curve, moved: judge });
  const shown = h("div", { class: "panel result" }, said, line.element);
  place.append(h("div", { class: "pair" }, tiles[0].element, tiles[1].element), shown);

  let verdict = null;
  let round = 0;
  invite();

  function invite() {
    verdict = null;
    const missing = tiles.filter((tile) => !tile.file).length;
    const words = missing === 2 ? "Choose two images." : "Choose one more.";
    said.replaceChildren(h("p", { class: "verdict waiting" }, words), h("p", { class: "sure" }, `${facts.name} compares them by ${facts.distance.replace("_", " ")} distance.`));
    line.set({ distance: null });
  }

  async function ask() {
    round += 1;
    const mine = round;
    if (tiles.some((tile) => !tile.file)) return invite();
    said.replaceChildren(spinner("Comparing …"));
    try {
      const found = await post("/v1/verify", { a: tiles[0].file, b: tiles[1].file });
      if (mine !== round) return;
      verdict = found;
      line.set({ distance: found.distance });
      judge(line.threshold);
    } catch (error) {
      if (mine !== round) return;
      const blamed = tiles.find((tile) => error.message.toLowerCase().startsWith(tile.file.name.toLowerCase()));
      blamed?.fail(error.message);
      line.set({ distance: null });
      if (blamed) said.replaceChildren(h("p", { class: "verdict waiting" }, "One of the images cannot be used."));
      else said.replaceChildren(failure(error, error.status === 422 ? null : ask));
    }
  }

  function judge(threshold) {
    if (!verdict) return;
    const same = verdict.distance <= threshold;
    word.className = `verdict ${same ? "same" : "different"}`;
    word.textContent = same ? "Same" : "Different";
    sure.replaceChildren(
      h("strong", {}, percent(verdict.probability)),
      " likely to be the same, at distance ",
      h("span", { class: "figure" }, number(verdict.distance)),
      ".",
    );
    if (!said.contains(word)) said.replaceChildren(word, sure);
  }

  return {
    paste(file) {
      (tiles.find((tile) => !tile.file) ?? tiles[1]).put(file);
    },
  };
}
