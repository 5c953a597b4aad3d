// The list: a sample a row, a run a column, a page at a time.

const ROWS = 50;

// A verdict is told by colour, by a symbol, and in words to those who see neither.
const MARKS = {
  right: { symbol: "✓", words: "right" },
  partly: { symbol: "◐", words: "partly right" },
  wrong: { symbol: "✗", words: "wrong" },
  unjudged: { symbol: "–", words: "not judged" },
  none: { symbol: "∅", words: "no answer" },
};

let shown = [];

function markName(verdict) {
  return verdict === null ? "none" : ["wrong", "partly", "right", "unjudged"][verdict];
}

function markOf(name, spoken = true) {
  const { symbol, words } = MARKS[name];
  const sign = make("span", { class: `mark ${name}`, title: words, "aria-hidden": "true" }, symbol);
  return spoken ? [sign, unseen(`${words}: `)] : sign;
}

function buildList() {
  const heads = runs.map((run) => make("th", { scope: "col" }, letterOf(run), ` ${run.name}`));
  byId("list").tHead.append(
    make("tr", null, make("td"), make("th", { scope: "col" }, "Sample"), heads),
  );
  byId("list").tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !String(getSelection())) go({ sample: Number(row.dataset.at) });
  });
}

/** Show the rows of the state's page. */
function showList() {
  shown = matching(state);
  const pages = Math.max(1, Math.ceil(shown.length / ROWS));
  state.page = Math.min(state.page, pages);
  const from = (state.page - 1) * ROWS;
  const rows = shown.slice(from, from + ROWS);
  byId("count").textContent = `${shown.length} of ${total} samples`;
  byId("list").tBodies[0].replaceChildren(...rows.map(rowOf));
  if (!rows.length) {
    byId("list").tBodies[0].append(
      make("tr", { class: "nothing" }, make("td", { colspan: 2 + runs.length }, "No sample is like that.")),
    );
  }
  for (const nav of document.querySelectorAll("nav.pages")) showPages(nav, pages);
}

function rowOf(at) {
  const verdicts = new Set(runs.map((run) => run.verdict[at]));
  return make(
    "tr",
    { "data-at": at, class: verdicts.size > 1 ? "differs" : null },
    make("td", { class: "picture" }, thumbnail(at)),
    make("th", { scope: "row" }, askedOf(at)),
    runs.map((run) => answerCell(run, at)),
  );
}

function thumbnail(at) {
  if ((samples.picture?.[at] ?? null) === null) return make("span", { class: "blank" });
  const image = make("img", { alt: "", width: 72, height: 72 });
  pictureOf(at).then(({ source }) => image.setAttribute("src", source));
  return image;
}

function askedOf(at) {
  const facts = [`#${at + 1}`, samples.kind[at]];
  const modality = samples.fields.modality;
  if (modality) facts.push(modality.values[modality.of[at]]);
  if (!WITHHELD) facts.push(samples.id[at]);
  return [
    make("button", { type: "button", class: "open" }, WITHHELD ? nameOf(at) : samples.question[at] || "(no question)"),
    WITHHELD ? null : make("div", { class: "gold" }, make("span", { class: "what" }, "gold "), samples.gold[at] || "(empty)"),
    make("div", { class: "facts" }, facts.filter(Boolean).join(" · ")),
  ];
}

function answerCell(run, at) {
  const name = markName(run.verdict[at]);
  const inside = run.inside[at];
  return make(
    "td",
    { class: `answer ${name}` },
    make(
      "div",
      { class: "line" },
      letterOf(run),
      markOf(name),
      make("span", { class: "said" }, saidOf(run, at)),
    ),
    inside === null ? null : make("div", { class: "facts" }, `${percent(inside)} in region`),
  );
}

function saidOf(run, at) {
  if (run.verdict[at] === null) return make("i", null, "no answer");
  if (!run.output) return "";
  return run.output[at].trim() ? run.output[at] : make("i", null, "(empty)");
}

function showPages(nav, pages) {
  const to = (page) => () => {
    go({ page });
    byId("browse").scrollIntoView();
  };
  const turn = (page, words) =>
    make("button", { type: "button", disabled: page < 1 || page > pages, click: to(page) }, words);
  nav.hidden = pages < 2;
  nav.replaceChildren(
    turn(state.page - 1, "‹ Previous"),
    make("span", null, `page ${state.page} of ${pages}`),
    turn(state.page + 1, "Next ›"),
  );
}

function percent(share) {
  return `${(100 * share).toFixed(0)} %`;
}
