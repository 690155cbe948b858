// Documentation of the HTTP API, rendered from its OpenAPI document.

import { h } from "./elements.js";

const place = document.getElementById("operations");
const theme = localStorage.getItem("twinned-theme");
if (theme) document.documentElement.dataset.theme = theme;

const api = await (await fetch("/openapi.json")).json();
const resolve = (schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").at(-1)] : schema ?? {});

function kind(schema) {
  const found = resolve(schema);
  if (found.anyOf) return found.anyOf.map(kind).filter((one) => one !== "null").join(" or ");
  if (found.type === "array") return `list of ${kind(found.items)}`;
  if (found.format === "binary" || found.format === "byte") return "image";
  return found.title && found.properties ? found.title : found.type ?? "any";
}

function table(caption, rows) {
  if (!rows.length) return null;
  return h("table", {}, h("caption", {}, caption), h("tbody", {}, rows.map(([name, type, words]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, name)), h("td", {}, type), h("td", {}, words ?? "")))));
}

function fields(schema, asked = true) {
  const found = resolve(schema);
  const inner = found.type === "array" ? resolve(found.items) : found;
  const needed = new Set(inner.required ?? []);
  return [...Object.entries(inner.properties ?? {}), ...Object.entries(inner.patternProperties ?? {}).map(([name, value]) => [name.replace(/^\^|\$$/g, "").replace("\\[.+\\]", "[CLASS]"), value])].map(([name, value]) => [
    name,
    kind(value),
    [value.description, asked && needed.has(name) ? "Required." : value.default !== undefined && value.default !== null ? `Default ${JSON.stringify(value.default)}.` : null].filter(Boolean).join(" "),
  ]);
}

function example(method, path, operation) {
  const body = operation.requestBody?.content["multipart/form-data"].schema;
  const parts = [`curl ${location.origin}${path.replace("{id}", "ID")}`];
  if (method !== "get" && !body) parts.push(`-X ${method.toUpperCase()}`);
  if (method === "patch") parts.push("-X PATCH");
  const names = fields(body).filter(([name, type, words]) => /Required/.test(words) || /^images?$/.test(name)).map(([name, type]) => (type.includes("image") ? `-F '${name.replace("CLASS", "anna")}=@photo.jpg'` : `-F ${name}=...`));
  if (method === "patch" && !names.length) names.push(`-F ${fields(body)[0][0]}=...`); // any one of them is valid
  return [...parts, ...new Set(names.filter((one) => !one.includes("'image=") || !names.some((other) => other.includes("'images="))))].join(" ");
}

place.replaceChildren(
  ...Object.entries(api.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => {
      const answer = operation.responses[200]?.content?.["application/json"]?.schema;
      return h(
        "article",
        { class: "panel operation" },
        h("h2", {}, h("span", { class: `method ${method}` }, method.toUpperCase()), h("code", {}, path)),
        h("p", {}, operation.summary ?? ""),
        h("pre", {}, h("code", {}, example(method, path, operation))),
        table("Parameters", (operation.parameters ?? []).map((one) => [one.name, kind(one.schema), one.description ?? (one.required ? "Required." : "")])),
        table("Body", fields(operation.requestBody?.content["multipart/form-data"].schema)),
        table(`Response${resolve(answer).type === "array" ? ": a list of" : ""}`, fields(answer, false)),
      );
    }),
  ),
);
