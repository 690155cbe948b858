// Requests to the service. Every failure becomes an Error with the service's message.

const KEY = "twinned-token";
let token = localStorage.getItem(KEY);
let askForToken = async () => null;

export class ServiceError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** `ask(wrong)` resolves to a token; called when the service requires one. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}
export const hasToken = () => token !== null;
export function forgetToken() {
  token = null;
  localStorage.removeItem(KEY);
}

let asking = null;
function newToken(wrong) {
  asking ??= askForToken(wrong).then((given) => {
    token = given;
    localStorage.setItem(KEY, given);
    asking = null;
  });
  return asking;
}

async function request(path, options = {}, patience = 3) {
  const sent = token;
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service does not respond. Check that it is running.", 0);
  }
  if (response.status === 401) {
    if (sent === token) await newToken(sent !== null);
    return request(path, options, patience);
  }
  if (response.status === 503 && patience > 0) {
    const wait = Number(response.headers.get("Retry-After") ?? 1);
    if (wait <= 5) {
      await new Promise((done) => setTimeout(done, 1000 * wait * (1 + Math.random())));
      return request(path, options, patience - 1);
    }
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    const text = problem.detail ?? `The service responded with status ${response.status}.`;
    // Start with a capital letter, except for a file's name.
    throw new ServiceError(/^\S+: /.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1), response.status);
  }
  return response;
}

export const get = async (path, options) => (await request(path, options)).json();
export const remove = async (path) => (await request(path, { method: "DELETE" })).json();

/** Fields may be values, files, or lists of either. */
export async function post(path, fields, options = {}) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== null && one !== undefined) body.append(name, one);
  }
  return (await request(path, { method: "POST", body, ...options })).json();
}

export async function patch(path, values) {
  const body = JSON.stringify(values);
  return (await request(path, { method: "PATCH", body, headers: { "Content-Type": "application/json" } })).json();
}

// Thumbnails are fetched, because an <img> cannot send the token. The most recent ones are cached.
const KEPT = 600;
const thumbnails = new Map();

/** Return the URL of a thumbnail, or null. */
export function thumbnail(id) {
  let found = thumbnails.get(id);
  if (!found) {
    found = request(`/v1/gallery/${id}/thumbnail`)
      .then(async (response) => (response.status === 204 ? null : URL.createObjectURL(await response.blob())))
      .catch(() => null);
  }
  thumbnails.delete(id);
  thumbnails.set(id, found);
  if (thumbnails.size > KEPT) {
    const [oldest, address] = thumbnails.entries().next().value;
    thumbnails.delete(oldest);
    address.then((url) => url && URL.revokeObjectURL(url));
  }
  return found;
}

export const forgetThumbnail = (id) => thumbnails.delete(id);
