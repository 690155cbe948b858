// Faces of a photograph, found and cut out by the service.

import { post } from "./api.js";
import { png } from "./elements.js";

/** Return the faces of a photograph, the largest first: {box, width, height, quality, file, url}. */
export async function facesOf(photo) {
  const { width, height, faces } = await post("/v1/faces", { image: photo });
  return faces.map((face) => {
    const file = new File([png(face.crop)], photo.name, { type: "image/png" });
    return { ...face, width, height, file, url: URL.createObjectURL(file) };
  });
}

/** Fields of a request whose images are faces that are cut out already. */
export const cutOut = (facts) => (facts.image.faces === "none" ? {} : { faces: "none" });
