// The data: the index is read at once, parts when something of them is shown.

const index = JSON.parse(byId("index").textContent);
const samples = index.samples;
const total = samples.kind.length;
const runs = index.runs.map((run, at) => ({ ...run, letter: "ABCDEFGHIJKL"[at], ...index.answers[at] }));
const WITHHELD = !samples.question;

// Places in index.verdicts.
const WRONG = 0;
const PARTLY = 1;
const RIGHT = 2;
const UNJUDGED = 3;

const read = new Map();

/** Return the details of a sample: what is shown when it is opened. */
async function detailsOf(at) {
  return (await part("details", at))[at % index.parts.details];
}

/** Return a sample's picture, or null where it has none. */
async function pictureOf(at) {
  const place = samples.picture?.[at] ?? null;
  if (place === null) return null;
  const [width, height, kind, data] = (await part("pictures", place))[place % index.parts.pictures];
  return { width, height, source: `data:image/${kind};base64,${data}` };
}

function part(kind, at) {
  const id = `${kind}-${Math.floor(at / index.parts[kind])}`;
  if (!read.has(id)) read.set(id, parse(id));
  return read.get(id);
}

async function parse(id) {
  // While the browser is still reading the file, the part may be there by half or not at all.
  if (document.readyState === "loading") {
    await new Promise((go) => document.addEventListener("DOMContentLoaded", go, { once: true }));
  }
  return JSON.parse(byId(id).textContent);
}

/** Return what a sample is called, which tells nothing of a restricted task's. */
function nameOf(at) {
  return WITHHELD ? `sample ${at + 1}` : samples.id[at];
}
