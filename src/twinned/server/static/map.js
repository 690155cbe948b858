// Map of the gallery: each enrolled image is a thumbnail or a dot; similar images are close.

import { get, thumbnail } from "./api.js";
import { count, failure, h, icon, plural, settled, spinner } from "./elements.js";
import { emptyGallery, noGallery, temporary } from "./gallery.js";

const LEGEND = 14;
const REACH = 20; // pixels around the pointer
const SIDE = 34; // pixels of a thumbnail on the map
const PICTURES = 120; // thumbnails at once
const BLURB = {
  pca: "The two directions of largest variance. Immediate.",
  tsne: "Preserves neighborhoods; distances between groups have no meaning. Takes a while.",
};

export function map(place, facts) {
  if (!facts.gallery) {
    place.append(noGallery(facts));
    return {};
  }
  const notice = temporary(facts);
  if (notice) place.append(notice);
  const chart = drawn(place, facts);
  return { enter: () => chart.load() };
}

/** Hues that are far from each other for consecutive labels. */
const hue = (place) => (place * 137.508 + 175) % 360;

function drawn(place, facts) {
  const canvas = h("canvas", { tabindex: 0, role: "application", "aria-label": "Map of the gallery. Arrow keys move, plus and minus zoom, 0 shows all, Enter opens the image in the middle." });
  const tip = h("div", { class: "tip", hidden: true });
  const frame = h("div", { class: "canvas" }, canvas, tip);
  const method = h(
    "div",
    { class: "segments", role: "radiogroup", "aria-label": "Method" },
    [["pca", "PCA"], ["tsne", "t-SNE"]].map(([value, words]) =>
      h("label", {}, h("input", { type: "radio", name: "method", value, checked: value === "pca", onchange: () => load() }), h("span", {}, words)),
    ),
  );
  const find = h("input", { type: "search", placeholder: "Find a name", "aria-label": "Find a name on the map" });
  const button = (name, label, action) => h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick: action }, icon(name));
  const zoomers = h("div", { class: "zoomers" }, button("plus", "Zoom in", () => zoom(1.5)), button("minus", "Zoom out", () => zoom(1 / 1.5)), button("fit", "Show all", () => fit()));
  frame.append(zoomers);
  const said = h("div", { class: "map-state", "aria-live": "polite" });
  const legend = h("ul", { class: "legend" });
  const blurb = h("p", { class: "note" });
  const body = h("div", {}, h("div", { class: "row bar" }, method, find, blurb), said, frame, legend);
  const empty = emptyGallery(facts.read_only);
  empty.hidden = true; // until the count is known
  place.append(empty, body);

  let data = null;
  let view = { x: 0, y: 0, scale: 1 };
  let sizes = [];
  let chosen = null; // label index
  let under = -1;
  let waiting = 0;

  async function load() {
    const wanted = method.querySelector("input:checked").value;
    blurb.textContent = BLURB[wanted];
    clearTimeout(waiting);
    if (!data) said.replaceChildren(spinner("Drawing the map …"));
    try {
      const found = await get(`/v1/gallery/map?method=${wanted}`);
      if (method.querySelector("input:checked").value !== wanted) return;
      empty.hidden = found.ready ? found.count > 0 : true;
      body.hidden = found.ready && found.count === 0;
      if (!found.ready) waiting = setTimeout(load, 2000);
      if (found.ids.length || found.ready) take(found);
      const part = found.ids.length < found.count ? `A random sample of ${count(found.ids.length)} of ${plural(found.count, "image")}.` : "";
      said.replaceChildren(...(found.ready ? (part ? [h("p", { class: "note" }, part)] : []) : [spinner("Computing t-SNE; this may take a minute or two …")]));
    } catch (error) {
      said.replaceChildren(failure(error, load));
    }
  }

  function take(found) {
    const fresh = !data || data.method !== found.method || data.ids.length !== found.ids.length;
    data = found;
    sizes = new Array(found.labels.length).fill(0);
    for (const label of found.label) if (label >= 0) sizes[label] += 1;
    data.groups = found.labels.map(() => []);
    data.groups.push([]); // without a label
    found.label.forEach((label, point) => data.groups[label < 0 ? found.labels.length : label].push(point));
    chosen = null;
    showLegend();
    if (fresh) fit();
    else draw();
  }

  function fit() {
    if (!data?.ids.length) return;
    const [left, right] = ends(data.x);
    const [top, bottom] = ends(data.y);
    const { width, height } = size();
    const scale = Math.min((width - 60) / (right - left || 1), (height - 60) / (bottom - top || 1));
    view = { scale, x: width / 2 - (scale * (left + right)) / 2, y: height / 2 + (scale * (top + bottom)) / 2 };
    draw();
  }

  const size = () => ({ width: canvas.clientWidth || 800, height: canvas.clientHeight || 500 });
  const screen = (point) => [view.x + view.scale * data.x[point], view.y - view.scale * data.y[point]];

  function zoom(factor, at = null) {
    const { width, height } = size();
    const [x, y] = at ?? [width / 2, height / 2];
    view = { scale: view.scale * factor, x: x - (x - view.x) * factor, y: y - (y - view.y) * factor };
    draw();
  }
  function pan(dx, dy) {
    view.x += dx;
    view.y += dy;
    draw();
  }

  let asked = 0;
  function draw() {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(paint);
  }

  function paint() {
    if (!data) return;
    const { width, height } = size();
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const light = style.getPropertyValue("--dot-light").trim();
    const radius = data.ids.length > 4000 ? 2.2 : data.ids.length > 800 ? 3 : 4.5;
    const group = (label, color, grown = 0) => {
      pen.fillStyle = color;
      pen.beginPath();
      for (const point of data.groups[label]) {
        const [x, y] = screen(point);
        if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
        pen.moveTo(x + radius + grown, y);
        pen.arc(x, y, radius + grown, 0, 7);
      }
      pen.fill();
    };
    const gray = style.getPropertyValue("--dot-gray").trim();
    for (let label = data.groups.length - 1; label >= 0; label -= 1) {
      const plain = label === data.labels.length || (chosen !== null && chosen !== label);
      group(label, plain ? gray : `hsl(${hue(label)} 55% ${light})`);
    }
    if (chosen !== null) group(chosen, `hsl(${hue(chosen)} 65% ${light})`, 1.5);
    const roomy = uncrowded(width, height);
    fetchPictures(roomy);
    const drawn = roomy.filter((point) => pictures.get(data.ids[point]));
    for (const point of drawn) {
      const [x, y] = screen(point);
      const picture = pictures.get(data.ids[point]);
      const label = data.label[point];
      pen.fillStyle = label < 0 ? gray : `hsl(${hue(label)} 55% ${light})`;
      pen.fillRect(x - SIDE / 2 - 2.5, y - SIDE / 2 - 2.5, SIDE + 5, SIDE + 5);
      const { naturalWidth: wide, naturalHeight: high } = picture;
      const least = Math.min(wide, high);
      pen.drawImage(picture, (wide - least) / 2, (high - least) / 2, least, least, x - SIDE / 2, y - SIDE / 2, SIDE, SIDE);
    }
    if (under >= 0 && under < data.ids.length) {
      const [x, y] = screen(under);
      pen.strokeStyle = style.color;
      pen.lineWidth = 2;
      pen.beginPath();
      if (drawn.includes(under)) pen.rect(x - SIDE / 2 - 4, y - SIDE / 2 - 4, SIDE + 8, SIDE + 8);
      else pen.arc(x, y, radius + 4, 0, 7);
      pen.stroke();
    }
  }

  /** The first points in view whose thumbnails do not overlap; the others stay dots. */
  function uncrowded(width, height) {
    const free = [];
    const taken = new Map();
    const cell = (value) => Math.floor(value / (SIDE + 6));
    for (let point = 0; point < data.ids.length && free.length < PICTURES; point += 1) {
      if (chosen !== null && data.label[point] !== chosen) continue;
      const [x, y] = screen(point);
      if (x < 0 || y < 0 || x > width || y > height) continue;
      let clear = true;
      for (let column = cell(x) - 1; clear && column <= cell(x) + 1; column += 1)
        for (let row = cell(y) - 1; clear && row <= cell(y) + 1; row += 1)
          clear = (taken.get(`${column},${row}`) ?? []).every(([a, b]) => Math.max(Math.abs(a - x), Math.abs(b - y)) >= SIDE + 6);
      if (!clear) continue;
      const key = `${cell(x)},${cell(y)}`;
      taken.set(key, [...(taken.get(key) ?? []), [x, y]]);
      free.push(point);
    }
    return free;
  }

  const pictures = new Map(); // id to an image element; null while it loads and if there is none
  const fetchPictures = settled((points) => {
    for (const id of points.map((point) => data.ids[point])) {
      if (pictures.has(id)) continue;
      pictures.set(id, null);
      thumbnail(id).then((address) => {
        if (!address) return;
        const picture = new Image();
        picture.onload = () => {
          pictures.set(id, picture);
          draw();
        };
        picture.src = address;
      });
    }
  });

  function nearest(x, y, reach) {
    let best = -1;
    let least = reach * reach;
    for (let point = 0; point < data.ids.length; point += 1) {
      if (chosen !== null && data.label[point] !== chosen) continue;
      const [a, b] = screen(point);
      const squared = (a - x) ** 2 + (b - y) ** 2;
      if (squared < least) [best, least] = [point, squared];
    }
    return best;
  }

  async function point(at) {
    if (at === under) return;
    under = at;
    draw();
    tip.hidden = at < 0;
    canvas.style.cursor = at < 0 ? "grab" : "pointer";
    if (at < 0) return;
    const id = data.ids[at];
    const label = data.label[at] < 0 ? "no name" : data.labels[data.label[at]];
    tip.replaceChildren(h("span", { class: "face loaded none", "data-letter": [...label][0].toUpperCase() }), h("bdi", {}, label));
    const [x, y] = screen(at);
    const { width } = size();
    tip.style.left = `${Math.min(width - 70, Math.max(70, x))}px`;
    tip.style.top = `${y < 190 ? y + 16 : y - 16}px`;
    tip.classList.toggle("below", y < 190);
    const address = await thumbnail(id);
    if (under === at && address) tip.firstChild.replaceWith(h("span", { class: "face loaded" }, h("img", { src: address, alt: "" })));
  }

  function showLegend() {
    const order = sizes.map((n, label) => [n, label]).sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    const wanted = find.value.trim().toLowerCase();
    const passing = wanted ? order.filter(([, label]) => data.labels[label].toLowerCase().includes(wanted)) : order;
    if (wanted && passing.length) chosen = passing[0][1];
    else if (wanted) chosen = null;
    const light = "var(--dot-light)";
    legend.replaceChildren(
      ...passing.slice(0, LEGEND).map(([n, label]) => {
        const dot = h("span", { class: "dot" });
        dot.style.background = `hsl(${hue(label)} 55% ${light})`;
        return h(
          "li",
          {},
          h("button", { type: "button", "aria-pressed": String(chosen === label), onclick: () => choose(label) }, dot, h("bdi", {}, data.labels[label]), h("span", { class: "note" }, count(n))),
        );
      }),
      ...(passing.length > LEGEND ? [h("li", { class: "note" }, `and ${count(passing.length - LEGEND)} more`)] : []),
      ...(wanted && !passing.length ? [h("li", { class: "note" }, "No name matches.")] : []),
    );
    draw();
  }

  function choose(label) {
    find.value = "";
    chosen = chosen === label ? null : label;
    showLegend();
  }

  find.addEventListener("input", settled(() => {
    chosen = null;
    if (data) showLegend();
  }));

  // One finger or the mouse pans, two fingers or the wheel zoom; a tap previews an image, a second tap opens it.
  const fingers = new Map();
  let moved = false;
  const place_of = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place_of(event));
    moved = false;
  });
  canvas.addEventListener("pointermove", (event) => {
    const here = place_of(event);
    const before = fingers.get(event.pointerId);
    if (!before) return void (data && event.pointerType === "mouse" && point(nearest(...here, REACH)));
    const [dx, dy] = [here[0] - before[0], here[1] - before[1]];
    if (Math.hypot(dx, dy) < 3 && !moved) return;
    moved = true;
    point(-1);
    if (fingers.size === 2) {
      const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      zoom(Math.hypot(here[0] - other[0], here[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), other);
    } else pan(dx, dy);
    fingers.set(event.pointerId, here);
  });
  const lift = (event) => {
    if (!fingers.delete(event.pointerId) || moved || !data || event.type === "pointercancel") return;
    const at = nearest(...place_of(event), event.pointerType === "mouse" ? REACH : 2 * REACH);
    if (at >= 0 && (event.pointerType === "mouse" || at === under)) location.hash = `#search/${data.ids[at]}`;
    else point(at);
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", () => fingers.size || point(-1));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    point(-1);
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), place_of(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(2, place_of(event)));
  canvas.addEventListener("keydown", (event) => {
    const step = 60;
    const act = {
      ArrowLeft: () => pan(step, 0),
      ArrowRight: () => pan(-step, 0),
      ArrowUp: () => pan(0, step),
      ArrowDown: () => pan(0, -step),
      "+": () => zoom(1.5),
      "=": () => zoom(1.5),
      "-": () => zoom(1 / 1.5),
      0: () => fit(),
      Enter: () => under >= 0 && (location.hash = `#search/${data.ids[under]}`),
      Escape: () => point(-1),
    }[event.key];
    if (!act || !data) return;
    event.preventDefault();
    act();
    if (event.key === "Enter" || event.key === "Escape") return;
    const { width, height } = size();
    under = -1;
    point(nearest(width / 2, height / 2, width));
  });
  new ResizeObserver(() => (data ? draw() : null)).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("theme", draw);
  return { load };
}

function ends(values) {
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [least, most];
}
