// What is said of the runs before their samples.

function buildHead() {
  const head = byId("head");
  head.querySelector("h1").textContent = index.title;
  for (const told of index.told) head.append(make("p", { class: "alarm" }, told));
  for (const alarm of new Set(runs.flatMap((run) => run.alarms))) {
    const whose = runs.filter((run) => run.alarms.includes(alarm));
    const names = whose.map((run) => `${run.letter} ${run.name}`).join(", ");
    const told = whose.length < runs.length ? make("b", null, `${names}: `) : null;
    head.append(make("p", { class: "alarm" }, told ?? "", alarm));
  }
  for (const told of index.differs) head.append(make("p", { class: "unlike" }, told));
  const main = index.scores.filter((score) => score.main);
  const rest = index.scores.filter((score) => !score.main);
  const settings = new Set(runs.map((run) => run.setting));
  if (settings.size === 1) head.append(make("p", { class: "unlike" }, ...settings));
  const facts = runs[0].facts.map(([name], at) => [name, runs.map((run) => run.facts[at][1])]);
  if (settings.size > 1) facts.unshift(["setting", runs.map((run) => run.setting)]);
  head.append(make("div", { class: "wide" }, runTable(main, facts)));
  const more = [make("summary", null, "All scores, and how the runs were made"), runFacts()];
  if (rest.length) more.splice(1, 0, make("div", { class: "wide" }, runTable(rest, [])));
  head.append(make("details", null, more));
  byId("foot").append(...legend());
}

/** Return a table with a run a column and a metric a row. */
function runTable(scores, facts) {
  const heads = runs.map((run) => make("th", { scope: "col" }, letterOf(run), ` ${run.name}`));
  const rows = scores.map(({ metric, cells }) =>
    make("tr", null, make("th", { scope: "row" }, metric), cells.map(scoreCell)),
  );
  return make(
    "table",
    { class: "scores" },
    make("thead", null, make("tr", null, make("td"), heads)),
    make("tbody", null, facts.map(factRow), rows),
  );
}

function factRow([name, values]) {
  return make("tr", null, make("th", { scope: "row" }, name), values.map((value) => make("td", null, value)));
}

function scoreCell({ text, unwell }) {
  if (!text) return make("td", null, "–");
  const [value, ...rest] = text.split("  ");
  const dagger = unwell.length ? make("abbr", { title: unwell.join(", ") }, "†") : null;
  return make("td", null, make("b", null, value), dagger, ` ${rest.join(" ")}`);
}

function runFacts() {
  return runs.map((run) =>
    make("p", { class: "facts" }, letterOf(run), ` ${run.name}: `, run.lines.join(" · ")),
  );
}

function letterOf(run) {
  return make("span", { class: "letter" }, run.letter);
}

function legend() {
  const told = ([kind, metric]) => `${kind} by ${metric}`;
  const used = Object.entries(index.by);
  const rules = used.filter(([kind]) => Object.hasOwn(index.rules, kind)).map(told);
  const others = used.filter(([kind]) => !Object.hasOwn(index.rules, kind)).map(told);
  const keys = [
    ["j k", "next, previous"], ["Enter", "open"], ["Esc", "back to the list"], ["/", "search"],
    ["r", "region"], ["a", "attention"], [", .", "step back, on"],
  ];
  return [
    make(
      "p",
      null,
      Object.keys(MARKS).map((name) => [markOf(name, false), ` ${MARKS[name].words} \u2003`]),
      rules.length ? `Right and wrong: ${rules.join(", ")}.` : null,
      others.length ? ` Ordered by: ${others.join(", ")}.` : null,
    ),
    make("p", null, keys.map(([key, what]) => [make("kbd", null, key), ` ${what} \u2003`])),
  ];
}
