// What Identify, Enrol, Search and Map share: thumbnails, and what to say where there is nothing.

import { get, thumbnail } from "./api.js";
import { h } from "./elements.js";

// A thumbnail is fetched when it is about to be seen.
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      fill(entry.target);
    }
  },
  { rootMargin: "200px" },
);

async function fill(frame) {
  const id = frame.dataset.id ?? (await firstOf(frame.dataset.label));
  const address = id ? await thumbnail(id) : null;
  frame.classList.add("loaded");
  if (!address) return frame.classList.add("none");
  frame.append(h("img", { src: address, alt: "" }));
}

/** A square for an enrolled image; the label's first letter stands in where there is no picture. */
export function face(id, label) {
  const frame = h("span", { class: "face", "data-id": id, "data-letter": [...(label ?? "?")][0].toUpperCase() });
  watcher.observe(frame);
  return frame;
}

/** The same for a label: the first of its images. */
export function faceOf(label) {
  const frame = h("span", { class: "face small", "data-label": label, "data-letter": [...label][0].toUpperCase() });
  watcher.observe(frame);
  return frame;
}

async function firstOf(label) {
  const page = await get(`/v1/gallery?${new URLSearchParams({ label, limit: 1 })}`).catch(() => null);
  return page?.items[0]?.id;
}

export function noGallery() {
  return h(
    "div",
    { class: "nothing" },
    h("p", { class: "lead" }, "This service has no gallery."),
    h("p", {}, "Whoever runs it can start it with one:"),
    h("pre", {}, h("code", {}, "twinned serve MODEL --gallery people.gallery")),
  );
}

export function emptyGallery(readOnly) {
  return h(
    "div",
    { class: "nothing" },
    h("p", { class: "lead" }, "Nothing is enrolled yet."),
    readOnly
      ? h("p", {}, "This service is read-only, so images are enrolled from the command line.")
      : h("p", {}, h("a", { class: "button primary", href: "#enrol" }, "Enrol the first images")),
  );
}
