// Report on the model: what to do next, metrics on held-out images, description, and notes.

import { count, h, number, plural } from "./elements.js";
import { scale } from "./scale.js";

export function report(place, facts) {
  const fit = facts.calibration;
  const { height, width, channels } = facts.image;
  const interval = (ends, show) => (ends ? `${show(ends[0])} to ${show(ends[1])}` : null);
  const rate = (value) => `${number(100 * value, 2)} %`;
  const tile = (name, value, ...under) => h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, value, under.filter(Boolean).map((words) => h("span", { class: "note" }, words))));
  const panel = (title, ...inside) => h("div", { class: "panel" }, h("h2", {}, title), inside);

  const [judgement, ...steps] = facts.advice;
  const figures = fit && h(
    "dl",
    { class: "facts" },
    tile("Wrong answers (equal error rate)", rate(fit.eer), "lower is better; 50 % is a guess", fit.eer_ci && `95 % interval ${interval(fit.eer_ci, rate)}`),
    tile("Threshold", number(facts.threshold, 4), "distances up to it count as the same", fit.threshold_ci && `95 % interval ${interval(fit.threshold_ci, (v) => number(v, 3))}`),
    tile("Chosen for", fit.far === null ? "equal errors" : `${rate(fit.far)} false accepts`, fit.far === null && "as many false accepts as false rejects", fit.supported ? null : `not supported: requires ${count(fit.impostors_needed)} comparisons`),
    tile("Measured on", plural(fit.n_classes, "class", "classes"), `${count(fit.n_genuine)} same and ${count(fit.n_impostor)} different pairs`),
    fit.cllr === null ? null : tile("Probabilities", trust(fit.cllr), `Cllr ${number(fit.cllr)}: 0 is perfect, 1 is a guess`),
  );
  const line = scale({ stored: facts.threshold, curve: facts.held_out.curve });

  const rows = [
    ["Encoder", facts.encoder],
    ["Images", `${width} × ${height}, ${channels === 1 ? "gray" : "color"}${facts.image.ink === "none" ? "" : ", ink extracted"}${facts.image.faces === "none" ? "" : ", the largest face, aligned"}`],
    ["Embedding", `${plural(facts.embedding_size, "value")}, compared by ${facts.distance.replace("_", " ")} distance${facts.head ? ", scored by a learned head" : ""}`],
    ["Trained on", facts.data.images ? `${plural(facts.data.images, "image")} of ${plural(facts.classes, "class", "classes")}` : null],
    ["Recipe", facts.recipe.recipe ? `${facts.recipe.recipe}, seed ${facts.recipe.seed ?? 0}` : null],
    ["License of pretrained weights", facts.licence],
    ["Gallery", facts.gallery && (facts.gallery.count === null ? "does not answer" : `${plural(facts.gallery.count, "image")}, ${plural(facts.gallery.labels, "name")}; ${facts.gallery.search === "exact" ? "exact search" : `index search, which finds ${rate(facts.gallery.recall_at_10 ?? 0)} of the ten nearest`}`)],
  ].filter(([, value]) => value);

  const saved = new Blob([facts.card], { type: "text/markdown" });
  place.append(
    h(
      "div",
      { class: "report" },
      h("div", { class: "panel wide" }, h("h2", {}, "What to do next"), h("p", { class: "lead" }, stop(judgement)), h("ol", { class: "notes steps" }, steps.map((words) => h("li", {}, withCommands(stop(words)))))),
      fit && h("div", { class: "panel wide" }, h("h2", {}, facts.name), figures),
      fit && panel("Error rates by threshold", h("p", { class: "note" }, "A higher threshold accepts more different pairs; a lower one rejects more same pairs."), line.element),
      panel("Model", h("table", {}, h("tbody", {}, rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value))))), facts.notes.length ? [h("h2", {}, "Notes"), h("ul", { class: "notes" }, facts.notes.map((words) => h("li", {}, stop(words))))] : [], h("p", {}, h("button", { type: "button", onclick: () => download(saved) }, "Save the model card"))),
    ),
  );
  return {};
}

/** Cost of the probabilities in words. */
function trust(cllr) {
  return cllr < 0.2 ? "informative" : cllr < 0.6 ? "fairly informative" : "little informative";
}

/** A sentence: with a capital letter and a full stop. */
const stop = (words) => words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");

/** Show the commands of a sentence as code, broken between words only. */
function withCommands(words) {
  const unbroken = (word, place) => [place ? " " : "", h("span", { class: "word" }, word)];
  return words.split(/(twinned [a-z]+(?: (?:[A-Z]+|-{1,2}[a-z]+|report\.html))*)/).map((part, place) => (place % 2 ? h("code", {}, part.split(" ").map(unbroken)) : part));
}

function download(blob) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: "model-card.md" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
