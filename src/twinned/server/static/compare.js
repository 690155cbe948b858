// Compare two images, or an image with several references; explain the result.

import { post } from "./api.js";
import { failure, h, number, percent, spinner } from "./elements.js";
import { explanation } from "./explain.js";
import { cutOut } from "./faces.js";
import { picker } from "./picker.js";
import { scale } from "./scale.js";

export function compare(place, facts) {
  const tiles = [
    picker({ label: "First image", facts, changed: ask, many: true, hint: "Several images of one class are references." }),
    picker({ label: "Second image", facts, changed: ask }),
  ];
  const word = h("p", { class: "verdict" });
  const sure = h("p", { class: "sure" });
  const said = h("div", { class: "said", "aria-live": "polite" });
  const line = scale({ stored: facts.threshold, curve: facts.held_out.curve, moved: judge });
  const why = explanation(() => ({ a: tiles[0].images[0], b: tiles[1].images[0], ...cutOut(facts) }));
  line.element.hidden = facts.threshold === null;
  place.append(h("div", { class: "pair" }, tiles[0].element, tiles[1].element), h("div", { class: "panel result" }, said, line.element, why.element));

  let verdict = null;
  let round = 0;
  invite();

  function invite() {
    round += 1;
    verdict = null;
    const missing = tiles.filter((tile) => !tile.images.length).length;
    const words = missing === 2 ? "Choose two images." : "Choose one more.";
    said.replaceChildren(h("p", { class: "verdict waiting" }, words), h("p", { class: "sure" }, `${facts.name} compares them by ${facts.distance.replace("_", " ")} distance.`));
    line.set({ distance: null, threshold: facts.threshold });
    why.reset(false);
  }

  async function ask() {
    if (tiles.some((tile) => !tile.images.length)) return invite();
    round += 1;
    const mine = round;
    said.replaceChildren(spinner("Comparing …"));
    why.reset(false);
    try {
      const found = await post("/v1/verify", { a: tiles[0].images, b: tiles[1].images, ...cutOut(facts) });
      if (mine !== round) return;
      verdict = found;
      line.set({ distance: found.distance, threshold: found.threshold });
      judge(line.threshold);
      why.reset(tiles[0].images.length === 1);
    } catch (error) {
      if (mine !== round) return;
      const blamed = tiles.find((tile) => tile.names.some((name) => error.message.toLowerCase().startsWith(name.toLowerCase())));
      blamed?.fail(error.message);
      line.set({ distance: null });
      if (blamed) said.replaceChildren(h("p", { class: "verdict waiting" }, "One of the images cannot be used."));
      else said.replaceChildren(failure(error, error.status === 422 ? null : ask));
    }
  }

  /** The words follow the probability, and the decision follows the threshold: say so where they differ. */
  function judge(threshold) {
    if (!verdict) return;
    const same = verdict.distance <= threshold;
    const leans = /same/i.test(verdict.verdict) ? true : /different/i.test(verdict.verdict) ? false : null;
    word.className = `verdict ${verdict.verdict.toLowerCase().replaceAll(" ", "-")}`;
    word.textContent = verdict.verdict;
    const figure = (value) => h("span", { class: "figure" }, number(value));
    sure.replaceChildren(
      h("strong", {}, percent(verdict.probability)),
      " likely to be the same. Distance ",
      figure(verdict.distance),
      ` is ${same ? "within" : "beyond"} ${line.isStored ? "the threshold" : "your threshold"} `,
      figure(threshold),
      ...(leans === same ? ["."] : [": ", h("strong", {}, `counts as ${same ? "the same" : "different"}`), "."]),
      verdict.relation ? ` Relation: ${verdict.relation}, ${percent(verdict.relation_probability).toLowerCase()} likely.` : "",
    );
    if (!said.contains(word)) said.replaceChildren(word, sure);
  }

  return {
    paste(file) {
      (tiles.find((tile) => !tile.images.length) ?? tiles[1]).put([file]);
    },
  };
}
