// The page: controls, and what follows when one of them changes.

class Page {
  async start() {
    this.scores = meta.scores.map((facts, place) => new Score(facts, place));
    await Promise.all(this.scores.map((score) => score.load()));
    this.numbers = this.scores.filter((score) => !score.words);
    this.pictures = await Pictures.load();
    this.members = new Map();
    this.rows = new Rows(this.scores);
    this.charts = this.scores.map((score) => new (score.words ? Choice : Histogram)(score, (...change) => this.change(...change)));
    byId("charts").append(...this.charts.map(({ figure }) => figure));
    this.scales = new Map();
    this.scatter = new Scatter(this.rows, this.scales);
    this.sheets = new Sheets(this.rows, this.pictures);
    this.search = new Search(this.rows, this.pictures);
    this.fillControls();
    this.listen();
    byId("problems").textContent = meta.unscored.length ? `Not here, for the pool is not scored by them yet: ${meta.unscored.join(", ")}.` : "";
    const state = stateInAddress(this.scores) ?? { from: POOL, bounds: [], axis: "value", name: "chosen" };
    byId("name").value = state.name;
    document.querySelector(`input[name=axis][value=${state.axis}]`).checked = true;
    this.axis = state.axis;
    await this.open(state);
    document.documentElement.dataset.ready = "yes";
  }

  fillControls() {
    const option = (value, text = value) => element("option", { value }, text);
    const made = meta.datasets.filter((dataset) => dataset.members);
    const count = (rows) => counted(rows);
    byId("open").append(option("", "choose …"), ...meta.datasets.filter((one) => one.members || (one.filter && canStartFrom(one.from))).map((one) => option(one.name, `${one.name}: ${one.brief.slice(0, 60)}`)));
    const rows = [option(POOL, `${POOL} (${count(meta.sources[0].rows)})`), ...made.map((one) => option(one.name, `${one.name} (${count(one.rows)})`))];
    byId("from").append(...rows);
    byId("beside").append(option("", "nothing"), ...rows.map((one) => one.cloneNode(true)));
    byId("by").append(...this.scores.map((score) => option(score.place, score.key)));
    for (const id of ["across", "up"]) byId(id).append(...this.numbers.map((score) => option(score.place, score.key)));
    const finest = [...this.numbers].sort((one, other) => other.edges.length - one.edges.length);
    finest.slice(0, 2).forEach((score, place) => (byId(["across", "up"][place]).value = score.place));
    if (meta.served) byId("pictured").checked = false;
  }

  listen() {
    const on = (id, event, act) => byId(id).addEventListener(event, act);
    on("open", "change", () => {
      const dataset = meta.datasets.find((one) => one.name === byId("open").value);
      if (dataset) this.open({ ...stateOf(dataset, this.scores), name: byId("name").value });
    });
    on("from", "change", () => this.open({ from: byId("from").value, bounds: [...this.rows.bounds] }));
    on("beside", "change", () => this.putBeside(byId("beside").value));
    on("clear", "click", () => this.open({ from: this.from, bounds: [] }));
    on("name", "input", () => this.tell());
    on("copy", "click", () => this.copy());
    for (const id of ["by", "which", "pictured"]) on(id, "change", () => ((this.sheets.turn = 0), this.showSheets()));
    on("more", "click", () => (this.sheets.turn++, this.showSheets()));
    for (const id of ["across", "up"]) on(id, "change", () => this.chooseScatter());
    for (const radio of document.querySelectorAll("input[name=axis]")) radio.addEventListener("change", () => this.open({ ...this.state(), axis: (this.axis = radio.value) }));
    window.addEventListener("resize", () => this.drawSoon());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.drawSoon());
  }

  /** How often each row is in a dataset, or in the pool. */
  async membersOf(name) {
    if (!this.members.has(name)) this.members.set(name, await this.unpackMembers(name));
    return this.members.get(name);
  }

  async unpackMembers(name) {
    if (name === POOL) return new Uint8Array(meta.rows).fill(1, 0, meta.sources[0].rows);
    const { width, block } = meta.datasets.find((one) => one.name === name).members;
    return unpacked(block, width === 1 ? Uint8Array : Uint16Array);
  }

  /** Take over a state. */
  async open({ from, bounds }) {
    const members = await this.membersOf(from);
    bounds = [...bounds];
    this.from = from;
    byId("from").value = from;
    for (const score of [...this.rows.bounds.keys()]) this.rows.setBound(score, null);
    for (const [score, bound] of bounds) this.rows.setBound(score, bound);
    this.rows.startFrom(members);
    this.rescale(this.axis);
    const dataset = meta.datasets.find((one) => one.name === from);
    const lacks = (score) => members.some((often, row) => often && score.first[row] === NOT_SCORED);
    const unscored = this.scores.filter((score) => !score.everywhere && lacks(score));
    byId("from-about").textContent = [dataset?.brief, unscored.length && `not scored by ${unscored.map(({ key }) => key).join(", ")}: a bound of these drops rows here whose scores are not known yet`].filter(Boolean).join("; ");
    await this.putBeside(byId("beside").value, false);
    this.update(true);
  }

  async putBeside(name, draw = true) {
    this.beside = null;
    if (name) {
      const members = await this.membersOf(name);
      this.beside = new Map(this.numbers.map((score) => [score, this.heights(score, members)]));
    }
    if (draw) this.draw();
  }

  heights(score, members) {
    const heights = new Float64Array(NO_BIN + 1);
    for (let row = 0; row < meta.rows; row++) if (members[row]) heights[score.bins[row]] += members[row];
    return heights;
  }

  rescale(axis) {
    this.axis = axis;
    for (const chart of this.charts) {
      chart.rescale(axis, this.rows.members);
      if (chart.scale) this.scales.set(chart.score, chart.scale);
    }
    this.rows.tallyBase();
    this.chooseScatter(false);
  }

  chooseScatter(draw = true) {
    if (this.numbers.length) this.scatter.choose(this.scores[byId("across").value], this.scores[byId("up").value]);
    if (draw) this.scatter.draw(this.rows.bounds);
  }

  /** A bound was set: at once if `settled`, otherwise with the next frame, while it is dragged. */
  change(score, bound, settled) {
    this.pending = [score, bound];
    this.lastTouched = score;
    if (settled) return this.apply(true);
    this.frame ??= requestAnimationFrame(() => this.apply(false));
  }

  apply(settled) {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    if (this.pending) {
      const [score, bound] = this.pending;
      this.pending = null;
      if (!this.rows.setBound(score, bound)) return;
      if (settled && bound && byId("by").value !== String(score.place)) byId("by").value = score.place;
      if (settled && bound && bound[byId("which").value] === undefined) byId("which").value = bound.min !== undefined ? "min" : bound.max !== undefined ? "max" : "random";
    }
    this.update(settled);
  }

  /** Count, draw and tell; what takes longer waits until a bound is let go. */
  update(settled) {
    const begun = performance.now();
    this.rows.tally();
    for (const chart of this.charts) chart.take(this.rows.bounds.get(chart.score) ?? null);
    this.draw(!settled);
    this.tell();
    if (settled) {
      history.replaceState(null, "", addressOf(this.state()));
      this.sheets.turn = 0;
      this.showSheets();
      if (byId("query").value) this.search.show();
    }
    this.took = performance.now() - begun;
    document.documentElement.dataset.took = this.took.toFixed(1);
  }

  drawSoon() {
    requestAnimationFrame(() => this.draw());
  }

  /** Draw all; `hasty`, while a bound is dragged, only what is in sight of the slow part. */
  draw(hasty = false) {
    for (const chart of this.charts) chart.draw(this.rows.effects.get(chart.score), this.beside?.get(chart.score));
    if (!hasty || this.scatter.inSight) this.scatter.draw(this.rows.bounds);
  }

  state() {
    return { name: byId("name").value, from: this.from, bounds: this.rows.bounds, axis: this.axis };
  }

  tell() {
    const { kept, total } = this.rows, share = total ? (100 * kept) / total : 0;
    byId("kept-rows").textContent = counted(kept);
    byId("kept-of").textContent = `of ${counted(total)} rows of ${this.from} kept, ${share.toFixed(1)} %`;
    byId("kept-share").style.width = `${share}%`;
    const text = yamlOf(this.state());
    byId("text").value = text;
    byId("text").rows = text.split("\n").length;
    byId("copy").disabled = !this.rows.bounds.size;
    byId("copied").textContent = "";
  }

  async copy() {
    byId("text").select();
    const done = await navigator.clipboard?.writeText(byId("text").value).then(() => true, () => false);
    byId("copied").textContent = done || document.execCommand("copy") ? "copied" : "press Ctrl+C to copy";
  }

  showSheets() {
    this.sheets.show(this.scores[byId("by").value], byId("which").value);
  }
}

const page = (window.explorer = new Page());
page.start().catch((error) => {
  byId("kept-of").textContent = `cannot be shown: ${error.message}`;
  throw error;
});
