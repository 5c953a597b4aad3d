// Which samples are shown, and in which order.

// Each filter: what it is called, and groups of choices with a test of a sample's place.
const filters = {
  flip: { label: "Flips", groups: pairs().map(flipGroup) },
  verdict: { label: "Verdict", groups: [ofAll(), ...runs.map(verdictGroup)] },
  kind: { label: "Kind", groups: [{ label: "", choices: [...new Set(samples.kind)].sort().map(ofKind) }] },
  health: { label: "Health", groups: healthGroups() },
};

const orders = [
  { value: "", label: "as answered", compare: null },
  ...(runs.length > 1
    ? [{ value: "disagreement", label: "most disagreement first", compare: byDisagreement() }]
    : []),
  ...runs.flatMap(ordersOf),
];

/** Return the places of the samples that all filters let through, in order. */
function matching(state) {
  const tests = Object.keys(filters)
    .map((name) => choiceOf(name, state[name])?.test)
    .filter(Boolean);
  for (const [name, value] of state.fields) {
    const field = samples.fields[name];
    const place = field.values.indexOf(value);
    tests.push((at) => field.of[at] === place);
  }
  const words = state.q.trim().toLowerCase();
  if (words) {
    const texts = searched();
    tests.push((at) => texts[at].includes(words));
  }
  const found = [];
  for (let at = 0; at < total; at += 1) if (tests.every((test) => test(at))) found.push(at);
  const order = orders.find((one) => one.value === state.sort);
  return order?.compare ? found.sort((one, other) => order.compare(one, other) || one - other) : found;
}

function choiceOf(name, value) {
  const choices = filters[name].groups.flatMap((group) => group.choices);
  return choices.find((choice) => choice.value === value);
}

function pairs() {
  return runs.flatMap((a, at) => runs.slice(at + 1).map((b) => [a, b]));
}

function flipGroup([a, b]) {
  const both = a.letter + b.letter;
  const judged = (verdict) => verdict !== null && verdict !== UNJUDGED;
  const is = (one, other) => (at) => a.verdict[at] === one && b.verdict[at] === other;
  return {
    label: `${a.letter} ${a.name} and ${b.letter} ${b.name}`,
    choices: [
      {
        value: `${both}-any`,
        label: `${a.letter} and ${b.letter} differ`,
        test: (at) =>
          a.verdict[at] !== b.verdict[at] && judged(a.verdict[at]) && judged(b.verdict[at]),
      },
      { value: `${both}-lost`, label: `${a.letter} right, ${b.letter} wrong`, test: is(RIGHT, WRONG) },
      { value: `${both}-won`, label: `${a.letter} wrong, ${b.letter} right`, test: is(WRONG, RIGHT) },
    ],
  };
}

function ofAll() {
  const all = (verdict) => (at) => runs.every((run) => run.verdict[at] === verdict);
  return {
    label: "All runs",
    choices: [
      { value: "all-wrong", label: "all wrong", test: all(WRONG) },
      { value: "all-right", label: "all right", test: all(RIGHT) },
    ],
  };
}

function verdictGroup(run) {
  const words = { right: RIGHT, partly: PARTLY, wrong: WRONG, "not-judged": UNJUDGED, "no-answer": null };
  const told = { partly: "partly right", "not-judged": "not judged", "no-answer": "without answer" };
  const choices = Object.entries(words)
    .filter(([, verdict]) => run.verdict.includes(verdict))
    .map(([word, verdict]) => ({
      value: `${run.letter}-${word}`,
      label: `${run.letter} ${told[word] ?? word}`,
      test: (at) => run.verdict[at] === verdict,
    }));
  return { label: `${run.letter} ${run.name}`, choices };
}

function ofKind(kind) {
  return { value: kind, label: kind, test: (at) => samples.kind[at] === kind };
}

function healthGroups() {
  const told = { cut: "cut at the limit", neither: "neither yes nor no", both: "both yes and no" };
  const group = (label, prefix, letter, some) => ({
    label,
    choices: index.troubles
      .map((trouble, bit) => ({
        value: `${prefix}-${trouble}`,
        label: `${letter} ${told[trouble] ?? trouble}`,
        test: (at) => some((run) => Boolean(run.troubles[at] & (1 << bit))),
      }))
      .filter((choice) => samples.kind.some((_, at) => choice.test(at))),
  });
  const any = group("Any run", "any", "any", (test) => runs.some(test));
  const each = runs.map((run) => group(`${run.letter} ${run.name}`, run.letter, run.letter, (test) => test(run)));
  return runs.length > 1 ? [any, ...each] : each;
}

function ordersOf(run) {
  const first = (values, sign) => (one, other) => {
    const [a, b] = [values[one], values[other]];
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (a - b);
  };
  const known = (values) => values.some((value) => value !== null);
  const named = `${run.letter} ${run.name}`;
  const found = [];
  if (known(run.score)) {
    found.push({ value: `${run.letter}-score`, label: `${named}: lowest score first`, compare: first(run.score, 1) });
  }
  if (known(run.inside)) {
    const inside = "attention in region first";
    found.push({ value: `${run.letter}-least`, label: `${named}: least ${inside}`, compare: first(run.inside, 1) });
    found.push({ value: `${run.letter}-most`, label: `${named}: most ${inside}`, compare: first(run.inside, -1) });
  }
  return found;
}

/** Order by how far the runs' scores lie apart, then by how many different things they say. */
function byDisagreement() {
  let apart = null;
  const measure = (at) => {
    const scores = runs.map((run) => run.score[at]).filter((score) => score !== null);
    const said = new Set(runs.map((run) => run.output?.[at]?.trim().toLowerCase()));
    return (scores.length ? Math.max(...scores) - Math.min(...scores) : 0) * 100 + said.size;
  };
  return (one, other) => {
    apart ??= samples.kind.map((_, at) => measure(at));
    return apart[other] - apart[one];
  };
}

let texts = null;

/** Return what the search looks through, by sample. */
function searched() {
  texts ??= samples.kind.map((_, at) => {
    const said = runs.map((run) => run.output?.[at]);
    const asked = WITHHELD ? [] : [samples.question[at], samples.gold[at]];
    return [nameOf(at), ...asked, ...said].join("\n").toLowerCase();
  });
  return texts;
}
