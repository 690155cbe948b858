// Chart of distances: the threshold, the distance found, and the error rates at other thresholds.

import { h, number, oneIn, svg } from "./elements.js";

const HEIGHT = { curve: 232, plain: 96 };
const RIGHT = 14;
const LEGEND = [
  ["far", "different pairs accepted as the same"],
  ["frr", "same pairs rejected"],
];

/** Interpolate a curve linearly; xs ascend. */
function at(xs, ys, x) {
  if (x <= xs[0]) return ys[0];
  const right = xs.findIndex((value) => value >= x);
  if (right < 0) return ys.at(-1);
  const left = right - 1;
  const share = xs[right] === xs[left] ? 1 : (x - xs[left]) / (xs[right] - xs[left]);
  return ys[left] + share * (ys[right] - ys[left]);
}

/** Round values from 0 to about `end`, at most five. */
function ticks(end) {
  const rough = end / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough);
  return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, place) => Number((place * step).toPrecision(6)));
}

/**
 * `curve`: {threshold, far, frr} of the held-out comparisons, or null; `stored`: the model's threshold;
 * `moved(threshold)`: called when the slider moves. Without `moved` the threshold is fixed. `zones`
 * names the areas left and right of the threshold.
 */
export function scale({ stored, curve = null, moved = null, zones = ["same", "different"] }) {
  const measured = curve && curve.threshold?.length > 1 ? curve : null;
  const state = { stored, threshold: stored, distance: null, usable: measured };
  const plot = svg("svg", { class: "plot", role: "img" });
  const slider = h("input", { type: "range", min: 0, max: 1000, step: 1, class: "threshold", "aria-label": "Threshold" });
  const trade = h("p", { class: "trade", "aria-live": "off" });
  const reset = h("button", { type: "button", class: "link", hidden: true }, "Back to the model's threshold");
  const key = h("p", { class: "key" }, "Wrong decisions on held-out images: ", LEGEND.map(([rate, words]) => h("span", { class: rate }, h("span", { class: "swatch", "aria-hidden": "true" }), words)));
  const element = h("div", { class: "scale" }, key, plot);
  if (moved) element.append(slider, h("div", { class: "trade-row" }, trade, reset));

  const most = () => {
    const { usable } = state;
    const half = usable ? (usable.threshold[usable.far.findIndex((rate) => rate >= 0.5)] ?? usable.threshold.at(-1)) : 0;
    return Math.max(2.2 * state.stored, half, 1.12 * (state.distance ?? 0), 1e-9);
  };

  function draw() {
    const { usable, threshold, distance } = state;
    if (threshold === null) return;
    const height = usable ? HEIGHT.curve : HEIGHT.plain;
    const left = usable ? 46 : 14;
    const width = Math.max(240, element.clientWidth || 600);
    const end = most();
    const x = (value) => left + (width - left - RIGHT) * Math.min(1, value / end);
    const top = 24;
    const floor = height - 44;
    const y = (rate) => floor - (floor - top) * rate;
    const cut = x(threshold);
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    plot.setAttribute("height", height);
    key.hidden = !usable;
    const line = (kind, x1, y1, x2, y2) => svg("line", { class: kind, x1, y1, x2, y2 });
    const parts = [
      svg("rect", { class: "zone same", x: left, y: top, width: Math.max(0, cut - left), height: floor - top }),
      svg("rect", { class: "zone different", x: cut, y: top, width: Math.max(0, width - RIGHT - cut), height: floor - top }),
    ];
    for (const value of ticks(end)) parts.push(line("axis", x(value), floor, x(value), floor + 5), text(x(value), floor + 18, String(value), "tick", "middle"));
    parts.push(text((left + width - RIGHT) / 2, height - 8, width < 440 ? "distance" : "distance (smaller: more alike)", "tick", "middle"));
    if (usable) {
      for (const rate of [0, 0.5, 1]) parts.push(line("grid-line", left, y(rate), width - RIGHT, y(rate)), text(left - 8, y(rate) + 4, `${100 * rate} %`, "tick", "end"));
      for (const [rate] of LEGEND) {
        const points = usable.threshold.map((value, place) => [value, usable[rate][place]]).filter(([value]) => value <= end);
        points.unshift([0, rate === "far" ? 0 : 1]);
        points.push([end, at(usable.threshold, usable[rate], end)]);
        parts.push(svg("path", { class: `curve ${rate}`, d: "M" + points.map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("L") }));
        parts.push(svg("circle", { class: `on ${rate}`, cx: cut, cy: y(at(usable.threshold, usable[rate], threshold)), r: 4 }));
      }
    }
    parts.push(line("cut", cut, top - 4, cut, floor), line("axis", left, floor, width - RIGHT, floor));
    const marks = [[cut, `threshold ${number(threshold)}`, "mark quiet"]];
    if (distance !== null) {
      const kind = distance <= threshold ? "same" : "different";
      parts.push(line(`marker ${kind}`, x(distance), top, x(distance), floor), svg("circle", { class: `marker-dot ${kind}`, cx: x(distance), cy: floor, r: 7 }));
      marks.unshift([x(distance), `distance ${number(distance)}`, "mark"]);
    }
    parts.push(...spread(marks, left, width - RIGHT, 13));
    // In the axis' row of words, where no curve runs.
    if (cut - left > 70) parts.push(text(left, height - 8, zones[0], "zone-name same", "start"));
    if (width - RIGHT - cut > 90) parts.push(text(width - RIGHT, height - 8, zones[1], "zone-name different", "end"));
    plot.replaceChildren(...parts);
    plot.setAttribute("aria-label", spoken());
    slider.style.marginLeft = `${left - 8}px`;
    slider.style.width = `${width - left - RIGHT + 16}px`;
    slider.value = Math.round((1000 * threshold) / end);
    slider.setAttribute("aria-valuetext", `threshold ${number(threshold)}`);
    reset.hidden = Math.abs(threshold - state.stored) < 1e-12;
    trade.replaceChildren(...traded());
  }

  /** Place labels in one row without overlap. */
  function spread(marks, least, most, y) {
    const placed = marks.map(([where, words, kind]) => {
      const half = 3.4 * words.length;
      return { where, at: Math.min(most - half, Math.max(least + half, where)), half, words, kind };
    });
    if (placed.length === 2) {
      const [left, right] = placed[0].where <= placed[1].where ? placed : [placed[1], placed[0]];
      const over = left.at + left.half + 10 - (right.at - right.half);
      if (over > 0) {
        right.at = Math.min(most - right.half, right.at + over / 2);
        left.at = right.at - right.half - 10 - left.half;
        if (left.at < least + left.half) {
          left.at = least + left.half;
          right.at = left.at + left.half + 10 + right.half;
        }
      }
    }
    return placed.map((one) => text(one.at, y, one.words, one.kind, "middle"));
  }

  function traded() {
    const { usable, threshold } = state;
    if (!usable) return [measured ? "The error rates of several references depend on their number." : "This model has no error rates on held-out images; the slider only moves the line."];
    return [
      "At this threshold ",
      h("strong", { class: "far" }, oneIn(at(usable.threshold, usable.far, threshold))),
      " different pairs would be accepted as the same, ",
      h("strong", { class: "frr" }, oneIn(at(usable.threshold, usable.frr, threshold))),
      " same pairs rejected.",
    ];
  }

  function spoken() {
    const distance = state.distance === null ? "" : `Distance ${number(state.distance)}, `;
    return `${distance}threshold ${number(state.threshold)}; distances up to the threshold mean ${zones[0]}.`;
  }

  slider.addEventListener("input", () => {
    state.threshold = (slider.value / 1000) * most();
    draw();
    moved(state.threshold);
  });
  reset.addEventListener("click", () => {
    state.threshold = state.stored;
    draw();
    moved(state.stored);
    slider.focus();
  });
  new ResizeObserver(draw).observe(element);
  return {
    element,
    /** Show a distance. Another threshold than the model's has no curve, since the curve was not measured for it. */
    set({ distance = state.distance, threshold = state.stored }) {
      if (threshold !== state.stored) Object.assign(state, { stored: threshold, threshold });
      Object.assign(state, { distance, usable: threshold === stored ? measured : null });
      draw();
    },
    get threshold() {
      return state.threshold;
    },
    get isStored() {
      return state.threshold === state.stored;
    },
  };
}

function text(x, y, words, kind, anchor) {
  const node = svg("text", { x, y, class: kind, "text-anchor": anchor });
  node.textContent = words;
  return node;
}
