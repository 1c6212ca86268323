// A state of the page: rows to start from and bounds; as YAML, as an address, and of a dataset of the configuration.

const POOL = meta.sources[0].name;
const PLAIN = /^[a-z_][a-z0-9_.]*$/;
const YAML_WORDS = new Set(["y", "n", "yes", "no", "on", "off", "true", "false", "null"]);

/** A text as YAML: bare where nothing else can be read from it. */
const yamlText = (text) => (PLAIN.test(text) && !YAML_WORDS.has(text) ? text : JSON.stringify(text));

/** A number as YAML: one with an exponent needs a point to be read as a number. */
const yamlNumber = (number) => String(number).replace(/^(-?\d+)e/, "$1.0e");

function yamlBound(bound) {
  const parts = SIDES.filter((side) => bound[side] !== undefined).map((side) => `${side}: ${yamlNumber(bound[side])}`);
  if (bound.one_of) parts.push(`one_of: [${bound.one_of.map((word) => JSON.stringify(word)).join(", ")}]`);
  if (bound.any_or_all === "all") parts.push("any_or_all: all");
  return `{${parts.join(", ")}}`;
}

/** The dataset of a state, as it stands below `datasets:`. */
function yamlOf({ name, from, bounds }) {
  const filters = [...bounds].map(([score, bound]) => `    ${yamlText(score.key)}: ${yamlBound(bound)}`);
  if (!filters.length) return "# set a bound first";
  return [`${yamlText(name)}:`, `  from: ${yamlText(from)}`, "  filter:", ...filters, ""].join("\n");
}

/** Rows and bounds of a dataset: those of its filter, or all of its rows. */
function stateOf(dataset, scores) {
  const keys = Object.keys(dataset.filter ?? {}), known = new Map(scores.map((score) => [score.key, score]));
  if (!keys.length || !canStartFrom(dataset.from) || !keys.every((key) => known.has(key))) return { from: dataset.name, bounds: [] };
  return { from: dataset.from, bounds: keys.map((key) => [known.get(key), dataset.filter[key]]) };
}

/** Whether the rows of a dataset, or of the pool, are in this page. */
const canStartFrom = (name) => name === POOL || meta.datasets.some((dataset) => dataset.name === name && dataset.members);

/** The state as the part of an address behind `#`. */
function addressOf({ name, from, bounds, axis }) {
  const state = { name, from, axis, bounds: Object.fromEntries([...bounds].map(([score, bound]) => [score.key, bound])) };
  return `#${encodeURIComponent(JSON.stringify(state))}`;
}

/** The state that an address names, as far as it can be meant; null for none. */
function stateInAddress(scores) {
  try {
    const state = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    const bounds = scores.filter(({ key }) => Object.hasOwn(state.bounds, key)).map((score) => [score, cleanBound(score, state.bounds[score.key])]);
    return {
      name: String(state.name),
      from: canStartFrom(state.from) ? state.from : POOL,
      axis: state.axis === "rank" ? "rank" : "value",
      bounds: bounds.filter(([, bound]) => bound),
    };
  } catch {
    return null;
  }
}

function cleanBound(score, given) {
  const bound = {};
  if (score.words) {
    const words = Array.isArray(given.one_of) ? given.one_of.filter((word) => score.words.includes(word)) : [];
    return words.length ? { one_of: words } : null;
  }
  for (const side of SIDES) if (Number.isFinite(given[side])) bound[side] = given[side];
  if (!Object.keys(bound).length) return null;
  return given.any_or_all === "all" ? { ...bound, any_or_all: "all" } : bound;
}
