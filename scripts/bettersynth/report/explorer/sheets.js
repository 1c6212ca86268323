// Contact sheets: pairs at a bound, the highest and lowest, or at random, kept ones beside dropped ones.

const ON_A_SHEET = 8;

/** The pictures of the page: which rows have one, and each as the address of a blob. */
class Pictures {
  static async load() {
    const { rows, places, lengths } = meta.pictures;
    const made = new Pictures();
    made.rows = await unpacked(rows, Uint32Array);
    made.placeOf = new Map();
    (await unpacked(places, Uint32Array)).forEach((place, number) => made.placeOf.set(made.rows[number], place));
    made.numberOf = new Map([...made.rows].map((row, number) => [row, number]));
    made.starts = [0];
    for (const length of await unpacked(lengths, Uint32Array)) made.starts.push(made.starts.at(-1) + length);
    made.urls = [];
    return made;
  }

  /** The address of a row's picture, or why there is none. */
  async of(row) {
    const place = this.placeOf.get(row);
    if (place === undefined) return meta.served ? { url: `picture/${row}` } : { why: "picture not in this file" };
    if (meta.pictures.problems[place]) return { why: meta.pictures.problems[place] };
    this.data ??= unpacked(meta.pictures.data);
    const data = await this.data;
    this.urls[place] ??= URL.createObjectURL(new Blob([data.subarray(this.starts[place], this.starts[place + 1])], { type: "image/webp" }));
    return { url: this.urls[place] };
  }
}

/** A pair as the page shows it: picture, caption (and what it was before), scores, id. */
async function card(row, pictures, lines = []) {
  const [ids, captions, origins] = await Promise.all([texts.ids(), texts.captions(), texts.origins()]);
  const caption = captions.at(row), before = origins[row] < 0 ? null : captions.at(origins[row]);
  const text = element("p");
  if (before !== null && before !== caption) text.append(element("del", { dir: "auto" }, before), " ");
  text.append(element("span", { className: "caption", dir: "auto" }, caption));
  for (const line of lines) text.append(element("span", { className: "sub" }, line));
  const source = meta.sources.findLast((one) => one.start <= row);
  text.append(element("span", { className: "sub" }, element("bdi", { className: "id" }, ids.at(row)), source.start ? ` · ${source.name}` : ""));
  const made = element("div", { className: "pair" });
  const shownRows = origins[row] >= 0 && pictures.placeOf.get(row) !== pictures.placeOf.get(origins[row]) ? [origins[row], row] : [row];
  for (const one of shownRows) made.append(await picture(one, pictures, captions.at(one)));
  made.classList.toggle("redrawn", shownRows.length > 1);
  made.dataset.row = row;
  made.append(text);
  return made;
}

async function picture(row, pictures, alt) {
  const { url, why } = await pictures.of(row);
  if (!url) return element("span", { className: "none" }, why);
  const image = element("img", { alt });
  image.addEventListener("error", () => image.replaceWith(element("span", { className: "none" }, "picture cannot be shown")), { once: true });
  image.src = url;
  return image;
}

/** Put cards into an element of the page; a text that is too long for its card can be scrolled by the keyboard, too. */
function put(id, cards) {
  byId(id).replaceChildren(...cards);
  for (const text of byId(id).querySelectorAll(".pair p")) if (text.scrollHeight > text.clientHeight + 1) text.tabIndex = 0;
}

/** What is shown of pairs, chosen anew when bounds change. */
class Sheets {
  constructor(rows, pictures) {
    Object.assign(this, { rows, pictures, turn: 0 });
  }

  /** The value of a row that decides at one end of a bound. */
  deciding(score, row, side, all) {
    const number = this.pictures.numberOf.get(row);
    const codes = score.codesOf(row);
    if (codes.length === 1 && score.exactOfSample && number !== undefined) return score.exactOfSample[number];
    const largest = (side !== "max") !== all;
    let found;
    for (const code of codes) if (code < NOT_SCORED && (found === undefined || (largest ? code > found : code < found))) found = code;
    return found === undefined ? NaN : score.value(found);
  }

  /** Rows that may be shown, kept ones and dropped ones. */
  candidates(score, atBound) {
    const only = byId("pictured").checked, { members, mask, size } = this.rows, own = this.rows.own(score);
    const from = only ? this.pictures.rows : null, kept = [], dropped = [];
    for (let place = 0; place < (from ? from.length : size); place++) {
      const row = from ? from[place] : place;
      if (!members[row]) continue;
      if (mask[row] === 0) kept.push(row);
      else if (!atBound || mask[row] & own) dropped.push(row);
    }
    return [kept, dropped];
  }

  /** The rows of both sheets and their values, nearest first. */
  choose(score, which) {
    const bound = this.rows.bounds.get(score), end = bound?.[which], atBound = which === "min" || which === "max";
    if (atBound && end === undefined) return null;
    const all = bound?.any_or_all === "all";
    return this.candidates(score, atBound).map((rows, dropped) => {
      const valued = score.words ? rows.map((row) => ({ row, value: NaN })) : rows.map((row) => ({ row, value: this.deciding(score, row, which, all) }));
      if (which === "random") return this.drawn(valued);
      const known = valued.filter(({ value }) => !Number.isNaN(value));
      const onItsSide = atBound ? known.filter(({ value }) => ((which === "min" ? value >= end : value <= end) ? 0 : 1) === dropped) : known;
      const far = ({ value }) => (atBound ? Math.abs(value - end) : which === "best" ? -value : value);
      onItsSide.sort((one, other) => far(one) - far(other) || one.row - other.row);
      const start = this.turn * ON_A_SHEET;
      return onItsSide.slice(start, start + ON_A_SHEET);
    });
  }

  /** Some rows, others at each turn: by a hash of the row's number. */
  drawn(valued) {
    const hash = ({ row }) => Math.imul((row + 1) ^ Math.imul(this.turn + 1, 0x9e3779b1), 0x85ebca6b) >>> 0;
    return valued.map((one) => [hash(one), one]).sort(([one], [other]) => one - other).slice(0, ON_A_SHEET).map(([, one]) => one);
  }

  async show(score, which) {
    const chosen = this.choose(score, which), about = byId("sheet-about");
    const latest = (this.latest = {});
    if (!chosen) about.textContent = `${score.key} has no ${END[which]} bound: set one, or look at the highest, the lowest or any.`;
    else about.textContent = which in END ? `Nearest to ${score.key} ${which === "min" ? "≥" : "≤"} ${this.rows.bounds.get(score)[which]}; dropped by this bound.` : "Dropped by any bound.";
    for (const [place, name] of ["kept", "dropped"].entries()) {
      const cards = await Promise.all((chosen?.[place] ?? []).map(({ row, value }) => card(row, this.pictures, Number.isNaN(value) ? [] : [`${score.key} ${this.text(score, row, value)}`])));
      if (this.latest !== latest) return;
      put(`sheet-${name}`, cards.length ? cards : [element("p", { className: "small muted" }, "none")]);
    }
  }

  /** A value in words; `about` where the page does not hold all of its digits. */
  text(score, row, value) {
    const exact = score.complete || this.pictures.numberOf.has(row);
    return `${exact ? "" : "about "}${exact ? String(Number(value.toPrecision(6))).replace("-", "−") : shown(value)}`;
  }
}
