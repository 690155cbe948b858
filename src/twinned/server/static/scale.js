// Scale of distances: the threshold, the distance found, and the error rates at other thresholds.

import { h, number, oneIn, svg } from "./elements.js";

const HEIGHT = { curve: 168, plain: 64 };
const EDGE = 10;

/** Interpolate a curve linearly; xs ascend. */
function at(xs, ys, x) {
  if (x <= xs[0]) return ys[0];
  const right = xs.findIndex((value) => value >= x);
  if (right < 0) return ys.at(-1);
  const left = right - 1;
  const share = xs[right] === xs[left] ? 1 : (x - xs[left]) / (xs[right] - xs[left]);
  return ys[left] + share * (ys[right] - ys[left]);
}

/**
 * `curve`: {threshold, far, frr} of the held-out comparisons, or null; `stored`: the model's threshold;
 * `moved(threshold)`: called when the slider moves. Without `moved` the threshold is fixed. `zones`
 * names the areas left and right of the threshold.
 */
export function scale({ stored, curve = null, moved = null, zones = ["same", "different"] }) {
  const state = { threshold: stored, distance: null };
  const usable = curve && curve.threshold?.length > 1 ? curve : null;
  const height = usable ? HEIGHT.curve : HEIGHT.plain;
  const plot = svg("svg", { class: "plot", role: "img" });
  const slider = h("input", { type: "range", min: 0, max: 1000, step: 1, class: "threshold", "aria-label": "Threshold" });
  const trade = h("p", { class: "trade", "aria-live": "off" });
  const reset = h("button", { type: "button", class: "link", hidden: true }, "Back to the model's threshold");
  const element = h("div", { class: `scale${usable ? " with-curve" : ""}` }, plot);
  if (moved) element.append(slider, h("div", { class: "trade-row" }, trade, reset));

  const most = () => {
    const half = usable ? (usable.threshold[usable.far.findIndex((rate) => rate >= 0.5)] ?? usable.threshold.at(-1)) : 0;
    return Math.max(2.2 * stored, half, 1.12 * (state.distance ?? 0), 1e-9);
  };

  function draw() {
    const width = Math.max(240, element.clientWidth || 600);
    const end = most();
    const x = (value) => EDGE + (width - 2 * EDGE) * Math.min(1, value / end);
    const top = 22;
    const floor = height - 24;
    const y = (rate) => floor - (floor - top) * rate;
    const cut = x(state.threshold);
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    plot.setAttribute("height", height);
    const parts = [
      svg("rect", { class: "zone same", x: EDGE, y: top, width: Math.max(0, cut - EDGE), height: floor - top }),
      svg("rect", { class: "zone different", x: cut, y: top, width: Math.max(0, width - EDGE - cut), height: floor - top }),
    ];
    if (usable) {
      for (const rate of ["far", "frr"]) {
        const line = usable.threshold.map((value, place) => [value, usable[rate][place]]).filter(([value]) => value <= end);
        line.unshift([0, rate === "far" ? 0 : 1]);
        line.push([end, at(usable.threshold, usable[rate], end)]);
        parts.push(svg("path", { class: `curve ${rate}`, d: "M" + line.map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("L") }));
        parts.push(svg("circle", { class: `on ${rate}`, cx: cut, cy: y(at(usable.threshold, usable[rate], state.threshold)), r: 4 }));
      }
    }
    const roomLeft = cut - EDGE > 60;
    const roomRight = width - EDGE - cut > 80;
    if (roomLeft) parts.push(text(cut - 8, 15, zones[0], "zone-name same", "end"));
    if (roomRight) parts.push(text(cut + 8, 15, zones[1], "zone-name different", "start"));
    parts.push(svg("line", { class: "cut", x1: cut, x2: cut, y1: 2, y2: floor }));
    parts.push(svg("line", { class: "axis", x1: EDGE, x2: width - EDGE, y1: floor, y2: floor }));
    const marks = [];
    if (state.distance !== null) {
      const here = x(state.distance);
      const kind = state.distance <= state.threshold ? "same" : "different";
      parts.push(svg("line", { class: `marker ${kind}`, x1: here, x2: here, y1: top, y2: floor }));
      parts.push(svg("circle", { class: `marker-dot ${kind}`, cx: here, cy: floor, r: 7 }));
      marks.push([here, `distance ${number(state.distance)}`, "mark"]);
    }
    if (usable) {
      // Each name is placed on the concave side of its curve, where the curves are far from each other.
      const room = 86; // pixels of a name
      const reaches = (rate, height) => {
        const place = usable[rate].findIndex((value) => (rate === "far" ? value >= height : value <= height));
        const where = Math.min(end, usable.threshold[place] ?? end);
        return [x(where), y(at(usable.threshold, usable[rate], where)) - 4];
      };
      const [left, high] = reaches("frr", 0.75);
      let [right, low] = reaches("far", 0.75);
      if (right - left < 2 * room + 32) [right, low] = reaches("far", 0.4);
      parts.push(text(Math.min(width - EDGE - room, left + 8), high, "false rejects", "curve-name frr", "start"));
      parts.push(text(Math.max(EDGE + room, right - 8), low, "false accepts", "curve-name far", "end"));
    }
    marks.push([cut, `threshold ${number(state.threshold)}`, "mark quiet"]);
    parts.push(...spread(marks, width, floor + 18));
    plot.replaceChildren(...parts);
    plot.setAttribute("aria-label", spoken());
    slider.value = Math.round((1000 * state.threshold) / end);
    slider.setAttribute("aria-valuetext", `threshold ${number(state.threshold)}`);
    reset.hidden = Math.abs(state.threshold - stored) < 1e-12;
    trade.replaceChildren(...traded());
  }

  /** Place two labels under the axis without overlap. */
  function spread(marks, width, y) {
    const placed = marks.map(([where, words, kind]) => {
      const half = 3.5 * words.length;
      return { at: Math.min(width - EDGE - half, Math.max(EDGE + half, where)), half, words, kind };
    });
    if (placed.length === 2) {
      const [left, right] = placed[0].at <= placed[1].at ? placed : [placed[1], placed[0]];
      const over = left.at + left.half + 10 - (right.at - right.half);
      if (over > 0) {
        right.at = Math.min(width - EDGE - right.half, right.at + over / 2);
        left.at = right.at - right.half - 10 - left.half;
        if (left.at < EDGE + left.half) {
          left.at = EDGE + left.half;
          right.at = left.at + left.half + 10 + right.half;
        }
      }
    }
    return placed.map((one) => text(one.at, y, one.words, one.kind, "middle"));
  }

  function traded() {
    if (!usable) return ["This model has no error rates on held-out images; the slider only moves the line."];
    const far = at(usable.threshold, usable.far, state.threshold);
    const frr = at(usable.threshold, usable.frr, state.threshold);
    return [
      "On held-out images ",
      h("strong", { class: "far" }, oneIn(far)),
      " different pairs would be accepted as the same, ",
      h("strong", { class: "frr" }, oneIn(frr)),
      " matching pairs would be rejected.",
    ];
  }

  function spoken() {
    const distance = state.distance === null ? "" : `Distance ${number(state.distance)}, `;
    return `${distance}threshold ${number(state.threshold)}; distances up to the threshold mean the same.`;
  }

  slider.addEventListener("input", () => {
    state.threshold = (slider.value / 1000) * most();
    draw();
    moved(state.threshold);
  });
  reset.addEventListener("click", () => {
    state.threshold = stored;
    draw();
    moved(stored);
    slider.focus();
  });
  new ResizeObserver(draw).observe(element);
  return {
    element,
    set({ distance = state.distance, threshold = state.threshold }) {
      Object.assign(state, { distance, threshold });
      draw();
    },
    get threshold() {
      return state.threshold;
    },
  };
}

function text(x, y, words, kind, anchor) {
  const node = svg("text", { x, y, class: kind, "text-anchor": anchor });
  node.textContent = words;
  return node;
}
