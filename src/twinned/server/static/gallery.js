// Shared by Identify, Enroll, Search and Map: thumbnails, and views for a missing or empty gallery.

import { get, post, thumbnail } from "./api.js";
import { failure, h } from "./elements.js";

// Thumbnails are loaded shortly before they become visible.
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      fill(entry.target);
    }
  },
  { rootMargin: "400px" },
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

/** View of a service without a gallery, which offers a temporary one. */
export function noGallery(facts) {
  const problem = h("div", {});
  const make = h("button", { type: "button", class: "primary" }, "Make a temporary gallery");
  make.addEventListener("click", async () => {
    make.disabled = true;
    try {
      await post("/v1/gallery/temporary", {});
      document.dispatchEvent(new Event("gallery"));
    } catch (error) {
      make.disabled = false;
      problem.replaceChildren(failure(error));
    }
  });
  const command = h("pre", {}, h("code", {}, `twinned serve ${facts.name} --gallery my.gallery`));
  return h(
    "div",
    { class: "nothing" },
    h("p", { class: "lead" }, "This service has no gallery."),
    h("p", {}, "A gallery holds the images that you enroll, each under a name: a person, a product, a symbol."),
    ...(facts.read_only ? [] : [make, problem, h("p", { class: "note" }, "A temporary gallery is deleted when the service stops. To keep one, start the service with")]),
    ...(facts.read_only ? [h("p", {}, "Start the service with")] : []),
    command,
  );
}

/** Reminder that a gallery is temporary; null for others. */
export function temporary(facts) {
  if (!facts.gallery.temporary) return null;
  return h("p", { class: "note banner" }, "This gallery is temporary: it is deleted when the service stops. To keep one, start with ", h("code", {}, "--gallery my.gallery"), ".");
}

export function emptyGallery(readOnly) {
  return h(
    "div",
    { class: "nothing" },
    h("p", { class: "lead" }, "No image is enrolled yet."),
    readOnly
      ? h("p", {}, "This service is read-only, so images are enrolled from the command line.")
      : h("p", {}, h("a", { class: "button primary", href: "#enroll" }, "Enroll the first images")),
  );
}
