// Input for one image: dropped, pasted, chosen or taken with the camera.

import { h, icon, megabytes } from "./elements.js";

const NOTHING = "The image cannot be displayed.";
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

/**
 * A tile for one image. `changed(file)` is called with a usable image, or with null when it is removed.
 * Returns {element, file, put(file), fail(sentence)}.
 */
export function picker({ label, limits, changed }) {
  const tile = { file: null };
  const input = h("input", { type: "file", accept: "image/*", "aria-label": `${label}: choose a file` });
  const picture = h("img", { alt: "", hidden: true });
  const unseen = h("p", { class: "unseen", hidden: true });
  const problem = h("p", { class: "error", role: "alert", hidden: true });
  const invite = h(
    "div",
    { class: "invite" },
    icon("image"),
    h("p", { class: "what" }, label),
    h("p", { class: "how" }, h("span", { class: "mouse" }, "Drop it here, paste it, or "), h("span", { class: "linklike" }, "choose a file")),
  );
  const shoot = h("button", { type: "button", class: "shoot", hidden: !camera.offered }, icon("camera"), "Camera");
  const clear = h("button", { type: "button", class: "icon-button clear", "aria-label": `${label}: remove`, hidden: true }, icon("close"));
  const name = h("p", { class: "file-name", hidden: true });
  tile.element = h("div", { class: "tile" }, h("label", { class: "area" }, input, invite, picture, unseen), clear, shoot, name, problem);

  function show(file) {
    if (picture.src) URL.revokeObjectURL(picture.src);
    const there = file !== null;
    tile.element.classList.toggle("filled", there);
    invite.hidden = there;
    clear.hidden = !there;
    name.hidden = !there;
    shoot.hidden = there || !camera.offered;
    picture.hidden = !there;
    unseen.hidden = true;
    if (!there) return picture.removeAttribute("src");
    name.textContent = file.name;
    name.title = file.name;
    picture.alt = file.name;
    picture.src = URL.createObjectURL(file);
  }
  picture.onerror = () => {
    if (!tile.file) return;
    picture.hidden = true;
    unseen.hidden = false;
    unseen.textContent = problem.hidden ? "This browser cannot display the image, but the service may support it." : NOTHING;
  };

  tile.fail = (sentence) => {
    problem.textContent = sentence ?? "";
    problem.hidden = !sentence;
    tile.element.classList.toggle("failed", Boolean(sentence));
    if (sentence) unseen.textContent = NOTHING;
  };
  tile.put = (file) => {
    tile.fail(null);
    const most = limits.body_bytes - 65536;
    if (file && file.size > most) {
      tile.file = null;
      show(null);
      tile.fail(`${file.name} has ${megabytes(file.size)}; the limit is ${megabytes(most)}.`);
      return changed(null);
    }
    tile.file = file;
    show(file);
    changed(file);
  };

  input.addEventListener("change", () => {
    if (input.files.length) tile.put(input.files[0]);
    input.value = "";
  });
  clear.addEventListener("click", () => {
    tile.put(null);
    input.focus();
  });
  shoot.addEventListener("click", async () => {
    const file = await takePicture();
    if (file) tile.put(file);
  });
  acceptDrops(tile.element, (files, came) => {
    if (files.length) tile.put(files[0]);
    else if (came) tile.fail("The file is not an image.");
  });
  return tile;
}
