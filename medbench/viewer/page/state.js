// What is shown now, and the same in the address, so that it can be kept, sent and gone back to.

const EMPTY = { q: "", flip: "", verdict: "", kind: "", health: "", sort: "", page: 1, sample: null };
const FIELD = "meta.";

let state = { ...EMPTY, fields: new Map() };
let written = "";
let waiting = 0;

/** Read an address; what it says that is not there is passed over. */
function stateOf(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const found = { ...EMPTY, fields: new Map(), q: given.get("q") ?? "" };
  for (const name of Object.keys(filters)) {
    if (choiceOf(name, given.get(name))) found[name] = given.get(name);
  }
  if (orders.some((order) => order.value === given.get("sort"))) found.sort = given.get("sort");
  for (const [name, field] of Object.entries(samples.fields)) {
    const value = given.get(FIELD + name);
    if (field.values.includes(value)) found.fields.set(name, value);
  }
  found.page = Math.max(1, Number.parseInt(given.get("page"), 10) || 1);
  const sample = Number.parseInt(given.get("sample"), 10);
  if (sample >= 1 && sample <= total) found.sample = sample - 1;
  return found;
}

function hashOf(shown) {
  const told = new URLSearchParams();
  for (const name of ["q", "flip", "verdict", "kind", "health", "sort"]) {
    if (shown[name]) told.set(name, shown[name]);
  }
  for (const [name, value] of shown.fields) told.set(FIELD + name, value);
  if (shown.page > 1) told.set("page", shown.page);
  if (shown.sample !== null) told.set("sample", shown.sample + 1);
  return `#${told}`;
}

/** Show something else; what is not named stays. */
function go(changes) {
  const before = state;
  state = { ...state, ...changes };
  clearTimeout(waiting);
  if ((before.sample === null) !== (state.sample === null)) write(false);
  // A key that is held down would otherwise write more often than browsers allow.
  else waiting = setTimeout(() => write(true), 200);
  show(before);
}

function write(replacing) {
  written = hashOf(state);
  if (replacing) location.replace(written);
  else location.hash = written;
}

window.addEventListener("hashchange", () => {
  if (location.hash === written || (location.hash === "" && written === "#")) return;
  clearTimeout(waiting);
  written = location.hash;
  const before = state;
  state = stateOf(location.hash);
  show(before);
});
