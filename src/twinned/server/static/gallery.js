// Shared by Identify, Enroll, Search and Map: thumbnails, and messages for a missing or empty gallery.

import { get, thumbnail } from "./api.js";
import { h } from "./elements.js";

// Thumbnails are loaded shortly before they become visible.
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

/** Thumbnail of an enrolled image; without one, the first letter of its label. */
export function face(id, label) {
  const frame = h("span", { class: "face", "data-id": id, "data-letter": [...(label ?? "?")][0].toUpperCase() });
  watcher.observe(frame);
  return frame;
}

/** Thumbnail of a label: that of its first image. */
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
    h("p", {}, "Start the service with a gallery:"),
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
      : h("p", {}, h("a", { class: "button primary", href: "#enroll" }, "Enroll the first images")),
  );
}
