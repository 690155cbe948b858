// Input for one image or several: dropped, pasted, chosen or taken with the camera; with a choice of faces.

import { facesOf } from "./faces.js";
import { h, icon, megabytes, plural, spinner } from "./elements.js";

const NOTHING = "The image cannot be displayed.";
const BODY_MARGIN = 65536; // bytes of a request besides the image
export const camera = { offered: Boolean(navigator.mediaDevices?.getUserMedia) };

/** Open the camera; resolve to a File, or to null if canceled. */
export async function takePicture() {
  const dialog = document.getElementById("camera-dialog");
  const video = document.getElementById("camera-video");
  const problem = document.getElementById("camera-error");
  const take = document.getElementById("camera-take");
  problem.hidden = true;
  take.disabled = true;
  dialog.showModal();
  let stream = null;
  const closed = new Promise((done) => dialog.addEventListener("close", () => done(null), { once: true }));
  const taken = new Promise((done) => {
    take.onclick = () => {
      const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => done(new File([blob], "camera.jpg", { type: "image/jpeg" })), "image/jpeg", 0.92);
    };
  });
  document.getElementById("camera-cancel").onclick = () => dialog.close();
  navigator.mediaDevices
    .getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "user" } })
    .then((opened) => {
      stream = opened;
      if (!dialog.open) return stop(stream);
      video.srcObject = stream;
      video.onloadeddata = () => (take.disabled = false);
    })
    .catch((error) => {
      problem.textContent =
        error.name === "NotAllowedError" ? "The browser is not allowed to use the camera." : "No camera was found.";
      problem.hidden = false;
    });
  const file = await Promise.race([taken, closed]);
  stop(stream);
  video.srcObject = null;
  if (dialog.open) dialog.close();
  return file;
}

const stop = (stream) => stream?.getTracks().forEach((track) => track.stop());

/** Return the images of a drop or a paste. */
export function imagesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/") || /\.(tiff?|bmp|avif|webp)$/i.test(file.name));
}

/** Accept files dropped on an element. */
export function acceptDrops(element, take) {
  let depth = 0;
  element.addEventListener("dragenter", (event) => {
    event.preventDefault();
    depth += 1;
    element.classList.add("over");
  });
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("dragleave", () => {
    depth -= 1;
    if (depth <= 0) element.classList.remove("over");
  });
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    element.classList.remove("over");
    take(imagesOf(event.dataTransfer), event.dataTransfer.files.length);
  });
}

/** Return why a file cannot be sent, or null. */
export function tooLarge(file, limits) {
  const most = limits.body_bytes - BODY_MARGIN;
  return file.size > most ? `has ${megabytes(file.size)}; the limit is ${megabytes(most)}` : null;
}

/**
 * A tile for an image, or with `many` for several. `changed()` is called when the images to send have changed.
 * For a model that looks for faces, `images` are the chosen faces, cut out by the service.
 */
export function picker({ label, facts, changed, many = false, hint = null }) {
  let items = []; // {file, url, faces, chosen}
  let round = 0;
  const input = h("input", { type: "file", accept: "image/*", multiple: many, "aria-label": `${label}: choose a file` });
  const view = h("div", { class: "view" });
  const invite = h(
    "div",
    { class: "invite" },
    icon("image"),
    h("p", { class: "what" }, label),
    h("p", { class: "how" }, h("span", { class: "mouse" }, "Drop it here, paste it, or "), h("span", { class: "linklike" }, many ? "choose files" : "choose a file")),
    hint ? h("p", { class: "note" }, hint) : null,
  );
  const shoot = h("button", { type: "button", class: "shoot", hidden: !camera.offered }, icon("camera"), "Camera");
  const name = h("p", { class: "file-name" });
  const more = h("button", { type: "button", class: "link", "aria-label": `${label}: add more`, title: "Add more images of the same class" }, "Add");
  const clear = h("button", { type: "button", class: "icon-button clear", "aria-label": `${label}: remove`, title: "Remove" }, icon("close"));
  const foot = h("div", { class: "tile-foot", hidden: true }, name, many ? more : null, clear);
  const problem = h("p", { class: "error", role: "alert", hidden: true });
  const element = h("div", { class: "tile" }, h("label", { class: "area" }, input, invite, view), shoot, foot, problem);

  function fail(sentence) {
    problem.textContent = sentence ?? "";
    problem.hidden = !sentence;
    element.classList.toggle("failed", Boolean(sentence));
    for (const unseen of view.querySelectorAll(".unseen")) unseen.textContent = NOTHING;
  }

  async function put(files, { add = false } = {}) {
    round += 1;
    const mine = round;
    fail(null);
    const large = files.find((file) => tooLarge(file, facts.limits));
    if (!add || large) items.forEach(({ url }) => URL.revokeObjectURL(url));
    items = large ? [] : [...(add ? items : []), ...files.map((file) => ({ file, url: URL.createObjectURL(file), faces: null, chosen: 0 }))];
    show();
    if (large) fail(`${large.name} ${tooLarge(large, facts.limits)}.`);
    if (items.length && facts.image.faces !== "none") {
      view.append(spinner("Looking for faces …"));
      try {
        for (const item of items) item.faces ??= await facesOf(item.file);
      } catch (error) {
        if (mine !== round) return;
        show();
        fail(error.message);
        items = [];
        return changed();
      }
      if (mine !== round) return;
      show();
    }
    changed();
  }

  function show() {
    element.classList.toggle("filled", items.length > 0);
    element.classList.toggle("with-faces", items.some((item) => item.faces));
    invite.hidden = items.length > 0;
    foot.hidden = items.length === 0;
    shoot.hidden = items.length > 0 || !camera.offered;
    view.classList.toggle("several", items.length > 1);
    view.replaceChildren(...items.map(items.length > 1 ? thumb : whole));
    name.textContent = items.length > 1 ? plural(items.length, "image") : (items[0]?.file.name ?? "");
    name.title = items.map(({ file }) => file.name).join(", ");
  }

  function picture(item, source = item.url) {
    const image = h("img", { alt: item.file.name, src: source });
    image.onerror = () => image.replaceWith(h("p", { class: "unseen" }, problem.hidden ? "This browser cannot display the image, but the service may support it." : NOTHING));
    return image;
  }

  function thumb(item) {
    const gone = h("button", { type: "button", class: "icon-button", "aria-label": `Remove ${item.file.name}`, title: "Remove" }, icon("close"));
    gone.addEventListener("click", () => {
      URL.revokeObjectURL(item.url);
      items = items.filter((other) => other !== item);
      show();
      changed();
    });
    return h("span", { class: "reference" }, picture(item, item.faces?.[item.chosen].url), gone);
  }

  function whole(item) {
    const frame = h("span", { class: "photo" }, picture(item));
    for (const [place, face] of (item.faces ?? []).entries()) {
      const button = h("button", { type: "button", class: "face-box", "aria-label": `Face ${place + 1} of ${item.faces.length}`, "aria-pressed": String(place === item.chosen) }, h("span", { class: "tag" }));
      face.button = button;
      button.addEventListener("click", () => choose(place));
      frame.append(button);
    }
    if (item.faces) new ResizeObserver(() => lay(frame, item.faces)).observe(frame);
    return frame;
  }

  /** Choose a face of the only image. */
  function choose(place) {
    items[0].chosen = place;
    items[0].faces.forEach(({ button }, other) => button.setAttribute("aria-pressed", String(other === place)));
    changed();
  }

  /** Lay the boxes over the image, which keeps its proportions inside of the frame. */
  function lay({ clientWidth, clientHeight }, faces) {
    for (const { button, box, width, height } of faces) {
      const scale = Math.min(clientWidth / width, clientHeight / height);
      const [x, y] = [(clientWidth - scale * width) / 2, (clientHeight - scale * height) / 2];
      const [left, top, right, bottom] = [Math.max(0, box[0]), Math.max(0, box[1]), Math.min(width, box[2]), Math.min(height, box[3])];
      Object.assign(button.style, { left: `${x + scale * left}px`, top: `${y + scale * top}px`, width: `${scale * (right - left)}px`, height: `${scale * (bottom - top)}px` });
    }
  }

  input.addEventListener("change", () => {
    if (input.files.length) put([...input.files], { add: adding });
    adding = false;
    input.value = "";
  });
  let adding = false;
  more.addEventListener("click", () => {
    adding = true;
    input.click();
  });
  input.addEventListener("cancel", () => (adding = false));
  clear.addEventListener("click", () => {
    put([]);
    input.focus();
  });
  shoot.addEventListener("click", async () => {
    const file = await takePicture();
    if (file) put([file]);
  });
  acceptDrops(element, (files, came) => {
    if (files.length) put(many ? files : files.slice(0, 1), { add: many && items.length > 0 });
    else if (came) fail("The file is not an image.");
  });
  return {
    element,
    put,
    fail,
    choose,
    /** The image files to send; of a photograph the chosen face. */
    get images() {
      return items.map((item) => item.faces?.[item.chosen].file ?? item.file);
    },
    /** The faces of the only image; empty for other models. */
    get faces() {
      return items.length === 1 ? (items[0].faces ?? []) : [];
    },
    get chosen() {
      return items.length === 1 ? items[0].chosen : 0;
    },
    get names() {
      return items.map(({ file }) => file.name);
    },
  };
}
