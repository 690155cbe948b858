// Report of the model: description, metrics on held-out images, and warnings.

import { count, h, number, plural } from "./elements.js";
import { scale } from "./scale.js";

export function report(place, facts) {
  const fit = facts.calibration;
  const { height, width, channels } = facts.image;
  const interval = (ends, show) => (ends ? `${show(ends[0])} to ${show(ends[1])}` : null);
  const rate = (value) => `${number(100 * value, 3)} %`;
  const tile = (name, value, under) => h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, value, under ? h("span", { class: "note" }, under) : null));

  // The cost is measured on folds, which can be easier than the whole set that the minimum is computed on.
  const best = fit.min_cllr < fit.cllr ? `${number(fit.min_cllr)} with the best calibration` : null;
  const figures = h(
    "dl",
    { class: "facts" },
    tile("Equal error rate", rate(fit.eer), fit.eer_ci && `95 % interval ${interval(fit.eer_ci, rate)}`),
    tile("Threshold", number(facts.threshold, 4), fit.threshold_ci && `95 % interval ${interval(fit.threshold_ci, (v) => number(v, 3))}`),
    tile("Chosen for", fit.far === null ? "equal errors" : `${rate(fit.far)} false accepts`, fit.supported ? null : `not supported: requires ${count(fit.impostors_needed)} comparisons`),
    tile("Measured on", plural(fit.n_classes, "class", "classes"), `${count(fit.n_genuine)} genuine, ${count(fit.n_impostor)} impostor comparisons`),
    fit.cllr === null ? null : tile("Cost of likelihood ratios (Cllr)", `${number(fit.cllr)} bit`, best),
  );
  const line = scale({ stored: facts.threshold, curve: facts.held_out.curve });
  line.set({});

  const rows = [
    ["Encoder", facts.encoder],
    ["Images", `${width} × ${height}, ${channels === 1 ? "gray" : "color"}${facts.image.ink === "none" ? "" : ", ink extracted"}`],
    ["Embedding", `${plural(facts.embedding_size, "value")}, compared by ${facts.distance.replace("_", " ")} distance${facts.head ? ", scored by a learned head" : ""}`],
    ["Trained on", `${plural(facts.data.images ?? 0, "image")} of ${plural(facts.classes, "class", "classes")}`],
    ["Recipe", facts.recipe.recipe ? `${facts.recipe.recipe}, seed ${facts.recipe.seed ?? 0}` : null],
    ["License of pretrained weights", facts.licence],
    ["Gallery", facts.gallery && (facts.gallery.count === null ? "does not answer" : `${plural(facts.gallery.count, "image")}, ${plural(facts.gallery.labels, "name")}; ${facts.gallery.search === "exact" ? "exact search" : `index search, which finds ${rate(facts.gallery.recall_at_10 ?? 0)} of the ten nearest`}`)],
  ].filter(([, value]) => value);

  const warnings = [...facts.notes];
  if (!fit.unseen_classes) warnings.unshift("The threshold was chosen on classes used in training, so these figures are too optimistic.");
  const saved = new Blob([facts.card], { type: "text/markdown" });

  place.append(
    h("div", { class: "panel" }, h("h2", {}, facts.name), figures),
    h("div", { class: "panel" }, h("h2", {}, "Error rates by threshold"), h("p", { class: "note" }, "On held-out images. A higher threshold accepts more different pairs; a lower one rejects more matching pairs."), line.element),
    h("div", { class: "panel" }, h("h2", {}, "Model"), h("table", {}, h("tbody", {}, rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value)))))),
    h(
      "div",
      { class: "panel" },
      h("h2", {}, "Notes"),
      h("ul", { class: "notes" }, warnings.map((words) => h("li", {}, words)), h("li", {}, "Error rates are valid for images like those they were measured on. Measure them on your images: twinned evaluate MODEL DATA.")),
      h("p", {}, h("button", { type: "button", onclick: () => download(saved) }, "Save the model card")),
    ),
  );
}

function download(blob) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: "model-card.md" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
