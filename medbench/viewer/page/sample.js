// One sample, opened: each run's answer and where it looked, and all that is known of it.

let panels = [];
let steps = 0;
let asked = 0;

/** Show a sample. */
async function openSample(at, fresh) {
  const turn = (asked += 1);
  const [details, picture] = await Promise.all([detailsOf(at), pictureOf(at)]);
  if (turn !== asked) return; // another one was asked for meanwhile
  const { answers } = details;
  const region = regionOf(details);
  steps = Math.max(0, ...answers.map((answer) => (answer?.attention?.tops.length ?? 1) - 1));
  view.step = 0;
  panels = runs.map((_, run) => panelOf(picture, region, answers[run]));
  const drawn = panels.some((panel) => panel.canvas);
  byId("opened").replaceChildren(
    wayOf(at),
    ...askedAbout(at, details),
    ...(drawn || region ? [controlsOf(drawn, region)] : []),
    make(
      "div",
      { class: "runs" },
      runs.map((run, place) => answerOf(run, at, panels[place])),
      make("aside", { class: "wide" }, comparison(answers), restOf(details)),
    ),
  );
  repaint();
  if (fresh) byId("opened").querySelector("h2").focus({ preventScroll: true });
}

function regionOf({ region, answers }) {
  if (!region || region.run === null) return region ?? null;
  // It is on a run's patches, and lies where they do.
  const { box, unplaced } = answers[region.run];
  return unplaced ? null : { ...region, box };
}

/** Return the way back, on and to the one before. */
function wayOf(at) {
  const place = shown.indexOf(at);
  const where = place < 0 ? "not among the filtered" : `${place + 1} of ${shown.length}`;
  const to = (way) => ({ type: "button", disabled: neighbour(way) === null, click: () => move(way) });
  return make(
    "nav",
    { "aria-label": "Samples, one by one" },
    make("button", { type: "button", click: closeSample }, "‹ List"),
    make("button", to(-1), "Previous"),
    make("span", null, where),
    make("button", to(1), "Next"),
  );
}

/** Return the sample before (-1) or after (1) the opened one in the list, null for none. */
function neighbour(way) {
  const place = shown.indexOf(state.sample);
  return place < 0 ? (shown[0] ?? null) : (shown[place + way] ?? null);
}

function move(way) {
  const next = neighbour(way);
  if (next !== null) go({ sample: next, page: Math.floor(shown.indexOf(next) / ROWS) + 1 });
}

function closeSample() {
  go({ sample: null });
}

function askedAbout(at, { answers }) {
  const title = WITHHELD ? nameOf(at) : samples.question[at] || "(no question)";
  const facts = WITHHELD ? [] : [samples.id[at]];
  const prompts = [...new Set(answers.map((answer) => answer?.prompt).filter((prompt) => prompt))];
  const other = prompts.filter((prompt) => prompt !== samples.question[at]);
  return [
    make("h2", { tabindex: -1 }, title),
    WITHHELD ? null : make("p", { class: "gold" }, make("span", { class: "what" }, "gold "), samples.gold[at] || "(empty)"),
    make("p", { class: "facts" }, [`#${at + 1}`, samples.kind[at], ...facts].join(" · ")),
    ...other.map((prompt) =>
      make("details", { class: "prompt" }, make("summary", null, "Prompt"), make("pre", null, prompt)),
    ),
    prompts.length && !other.length ? make("p", { class: "facts" }, "Prompt: the question as it is.") : null,
  ].filter(Boolean);
}

/** Return the switches and sliders of all panels. */
function controlsOf(drawn, region) {
  const toggle = (name, words, key) =>
    make(
      "label",
      null,
      make("input", {
        type: "checkbox",
        id: `show-${name}`,
        checked: view[name],
        change: (event) => set({ [name]: event.target.checked }),
      }),
      ` ${words} `,
      make("kbd", null, key),
    );
  const slider = (name, words, most) =>
    make(
      "label",
      null,
      make("span", { id: `${name}-told` }, words),
      make("input", {
        type: "range",
        id: name,
        min: 0,
        max: most,
        value: view[name],
        input: (event) => set({ [name]: Number(event.target.value) }),
      }),
    );
  return make(
    "div",
    { class: "switches", role: "group", "aria-label": "Drawing" },
    region ? toggle("region", "Region", "r") : null,
    drawn ? toggle("attention", "Attention", "a") : null,
    drawn ? slider("opacity", "Opacity", 100) : null,
    drawn && steps > 1 ? slider("step", "", steps) : null,
    drawn ? make("span", { id: "scale" }, make("span", { class: "ramp" }), make("span", { id: "top" })) : null,
  );
}

function set(changes) {
  Object.assign(view, changes);
  repaint();
}

function repaint() {
  const top = paint(panels);
  for (const name of ["region", "attention"]) {
    const box = byId(`show-${name}`);
    if (box) box.checked = view[name];
  }
  if (byId("step")) {
    byId("step").value = String(view.step);
    const words = view.step ? `Step ${view.step} of ${steps}` : `Mean of ${steps} steps`;
    byId("step-told").textContent = words;
    byId("step").setAttribute("aria-valuetext", words);
  }
  if (byId("top")) {
    const what = view.step ? "of this step's attention" : "of the answer's attention";
    byId("top").textContent = `0 to ${(100 * top).toPrecision(2)} % ${what}, a patch`;
  }
  for (const chip of document.querySelectorAll("button.token")) {
    chip.setAttribute("aria-pressed", String(Number(chip.dataset.step) === view.step));
  }
}

/** Return a run's part: what it said, how it was judged, and its panel. */
function answerOf(run, at, panel) {
  const name = markName(run.verdict[at]);
  const { answer } = panel;
  const inside = run.inside[at];
  const facts = [
    run.score[at] !== null ? `${index.by[samples.kind[at]]} ${percent(run.score[at])}` : null,
    inside !== null ? `${percent(inside)} of attention in region` : null,
    ...index.troubles.filter((_, bit) => run.troubles[at] & (1 << bit)),
  ];
  return make(
    "article",
    { class: `run ${name}` },
    make("h3", null, letterOf(run), ` ${run.name} `, markOf(name, false), ` ${MARKS[name].words}`),
    WITHHELD ? null : panel.frame,
    make("p", { class: "facts" }, facts.filter(Boolean).join(" · ")),
    answer && !WITHHELD ? noteOf(answer) : null,
    WITHHELD ? null : spokenOf(run, at, answer),
  );
}

/** Return why nothing is drawn over the image, if so. */
function noteOf({ attention, unplaced }) {
  const why = unplaced ?? (attention ? null : "No attention was recorded.");
  return why ? make("p", { class: "facts" }, why) : null;
}

/** Return an answer as it came, its tokens to be clicked where they are known. */
function spokenOf(run, at, answer) {
  if (!answer?.pieces || answer.attention?.tops.length !== answer.pieces.length + 1) {
    return make("div", { class: "output" }, saidOf(run, at));
  }
  const chips = answer.pieces.map((piece, place) =>
    make(
      "button",
      {
        type: "button",
        class: "token",
        "data-step": place + 1,
        title: `step ${place + 1}`,
        "aria-pressed": "false",
        click: () => set({ step: view.step === place + 1 ? 0 : place + 1 }),
      },
      piece === "" ? "·" : piece,
    ),
  );
  return [
    make("div", { class: "output" }, saidOf(run, at)),
    make("div", { class: "tokens", role: "group", "aria-label": "Tokens" }, chips),
  ];
}

/** Return a table of what answering cost and of all scores, a run a column. */
function comparison(answers) {
  const fixed = (value, digits) => (value ?? null) === null ? "–" : value.toFixed(digits);
  const facts = [
    ["ended by", (answer) => ({ eos: "end token", stop: "stop string", length: "length limit" })[answer.stop] ?? "–"],
    ["new tokens", (answer) => answer.tokens ?? "–"],
    ["seconds", (answer) => fixed(answer.seconds, 3)],
    ["tokens through the model", (answer) => answer.forwards ?? "–"],
    ["peak memory, MB", (answer) => answer.peak_bytes ? fixed(answer.peak_bytes / 1e6, 0) : "–"],
  ];
  const metrics = new Set(answers.flatMap((answer) => answer?.scores.map(([name]) => name) ?? []));
  const score = (name) => (answer) => {
    const value = answer.scores.find(([metric]) => metric === name)?.[1] ?? null;
    return value === null ? "–" : (100 * value).toFixed(1);
  };
  const rows = [...facts, ...[...metrics].map((name) => [name, score(name)])];
  const heads = runs.map((run) => make("th", { scope: "col" }, letterOf(run), ` ${run.name}`));
  return make(
    "table",
    { class: "scores tight" },
    make("thead", null, make("tr", null, make("td"), heads)),
    make(
      "tbody",
      null,
      rows.map(([name, told]) =>
        make(
          "tr",
          null,
          make("th", { scope: "row" }, name),
          answers.map((answer) => make("td", null, answer ? String(told(answer)) : "–")),
        ),
      ),
    ),
  );
}

function restOf({ meta }) {
  if (!meta) return [];
  const rows = meta.map(([name, value]) =>
    make("tr", null, make("th", { scope: "row" }, name.replaceAll("_", " ")), make("td", null, value)),
  );
  return [make("table", { class: "meta" }, make("tbody", null, rows))];
}
