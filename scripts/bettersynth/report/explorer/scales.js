// From values to places across a chart, and back: evenly by value, or by rank among the rows that one starts from.

const MOST_BINS = 64;
const INNER = 0.999;

/** How a score lies across its chart. */
class Scale {
  constructor(score, axis, members) {
    Object.assign(this, { score, axis });
    const heights = new Uint32Array(65536).subarray(0, 2 * score.edges.length + 1), { first } = score;
    for (let row = 0; row < members.length; row++) heights[first[row]] += members[row]; // of codes beyond the edges, none
    let sum = 0;
    for (const height of heights) sum += height;
    sum ||= 1;
    this.share = new Float64Array(heights.length + 1); // of the values with a smaller code
    for (let code = 0; code < heights.length; code++) this.share[code + 1] = this.share[code] + heights[code] / sum;
    [this.low, this.high] = [1 - INNER, INNER].map((share) => score.value(this.codeAt(share)));
    if (score.whole && this.high - this.low < MOST_BINS) [this.low, this.high] = [this.low - 0.5, this.high + 0.5];
    if (!(this.high > this.low)) [this.low, this.high] = [(this.low || 0) - 0.5, (this.low || 0) + 0.5];
    this.stepwise = score.whole && this.high - this.low <= MOST_BINS;
    this.bins = axis === "value" && this.stepwise ? Math.round(this.high - this.low) : MOST_BINS;
    this.fill(heights.length - 1);
  }

  /** The smallest code below or at which a share of the values lies. */
  codeAt(share) {
    let low = 0, high = this.share.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.share[middle + 1] < share) low = middle + 1;
      else high = middle;
    }
    return Math.min(low, this.share.length - 2);
  }

  fill(last) {
    const binOf = new Uint8Array(65536).fill(NO_BIN), { score, bins } = this;
    for (let code = 0; code <= last; code++) {
      const place = this.axis === "value" ? this.place(score.value(code)) : (this.share[code] + this.share[code + 1]) / 2;
      binOf[code] = Math.max(0, Math.min(bins - 1, Math.floor(place * bins)));
    }
    const found = (score.bins ??= new Uint8Array(meta.rows)), { first } = score;
    for (let row = 0; row < first.length; row++) found[row] = binOf[first[row]];
  }

  /** Where a value lies, 0 … 1 from left to right, or beyond. */
  place(value) {
    if (this.axis === "value") return (value - this.low) / (this.high - this.low);
    const code = this.score.code(value);
    return this.share[Math.min(code, this.share.length - 1)];
  }

  /** The bound at a place, as short as `pixels` can tell apart; undefined at the end where it keeps all. */
  bound(place, side, pixels) {
    if (side === "min" ? place <= 0 : place >= 1) return undefined;
    const within = Math.max(0, Math.min(1, place));
    if (this.axis === "rank") return this.at(within, side);
    const value = this.low + within * (this.high - this.low);
    if (this.stepwise) return Math.round(value);
    const digits = Math.max(0, Math.ceil(-Math.log10((this.high - this.low) / pixels)));
    return this.snap(Number(value.toFixed(Math.min(digits, 20))), side);
  }

  /** The bound that a share of the values lies below, or, as an upper one, above. */
  at(share, side) {
    const code = this.codeAt(share), edge = Math.min(code >> 1, this.score.edges.length - 1);
    return this.short(edge, side);
  }

  /** The bound with the fewest digits that decides as an edge does. */
  short(edge, side) {
    const { edges, complete } = this.score;
    if (!complete) return edges[edge];
    return side === "min" ? shortest(edges[edge - 1] ?? -Infinity, edges[edge]) : -shortest(-(edges[edge + 1] ?? Infinity), -edges[edge]);
  }

  /** The nearest bound that this page decides exactly. */
  snap(value) {
    const { score } = this;
    if (score.complete || score.code(value) & 1) return value;
    const after = score.below(value), { edges } = score;
    if (after === 0) return edges[0];
    if (after === edges.length) return edges[after - 1];
    return value - edges[after - 1] < edges[after] - value ? edges[after - 1] : edges[after];
  }

  /** A bound moved on by a share of the values, by one edge at least; undefined beyond the end that keeps all. */
  moved(value, side, share) {
    const { score } = this, ends = side === "min" ? 0 : 1;
    const from = value === undefined ? ends : this.share[Math.min(score.code(value), this.share.length - 1)];
    const last = score.edges.length - 1, forward = share > 0 ? 1 : -1;
    const present = value === undefined ? (side === "min" ? 0 : last) : Math.min(score.below(value), last);
    let edge = Math.min(this.codeAt(Math.max(0, Math.min(1, from + share))) >> 1, last);
    if ((edge - present) * forward < 1) edge = present + forward;
    if (edge < 0 || edge > last || (side === "min" ? edge === 0 && forward < 0 : edge === last && forward > 0)) {
      return (edge <= 0) === (side === "min") ? undefined : this.short(Math.max(0, Math.min(edge, last)), side);
    }
    return this.short(edge, side);
  }
}

/** The number with the fewest decimals above `low` and at most `high`. */
function shortest(low, high) {
  for (let digits = 0; digits < 18; digits++) {
    const scale = 10 ** digits, found = Math.floor(high * scale) / scale;
    if (Math.abs(high) * scale < 2 ** 53 && found > low && found <= high) return found;
  }
  return high;
}

/** A number for a person: short, with a true minus. */
function shown(number) {
  if (number === undefined || Number.isNaN(number)) return "–";
  const size = Math.abs(number);
  const text = size >= 1000 ? Math.round(number).toLocaleString("en") : size >= 0.001 || size === 0 ? String(Number(number.toPrecision(4))) : number.toPrecision(2);
  return text.replace("-", "−");
}

/** A whole number for a person. */
const counted = (number) => Math.round(number).toLocaleString("en");
