// Enroll images under a name; list, rename and remove enrolled images; undo.

import { get, post, remove } from "./api.js";
import { count, failure, h, icon, plural, settled, spinner } from "./elements.js";
import { cutOut, facesOf } from "./faces.js";
import { face, faceOf, noGallery, temporary } from "./gallery.js";
import { acceptDrops, camera, takePicture, tooLarge } from "./picker.js";

const AT_ONCE = 3;
const PREVIEWS = 60;
const SHOWN = 60;
const FACES = 12; // of one photograph
const NAMELESS = "Enter a name.";
const WORDS = { looking: "looking for faces …", waiting: "waiting", sending: "enrolling …", done: "enrolled", skipped: "already enrolled" };

export function enroll(place, facts, toast) {
  if (!facts.gallery) {
    place.append(noGallery(facts));
    return {};
  }
  const list = people(facts, toast);
  if (facts.read_only) {
    place.append(h("p", { class: "note banner" }, "This service is read-only. You cannot change the gallery."), list.element);
    return { enter: list.load };
  }
  const form = enrollment(facts, list.load);
  place.append(...[temporary(facts), h("div", { class: "two enrolling" }, form.element, list.element)].filter(Boolean));
  return { enter: list.load, paste: (file) => form.add([file]) };
}

function enrollment(facts, done) {
  const name = h("input", { id: "enroll-name", type: "text", maxlength: 200, autocomplete: "off", placeholder: "anna, or A-17", required: true });
  const again = h("button", { type: "button", class: "link again", hidden: true });
  const input = h("input", { type: "file", accept: "image/*", multiple: true, "aria-label": "Images to enroll" });
  const withFaces = facts.image.faces !== "none";
  const invite = h(
    "label",
    { class: "tile many" },
    input,
    h(
      "div",
      { class: "invite" },
      icon("image"),
      h("p", { class: "what" }, withFaces ? "Photographs" : "Images"),
      h("p", { class: "how" }, h("span", { class: "mouse" }, `Drop or paste ${withFaces ? "photographs" : "images"} here, or `), h("span", { class: "linklike" }, "choose files")),
    ),
  );
  const shoot = h("button", { type: "button", class: "shoot", hidden: !camera.offered }, icon("camera"), "Camera");
  const go = h("button", { type: "submit", class: "primary", disabled: true }, "Enroll");
  const clear = h("button", { type: "button", hidden: true }, "Clear");
  const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress" });
  const summary = h("p", { class: "note", role: "status" });
  const queue = h("ul", { class: "queue" });
  const element = h(
    "form",
    { class: "panel", novalidate: true },
    h("label", { class: "field", for: "enroll-name" }, "Name", name),
    again,
    invite,
    h("div", { class: "row" }, go, shoot, clear),
    bar,
    summary,
    queue,
  );
  let entries = [];
  let running = false;

  function refresh() {
    const waiting = entries.filter((entry) => entry.state === "waiting").length;
    const looking = entries.some((entry) => entry.state === "looking");
    go.disabled = running || looking || waiting === 0 || !name.value.trim();
    go.textContent = waiting ? `Enroll ${plural(waiting, withFaces ? "face" : "image")}` : "Enroll";
    clear.hidden = running || entries.length === 0;
    const nameless = waiting > 0 && !name.value.trim();
    if (!running && (nameless || summary.textContent === NAMELESS)) summary.textContent = nameless ? NAMELESS : "";
  }

  function add(files) {
    if (!running && entries.every((entry) => !["waiting", "looking"].includes(entry.state))) reset();
    const added = files.map((file) => {
      const status = h("span", { class: "status" }, WORDS.waiting);
      const small = entries.length < PREVIEWS ? h("img", { alt: "", src: URL.createObjectURL(file) }) : icon("image");
      const shown = h("span", { class: "faces" }, h("span", { class: "face small" }, small));
      const row = h("li", {}, shown, h("span", { class: "name" }, file.name), status);
      const entry = { file, row, status, shown, small, faces: [], chosen: 0, state: "waiting" };
      small.onerror = () => small.replaceWith(icon("image"));
      const large = tooLarge(file, facts.limits);
      if (large) set(entry, "failed", large);
      entries.push(entry);
      queue.append(row);
      return entry;
    });
    refresh();
    if (withFaces) look(added.filter((entry) => entry.state === "waiting"));
  }

  /** Find the faces of photographs; the largest is chosen, a tap chooses another. */
  async function look(found) {
    for (const entry of found) set(entry, "looking");
    refresh();
    for (const entry of found) {
      try {
        entry.faces = await facesOf(entry.file);
        choose(entry, 0);
      } catch (error) {
        set(entry, "failed", withoutName(error, entry));
      }
      refresh();
    }
  }

  function choose(entry, chosen) {
    const { quality } = entry.faces[chosen];
    entry.chosen = chosen;
    entry.shown.replaceChildren(
      ...entry.faces.slice(0, FACES).map((one, place) =>
        h("button", { type: "button", class: "face small", "aria-pressed": String(place === chosen), "aria-label": `Face ${place + 1} of ${entry.file.name}`, onclick: () => entry.state !== "sending" && entry.state !== "done" && choose(entry, place) }, h("img", { alt: "", src: one.url })),
      ),
    );
    set(entry, quality.refused ? "failed" : "waiting", quality.refused ?? `${quality.words.join(", ")}${entry.faces.length > 1 ? `; ${entry.faces.length} faces, tap one` : ""}`);
    entry.row.classList.toggle("doubtful", quality.words[0] !== "sharp");
    refresh();
  }

  function reset() {
    for (const { small } of entries) if (small.src) URL.revokeObjectURL(small.src);
    entries = [];
    queue.replaceChildren();
    bar.hidden = true;
    summary.textContent = "";
    refresh();
  }

  function set(entry, state, words) {
    entry.state = state;
    entry.row.className = state;
    entry.status.textContent = words ?? WORDS[state];
  }

  async function send(entry, label) {
    set(entry, "sending");
    try {
      const found = await post("/v1/gallery", { label, images: entry.faces[entry.chosen]?.file ?? entry.file, ...cutOut(facts) });
      set(entry, found.stored ? "done" : "skipped");
    } catch (error) {
      set(entry, "failed", withoutName(error, entry));
    }
  }

  function withoutName(error, entry) {
    const own = `${entry.file.name}: `.toLowerCase();
    return error.message.toLowerCase().startsWith(own) ? error.message.slice(own.length) : error.message;
  }

  async function enrollAll(event) {
    event.preventDefault();
    const label = name.value.trim();
    const waiting = entries.filter((entry) => entry.state === "waiting");
    if (!label || !waiting.length || running) return;
    running = true;
    name.disabled = true;
    bar.hidden = false;
    bar.max = waiting.length;
    bar.value = 0;
    refresh();
    const left = [...waiting];
    const work = async () => {
      for (let entry = left.shift(); entry; entry = left.shift()) {
        await send(entry, label);
        bar.value += 1;
        summary.textContent = `${count(bar.value)} of ${count(waiting.length)}`;
        entry.row.scrollIntoView({ block: "nearest" });
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    running = false;
    bar.hidden = true;
    const many = (state) => waiting.filter((entry) => entry.state === state).length;
    const parts = [`${plural(many("done"), "image")} enrolled as ${label}`];
    if (many("skipped")) parts.push(`${count(many("skipped"))} already enrolled`);
    if (many("failed")) parts.push(`${count(many("failed"))} not enrolled`);
    // The next images need a name of their own, or a click that says that they belong to this one.
    name.disabled = false;
    name.value = "";
    again.hidden = false;
    again.replaceChildren("More of ", h("bdi", {}, label));
    again.onclick = () => {
      name.value = label;
      again.hidden = true;
      refresh();
    };
    summary.textContent = `${parts.join(", ")}.`;
    refresh();
    done(label);
  }

  element.addEventListener("submit", enrollAll);
  name.addEventListener("input", () => {
    again.hidden = true;
    refresh();
  });
  clear.addEventListener("click", reset);
  input.addEventListener("change", () => {
    add([...input.files]);
    input.value = "";
  });
  shoot.addEventListener("click", async () => {
    const file = await takePicture();
    if (file) add([new File([file], `camera ${entries.length + 1}.jpg`, { type: file.type })]);
  });
  acceptDrops(invite, (files) => add(files));
  return { element, add };
}

function people(facts, toast) {
  const find = h("input", { type: "search", placeholder: "Find a name", "aria-label": "Find a name" });
  const total = h("p", { class: "note" });
  const rows = h("ul", { class: "people" });
  const more = h("button", { type: "button", hidden: true }, "Show more");
  const element = h("div", { class: "panel enrolled" }, h("div", { class: "row head" }, h("h2", {}, "Enrolled"), total), find, rows, more);
  const open = new Set();
  let labels = [];
  let shown = SHOWN;

  async function load(focus) {
    if (!labels.length) rows.replaceChildren(h("li", { class: "plain" }, spinner("Loading …")));
    try {
      const found = await get("/v1/gallery/labels");
      labels = Object.entries(found.labels).sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
      const named = labels.reduce((sum, [, n]) => sum + n, 0);
      const unnamed = found.count - named;
      total.textContent = `${plural(labels.length, "name")}, ${plural(found.count, "image")}${unnamed ? ` (${count(unnamed)} without a name)` : ""}`;
      if (typeof focus === "string") open.add(focus);
      show();
    } catch (error) {
      rows.replaceChildren(h("li", { class: "plain" }, failure(error, load)));
    }
  }

  function show() {
    const wanted = find.value.trim().toLowerCase();
    const passing = labels.filter(([label]) => label.toLowerCase().includes(wanted));
    find.hidden = labels.length < 8;
    rows.replaceChildren(...passing.slice(0, shown).map(([label, n]) => row(label, n)));
    more.hidden = passing.length <= shown;
    more.textContent = `Show more (${count(passing.length - shown)} left)`;
    if (!labels.length) rows.replaceChildren(h("li", { class: "plain" }, h("p", { class: "note" }, facts.read_only ? "No image is enrolled yet." : "No image is enrolled yet. Enter a name and choose images.")));
    else if (!passing.length) rows.replaceChildren(h("li", { class: "plain" }, h("p", { class: "note" }, "No name matches.")));
  }

  function row(label, n) {
    const inside = h("div", { class: "images" });
    const title = h("bdi", { class: "name" }, label);
    const head = h(
      "button",
      { type: "button", class: "open", "aria-expanded": String(open.has(label)) },
      icon("chevron"),
      faceOf(label),
      title,
      h("span", { class: "note" }, plural(n, "image")),
    );
    const item = h("li", {}, h("div", { class: "line" }, head, ...(facts.read_only ? [] : tools(label, n, title))), inside);
    const unfold = () => {
      inside.hidden = !open.has(label);
      head.setAttribute("aria-expanded", String(open.has(label)));
      if (open.has(label) && !inside.childElementCount) images(label, inside);
    };
    head.addEventListener("click", () => {
      if (!open.delete(label)) open.add(label);
      unfold();
    });
    unfold();
    return item;
  }

  function tools(label, n, title) {
    const rename = h("button", { type: "button", class: "icon-button", "aria-label": `Rename ${label}`, title: "Rename" }, icon("pencil"));
    const gone = h("button", { type: "button", class: "icon-button", "aria-label": `Remove ${label}`, title: "Remove" }, icon("trash"));
    rename.addEventListener("click", () => renaming(label, title, rename));
    gone.addEventListener("click", () => taken(`/v1/gallery?label=${encodeURIComponent(label)}`, `${label} (${plural(n, "image")})`, gone));
    return [rename, gone];
  }

  function renaming(label, title, button) {
    const field = h("input", { type: "text", value: label, maxlength: 200, "aria-label": `New name of ${label}`, class: "rename" });
    let over = false;
    const end = async (keep) => {
      if (over) return;
      over = true;
      const wanted = field.value.trim();
      if (keep && wanted && wanted !== label) {
        try {
          const merged = labels.some(([other]) => other === wanted);
          await post("/v1/gallery/rename", { label, new: wanted });
          if (open.delete(label)) open.add(wanted);
          toast(merged ? `${label} was merged into ${wanted}.` : `${label} was renamed to ${wanted}.`);
          return load();
        } catch (error) {
          toast(error.message);
        }
      }
      form.replaceWith(title.parentElement ?? head);
      button.focus();
    };
    const head = title.closest("button");
    const form = h("form", { class: "open" }, field);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      end(true);
    });
    field.addEventListener("keydown", (event) => event.key === "Escape" && end(false));
    field.addEventListener("blur", () => end(true));
    head.replaceWith(form);
    field.focus();
    field.select();
  }

  async function images(label, inside, after = null) {
    if (!after) inside.replaceChildren(spinner("Loading …"));
    const query = new URLSearchParams({ label, limit: 60, ...(after ? { after } : {}) });
    try {
      const page = await get(`/v1/gallery?${query}`);
      if (!after) inside.replaceChildren();
      for (const one of page.items) inside.append(card(one));
      if (page.after) {
        const next = h("button", { type: "button" }, "More");
        next.addEventListener("click", () => {
          next.remove();
          images(label, inside, page.after);
        });
        inside.append(next);
      }
    } catch (error) {
      inside.replaceChildren(failure(error, () => images(label, inside)));
    }
  }

  function card(one) {
    const link = h("a", { href: `#search/${one.id}`, "aria-label": `Search for images similar to this one of ${one.label}` }, face(one.id, one.label));
    if (facts.read_only) return h("figure", { class: "card" }, link);
    const gone = h("button", { type: "button", class: "icon-button", "aria-label": "Remove this image", title: "Remove" }, icon("close"));
    gone.addEventListener("click", () => taken(`/v1/gallery/${one.id}`, "One image", gone));
    return h("figure", { class: "card" }, link, gone);
  }

  async function taken(path, what, button) {
    button.disabled = true;
    try {
      const removed = await remove(path);
      await load();
      toast(`${what} removed.`, "Undo", async () => {
        await post("/v1/gallery/undo", { undo: removed.undo });
        await load();
        toast("Restored.");
      });
    } catch (error) {
      button.disabled = false;
      toast(error.message);
    }
  }

  find.addEventListener("input", settled(() => {
    shown = SHOWN;
    show();
  }));
  more.addEventListener("click", () => {
    shown += 2 * SHOWN;
    show();
  });
  return { element, load };
}
