// A chart for each score: bars on a canvas, and two handles that a mouse, a finger or the keyboard moves.

const HEIGHT = 96;
const SIDES = ["min", "max"];
const END = { min: "lower", max: "upper" };

/** A colour of the style sheet, light or dark as the page is. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A canvas's context, cleared, in CSS pixels; null where it has no width. */
function cleared(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  if (!width) return null;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** The chart of a score that is a number. `change(score, bound, settled)` is told of every bound that is set. */
class Histogram {
  constructor(score, change) {
    Object.assign(this, { score, change, bound: null });
    this.canvas = element("canvas");
    this.handles = Object.fromEntries(SIDES.map((side) => [side, this.handle(side)]));
    this.plot = element("div", { className: "plot" }, this.canvas, ...Object.values(this.handles));
    this.inputs = Object.fromEntries(SIDES.map((side) => [side, this.input(side)]));
    this.effect = element("p", { className: "effect small muted" });
    const labels = SIDES.map((side) => element("label", {}, side, this.inputs[side]));
    this.rule = element("select", {}, element("option", { value: "any" }, "any value"), element("option", { value: "all" }, "every value"));
    this.rule.setAttribute("aria-label", `Which values of ${score.key} must lie inside`);
    this.rule.hidden = !score.several.length;
    this.rule.addEventListener("change", () => this.set(this.bound, true));
    this.scaleText = element("div", { className: "scale small muted" }, element("span"), element("span"));
    this.figure = element("figure", { className: "score" },
      element("figcaption", {}, element("b", {}, score.key), this.effect), this.plot, this.scaleText,
      element("div", { className: "ends" }, ...labels, this.rule));
    this.figure.dataset.score = score.key;
  }

  handle(side) {
    const made = element("div", { className: `handle ${side}`, tabIndex: 0 });
    made.setAttribute("role", "slider");
    made.setAttribute("aria-label", `${END[side]} bound of ${this.score.key}`);
    made.setAttribute("aria-orientation", "horizontal");
    made.addEventListener("pointerdown", (event) => {
      made.setPointerCapture(event.pointerId);
      made.focus();
      event.preventDefault();
      this.dragging = side;
    });
    made.addEventListener("pointermove", (event) => {
      if (this.dragging !== side) return;
      const area = this.plot.getBoundingClientRect();
      this.put(side, this.scale.bound((event.clientX - area.left) / area.width, side, area.width), false);
    });
    const end = () => {
      if (this.dragging === side) this.set(this.bound, true);
      this.dragging = null;
    };
    made.addEventListener("pointerup", end);
    made.addEventListener("pointercancel", end);
    made.addEventListener("keydown", (event) => this.key(event, side));
    return made;
  }

  key(event, side) {
    const steps = { ArrowRight: 0.005, ArrowUp: 0.005, ArrowLeft: -0.005, ArrowDown: -0.005, PageUp: 0.1, PageDown: -0.1 };
    const { edges } = this.score, present = this.bound?.[side];
    let value;
    if (event.key in steps) value = this.scale.moved(present, side, steps[event.key] * (event.shiftKey ? 0.1 : 1));
    else if (event.key === "Home") value = side === "min" ? undefined : this.scale.short(0, side);
    else if (event.key === "End") value = side === "max" ? undefined : this.scale.short(edges.length - 1, side);
    else if (event.key === "Delete" || event.key === "Backspace") value = undefined;
    else return;
    event.preventDefault();
    this.put(side, value, true);
  }

  input(side) {
    const made = element("input", { inputMode: "decimal", autocomplete: "off", placeholder: "none" });
    made.setAttribute("aria-label", `${END[side]} bound of ${this.score.key}, as a number`);
    made.addEventListener("change", () => {
      const text = made.value.trim().replace("−", "-").replace(",", ".");
      const number = Number(text);
      if (text && !Number.isFinite(number)) return this.show();
      this.put(side, text ? this.scale.snap(number) : undefined, true);
    });
    return made;
  }

  /** Put one end of the interval; the other gives way. */
  put(side, value, settled) {
    const ends = { min: this.bound?.min, max: this.bound?.max, [side]: value };
    const other = side === "min" ? "max" : "min";
    if (ends.min !== undefined && ends.max !== undefined && ends.min > ends.max) ends[other] = value;
    this.set(ends, settled);
  }

  set(ends, settled) {
    const given = SIDES.filter((side) => ends?.[side] !== undefined);
    const bound = given.length ? Object.fromEntries(given.map((side) => [side, ends[side]])) : null;
    if (bound && this.rule.value === "all") bound.any_or_all = "all";
    this.change(this.score, bound, settled);
  }

  /** Take over a bound that was set. */
  take(bound) {
    this.bound = bound;
    this.rule.value = bound?.any_or_all ?? "any";
    this.rule.disabled = !bound;
    this.show();
  }

  rescale(axis, members) {
    this.scale = new Scale(this.score, axis, members);
    const { low, high, stepwise } = this.scale, inset = stepwise ? 0.5 : 0;
    const ends = axis === "value" ? [shown(low + inset), shown(high - inset)] : ["lowest", "highest"];
    ends.forEach((text, place) => (this.scaleText.children[place].textContent = text));
    this.show();
  }

  place(side) {
    const value = this.bound?.[side];
    return value === undefined ? (side === "min" ? 0 : 1) : Math.max(0, Math.min(1, this.scale.place(value)));
  }

  /** Handles and numbers as the bound says. */
  show() {
    const { edges } = this.score;
    for (const side of SIDES) {
      const value = this.bound?.[side], handle = this.handles[side];
      handle.style.left = `${100 * this.place(side)}%`;
      handle.classList.toggle("set", value !== undefined);
      handle.setAttribute("aria-valuemin", edges[0] ?? 0);
      handle.setAttribute("aria-valuemax", edges[edges.length - 1] ?? 0);
      handle.setAttribute("aria-valuenow", value ?? edges[side === "min" ? 0 : edges.length - 1] ?? 0);
      handle.setAttribute("aria-valuetext", value === undefined ? "no bound" : String(value));
      if (document.activeElement !== this.inputs[side] || this.dragging) this.inputs[side].value = value === undefined ? "" : String(value);
    }
  }

  /** Draw what the rows' last tally says; `beside` holds the counts of other rows. */
  draw(effect, beside) {
    const width = this.plot.clientWidth, context = cleared(this.canvas, width, HEIGHT);
    if (!context) return;
    const { counts, base } = this.score, { bins } = this.scale, bar = width / bins;
    const tallest = Math.max(...base.subarray(0, bins), 1);
    const [low, high] = SIDES.map((side) => this.place(side) * width);
    const drawBars = (heights, most, paint) => {
      context.fillStyle = paint;
      for (let bin = 0; bin < bins; bin++) {
        const height = heights[bin] ? Math.max(1, (heights[bin] / most) * (HEIGHT - 6)) : 0;
        context.fillRect(bin * bar, HEIGHT - height, Math.max(bar - (bar > 5 ? 1 : 0), 0.5), height);
      }
    };
    drawBars(base, tallest, colour("line"));
    drawBars(counts, tallest, colour("faint"));
    context.save();
    context.beginPath();
    context.rect(low, 0, Math.max(high - low, 0), HEIGHT);
    context.clip();
    drawBars(counts, tallest, colour("accent"));
    context.restore();
    if (beside) this.drawBeside(context, beside, bar, bins);
    this.effect.textContent = effect ? `drops ${counted(effect.alone)}, ${counted(effect.beyond)} that no other bound drops` : "";
  }

  /** Other rows as a line, by their shares. */
  drawBeside(context, heights, bar, bins) {
    const most = Math.max(...heights.subarray(0, bins), 1);
    context.strokeStyle = colour("s1");
    context.lineWidth = 1.5;
    context.beginPath();
    for (let bin = 0; bin < bins; bin++) {
      const y = HEIGHT - (heights[bin] / most) * (HEIGHT - 6);
      context.lineTo(bin * bar, y);
      context.lineTo((bin + 1) * bar, y);
    }
    context.stroke();
  }
}

/** The choice among the words of a score. */
class Choice {
  constructor(score, change) {
    Object.assign(this, { score, bound: null });
    score.bins = Uint8Array.from(score.first, (code) => (code < Math.min(score.words.length, MOST_SHOWN_WORDS) ? code : NO_BIN));
    this.effect = element("p", { className: "effect small muted" });
    this.boxes = score.words.slice(0, MOST_SHOWN_WORDS).map((word) => {
      const box = element("input", { type: "checkbox", value: word });
      box.addEventListener("change", () => {
        const chosen = this.boxes.filter(({ box }) => box.checked).map(({ word }) => word);
        change(score, chosen.length ? { one_of: chosen } : null, true);
      });
      const count = element("span", { className: "muted" });
      return { word, box, count, label: element("label", { className: "check" }, box, element("bdi", {}, word), count) };
    });
    this.figure = element("figure", { className: "score words" },
      element("figcaption", {}, element("b", {}, score.key), this.effect), element("div", { className: "choice" }, ...this.boxes.map(({ label }) => label)));
    this.figure.dataset.score = score.key;
  }

  take(bound) {
    this.bound = bound;
    for (const { word, box } of this.boxes) box.checked = Boolean(bound?.one_of.includes(word));
  }

  rescale() {}

  draw(effect) {
    this.boxes.forEach(({ count }, place) => (count.textContent = counted(this.score.counts[place])));
    this.effect.textContent = effect ? `drops ${counted(effect.alone)}, ${counted(effect.beyond)} that no other bound drops` : "";
  }
}
const MOST_SHOWN_WORDS = 12;
