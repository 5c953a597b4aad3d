// What happens when the page is opened, and when something else is to be shown.

let scrolled = 0;

/** Show the state, which was another one before. */
function show(before) {
  const opened = state.sample !== null;
  const wasOpened = before !== null && before.sample !== null;
  showControls();
  if (before === null || filtered(before)) showList();
  if (opened && !wasOpened) scrolled = window.scrollY;
  for (const id of ["head", "browse"]) byId(id).hidden = opened;
  byId("opened").hidden = !opened;
  if (opened && state.sample !== before?.sample) {
    openSample(state.sample, true);
    if (!wasOpened) window.scrollTo(0, 0);
  }
  if (!opened && wasOpened) leave(before.sample);
}

/** Say whether other rows are to be listed than before. */
function filtered(before) {
  const without = ({ sample, ...rest }) => hashOf({ ...rest, sample: null });
  return without(before) !== without(state);
}

/** Return to the list, to the row of the sample that was open. */
function leave(sample) {
  byId("opened").replaceChildren();
  panels = [];
  window.scrollTo(0, scrolled);
  const row = byId("list").querySelector(`tr[data-at="${sample}"] button.open`);
  row?.focus({ preventScroll: true });
  row?.scrollIntoView({ block: "nearest" });
}

buildHead();
buildControls();
buildList();
listenToKeys();
state = stateOf(location.hash);
written = location.hash;
show(null);
