// Create elements. Text always becomes a text node, so names from the gallery are never parsed as markup.

/** h("p", {class: "note", onclick: f}, "text", child, null) */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const ICONS = {
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01",
  camera: "M4 8h3l2-2.5h6L17 8h3v11H4zM12 10a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7z",
  close: "m6 6 12 12M18 6 6 18",
  check: "m5 12.5 4.5 4.5L19 7.5",
  pencil: "m5 19 1-4L16.5 4.5l3 3L9 18z",
  trash: "M5 7h14M9 7V4.5h6V7M7 7l1 12.5h8L17 7",
  plus: "M12 6v12M6 12h12",
  minus: "M6 12h12",
  fit: "M5 9V5h4M19 9V5h-4M5 15v4h4M19 15v4h-4",
  warning: "M12 4 2.5 20h19zM12 10v5M12 17.5h.01",
  chevron: "m9 6 6 6-6 6",
};

export function icon(name) {
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

/** Format a number: 0.0312 for 0.031249998, 1,234 for 1234, and 0 for rounding errors. */
export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) < 1e-6) return "0";
  return value.toLocaleString("en", { minimumSignificantDigits: digits, maximumSignificantDigits: digits });
}
export const count = (value) => value.toLocaleString("en");
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
export const megabytes = (bytes) => `${(bytes / 1024 / 1024).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

/** Format a probability for the start of a sentence, without false precision. */
export function percent(value) {
  if (value > 0.995) return "Over 99 %";
  if (value < 0.005) return "Under 1 %";
  return `${Math.round(100 * value)} %`;
}

/** Format a rate as a ratio: "1 in 200". */
export function oneIn(rate) {
  if (rate <= 0) return "none";
  if (rate >= 0.995) return "all";
  if (rate >= 0.1) return `${Math.round(100 * rate)} in 100`;
  return `1 in ${count(Number((1 / rate).toPrecision(2)))}`;
}

/** Debounce: call the action once no call has come for a moment. */
export function settled(action, wait = 150) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), wait);
  };
}

export function spinner(text) {
  return h("p", { class: "working" }, h("span", { class: "spinner", "aria-hidden": "true" }), text);
}

export function failure(error, again) {
  return h(
    "div",
    { class: "failure", role: "alert" },
    icon("warning"),
    h("p", {}, error.message),
    again ? h("button", { type: "button", onclick: again }, "Try again") : null,
  );
}

/** Decode a PNG in base64. */
export function png(base64) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/png" });
}
