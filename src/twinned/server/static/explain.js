// Explanation of a comparison: the regions of both images that match, drawn over them.

import { post } from "./api.js";
import { failure, h, png, spinner, svg } from "./elements.js";

/** A button, and what it opens. `fields()` returns the fields of the request. */
export function explanation(fields) {
  const button = h("button", { type: "button", hidden: true }, "Explain");
  const shown = h("div", { class: "explained", "aria-live": "polite" });
  let round = 0;

  async function ask() {
    round += 1;
    const mine = round;
    button.hidden = true;
    shown.replaceChildren(spinner("Covering each region in turn …"));
    try {
      const found = await post("/v1/explain", fields());
      if (mine === round) draw(found);
    } catch (error) {
      if (mine === round) shown.replaceChildren(failure(error, ask));
    }
  }

  function draw(found) {
    const [left, right] = found.images;
    const gap = 0.16 * left.width;
    const most = Math.max(...[left, right].flatMap(({ share }) => share.flat().map(Math.abs))) || 1;
    const picture = svg("svg", { viewBox: `0 0 ${left.width + gap + right.width} ${Math.max(left.height, right.height)}`, class: `matches${found.weak ? " weak" : ""}`, role: "img", "aria-label": found.text });
    for (const [image, x] of [[left, 0], [right, left.width + gap]]) {
      const { width, height, share } = image;
      picture.append(svg("image", { href: URL.createObjectURL(png(image.png)), x, y: 0, width, height }));
      const [down, across] = [height / share.length, width / share[0].length];
      share.forEach((row, r) =>
        row.forEach((value, c) => picture.append(svg("rect", { class: value > 0 ? "for" : "against", x: x + c * across, y: r * down, width: across, height: down, "fill-opacity": (0.6 * Math.abs(value)) / most }))),
      );
    }
    const center = ({ width, height, share }, [r, c]) => [((c + 0.5) * width) / share[0].length, ((r + 0.5) * height) / share.length];
    const strongest = Math.max(...found.links.map((link) => link.match), 1e-12);
    for (const link of found.links) {
      const [x1, y1] = center(left, link.left);
      const [x2, y2] = center(right, link.right);
      picture.append(svg("line", { x1, y1, x2: x2 + left.width + gap, y2, "stroke-opacity": 0.25 + (0.75 * link.match) / strongest }));
    }
    shown.replaceChildren(picture, h("p", { class: "key" }, h("span", { class: "for" }, h("span", { class: "swatch" }), "speaks for the same"), h("span", { class: "against" }, h("span", { class: "swatch" }), "speaks against")), h("p", { class: "note" }, found.text));
  }

  button.addEventListener("click", ask);
  return {
    element: h("div", { class: "why" }, button, shown),
    /** Forget the explanation; offer one if there are two images. */
    reset(offered) {
      round += 1;
      for (const image of shown.querySelectorAll("image")) URL.revokeObjectURL(image.getAttribute("href"));
      button.hidden = !offered;
      shown.replaceChildren();
    },
  };
}
