// The filters as controls.

const FEW_FIELDS = 4; // beyond these, fields of the samples are folded away

function buildControls() {
  const form = byId("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  const controls = [
    labelled("Search", searchBox()),
    ...Object.entries(filters).map(([name, filter]) => selectOf(name, filter)),
    ...fieldControls(),
    orderControl(),
    make("button", { type: "button", id: "clear", click: clearFilters }, "Clear"),
  ];
  const choices = folded("choices", "Search and filters", controls);
  form.append(choices);
  // On a narrow screen they would stand where the list is looked for.
  const wide = window.matchMedia("(min-width: 701px)");
  const adapt = () => choices.toggleAttribute("open", wide.matches);
  wide.addEventListener("change", adapt);
  adapt();
}

function folded(id, words, controls) {
  return make("details", { id }, make("summary", null, words), make("div", { class: "row" }, controls));
}

/** Set the controls to what is shown. */
function showControls() {
  const search = byId("search");
  if (search.value !== state.q) search.value = state.q;
  for (const select of document.querySelectorAll("#filters select")) {
    const { name, field } = select.dataset;
    select.value = field === undefined ? state[name] : fieldValue(field);
    select.classList.toggle("set", select.selectedIndex > 0);
  }
}

function searchBox() {
  return make("input", {
    id: "search",
    type: "search",
    placeholder: WITHHELD ? "number" : "question, gold, answer, id",
    input: (event) => go({ q: event.target.value, page: 1 }),
  });
}

function selectOf(name, { label, groups }) {
  const kept = groups.filter((group) => group.choices.length);
  if (!kept.length || (name === "kind" && kept[0].choices.length < 2)) return null;
  const several = kept.length > 1;
  const options = kept.map((group) => {
    const choices = group.choices.map(({ value, label: text }) => make("option", { value }, text));
    return several ? make("optgroup", { label: group.label }, choices) : choices;
  });
  const change = (event) => go({ [name]: event.target.value, page: 1 });
  return labelled(label, make("select", { "data-name": name, change }, anyOption(), options));
}

function fieldControls() {
  const names = Object.keys(samples.fields);
  // What most look for comes first.
  names.sort((a, b) => (b === "modality") - (a === "modality"));
  const controls = names.map(fieldControl);
  if (controls.length <= FEW_FIELDS) return controls;
  const rest = controls.slice(FEW_FIELDS - 1);
  return [
    ...controls.slice(0, FEW_FIELDS - 1),
    folded("more", `${rest.length} more fields`, rest),
  ];
}

function fieldControl(name) {
  const { values } = samples.fields[name];
  // Told by place: a value may be empty, and so may the choice of any.
  const options = values.map((value, place) =>
    make("option", { value: place }, value === "" ? "(none)" : value),
  );
  const change = (event) => {
    const fields = new Map(state.fields);
    if (event.target.value === "") fields.delete(name);
    else fields.set(name, values[Number(event.target.value)]);
    go({ fields, page: 1 });
  };
  const shown = name.replaceAll("_", " ");
  return labelled(shown, make("select", { "data-field": name, change }, anyOption(), options));
}

function fieldValue(name) {
  return state.fields.has(name) ? samples.fields[name].values.indexOf(state.fields.get(name)) : "";
}

function orderControl() {
  if (orders.length < 2) return null;
  const options = orders.map(({ value, label }) => make("option", { value }, label));
  const change = (event) => go({ sort: event.target.value, page: 1 });
  return labelled("Order", make("select", { "data-name": "sort", change }, options));
}

function anyOption() {
  return make("option", { value: "" }, "any");
}

function labelled(name, control) {
  return make("label", null, make("span", null, name), control);
}

function clearFilters() {
  go({ ...EMPTY, fields: new Map(), sample: state.sample });
}
