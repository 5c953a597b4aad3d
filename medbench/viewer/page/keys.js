// The keyboard.

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  ArrowDown: () => state.sample === null && step(1),
  ArrowUp: () => state.sample === null && step(-1),
  ArrowRight: () => state.sample !== null && step(1),
  ArrowLeft: () => state.sample !== null && step(-1),
  Escape: () => state.sample !== null && closeSample(),
  "/": () => state.sample === null && search(),
  r: () => state.sample !== null && set({ region: !view.region }),
  a: () => state.sample !== null && set({ attention: !view.attention }),
  ".": () => state.sample !== null && set({ step: Math.min(steps, view.step + 1) }),
  ",": () => state.sample !== null && set({ step: Math.max(0, view.step - 1) }),
};

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { target, key } = event;
    if (target.matches("input[type=search]")) {
      if (key === "Escape") target.blur();
      return;
    }
    // Sliders and choices use arrows, and choices letters, themselves.
    if (target.matches("select") || (target.matches("input") && key.startsWith("Arrow"))) return;
    if (!Object.hasOwn(KEYS, key)) return;
    if (KEYS[key]() !== false) event.preventDefault();
  });
}

function search() {
  byId("choices").open = true;
  byId("search").focus();
}

/** Go on or back by one: in the list to a row, in the opened sample to another one. */
function step(way) {
  if (state.sample !== null) {
    move(way);
    return;
  }
  const buttons = [...document.querySelectorAll("#list button.open")];
  const at = buttons.indexOf(document.activeElement);
  const next = at < 0 ? (way > 0 ? 0 : buttons.length - 1) : at + way;
  if (buttons[next]) {
    buttons[next].focus();
    buttons[next].scrollIntoView({ block: "nearest" });
  } else if (next >= buttons.length && state.page * ROWS < shown.length) {
    go({ page: state.page + 1 });
    step(1);
  } else if (next < 0 && state.page > 1) {
    go({ page: state.page - 1 });
    step(-1);
  }
}
