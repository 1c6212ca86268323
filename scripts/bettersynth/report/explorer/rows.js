// Which rows are kept: a bit for each bound that a row fails, and counts of the rows that fail none, or one alone.

const { not_scored: NOT_SCORED, no_value: NO_VALUE, not_a_number: NOT_A_NUMBER } = meta.codes;
const MOST_BITS = 31;
const NO_BIN = 255;

/** One stat of all rows. `codes.py` says what edges and codes are. */
class Score {
  constructor(facts, place) {
    Object.assign(this, facts);
    this.place = place;
    this.operator = facts.key.split(".")[0];
    this.counts = new Float64Array(NO_BIN + 1);
    this.base = new Float64Array(NO_BIN + 1);
  }

  async load() {
    const [edges, first, several, lengths, others, exact] = await Promise.all([
      unpacked(this.edges, Float64Array),
      unpacked(this.first, Uint16Array),
      this.several === null ? new Uint32Array(0) : unpacked(this.several, Uint32Array),
      this.several === null ? new Uint16Array(0) : unpacked(this.lengths, Uint16Array),
      this.several === null ? new Uint16Array(0) : unpacked(this.others, Uint16Array),
      this.exact === undefined ? null : unpacked(this.exact, Float64Array),
    ]);
    Object.assign(this, { edges, first, several, lengths, others, exactOfSample: exact });
    this.startOf = new Map();
    for (let place = 0, start = 0; place < several.length; start += lengths[place++]) {
      this.startOf.set(several[place], [start, start + lengths[place]]);
    }
  }

  /** How many edges lie below a value. */
  below(value) {
    let low = 0, high = this.edges.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.edges[middle] < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The code of a value. */
  code(value) {
    const below = this.below(value);
    return 2 * below + (this.edges[below] === value ? 1 : 0);
  }

  /** The value of a code: of one between edges, the middle. */
  value(code) {
    if (code & 1) return this.edges[code >> 1];
    const last = this.edges.length - 1, after = code >> 1;
    return (this.edges[Math.max(after - 1, 0)] + this.edges[Math.min(after, last)]) / 2;
  }

  /** Codes of one row. */
  codesOf(row) {
    const span = this.startOf.get(row);
    if (span) return this.others.subarray(...span);
    return this.first[row] === NO_VALUE || this.first[row] === NOT_SCORED ? this.first.subarray(0, 0) : this.first.subarray(row, row + 1);
  }

  /** A function that says of a code whether a bound keeps it. */
  test(bound) {
    if (this.words) {
      const chosen = new Set(bound.one_of.map((word) => this.words.indexOf(word)));
      return (code) => chosen.has(code);
    }
    const [low, high] = this.range(bound);
    return (code) => code >= low && code <= high;
  }

  range({ min, max }) {
    const last = 2 * this.edges.length;
    return [min === undefined ? 0 : this.code(min), max === undefined ? last : this.code(max)];
  }
}

/** The rows of the page under a set of bounds. */
class Rows {
  constructor(scores) {
    this.scores = scores;
    this.size = meta.rows;
    this.mask = new Uint32Array(this.size);
    this.list = new Uint32Array(this.size);
    this.members = new Uint8Array(this.size);
    this.bounds = new Map();
    this.bits = new Map();
  }

  /** Start from other rows: `members` says how often each row is among them. */
  startFrom(members) {
    this.members = members;
    this.total = 0;
    for (let row = 0; row < this.size; row++) this.total += members[row];
    for (const score of this.scores) this.joined(score.operator);
  }

  /** Set the bound of a score, or take it away (`null`); false where there are too many. */
  setBound(score, bound) {
    if (bound === null) {
      this.bounds.delete(score);
      this.release(score);
    } else {
      if (!this.reserve(score)) return false;
      this.bounds.set(score, bound);
      this.judge(score, bound);
    }
    this.joined(score.operator);
    return true;
  }

  reserve(what) {
    if (this.bits.has(what)) return true;
    const used = [...this.bits.values()].reduce((sum, bit) => sum | bit, 0);
    for (let place = 0; place < MOST_BITS; place++) {
      if (!(used & (1 << place))) return this.bits.set(what, 1 << place), true;
    }
    return false;
  }

  release(what) {
    const bit = this.bits.get(what);
    if (bit === undefined) return;
    for (let row = 0; row < this.size; row++) this.mask[row] &= ~bit;
    this.bits.delete(what);
  }

  /** Give a score's bit to each row that its bound drops. */
  judge(score, bound) {
    const bit = this.bits.get(score), { mask, size } = this, { first } = score;
    if (score.words) {
      const test = score.test(bound);
      for (let row = 0; row < size; row++) mask[row] = test(first[row]) ? mask[row] & ~bit : mask[row] | bit;
    } else {
      const [low, high] = score.range(bound);
      for (let row = 0; row < size; row++) {
        const code = first[row];
        mask[row] = code >= low && code <= high ? mask[row] & ~bit : mask[row] | bit;
      }
    }
    const test = score.test(bound), all = bound.any_or_all === "all";
    for (const row of score.several) {
      const codes = score.codesOf(row);
      mask[row] = (all ? codes.every(test) : codes.some(test)) ? mask[row] & ~bit : mask[row] | bit;
    }
  }

  /** Several stats of an operator are asked of one and the same of a row's values, as the verb `filter` asks. */
  joined(operator) {
    const what = `together ${operator}`;
    const group = [...this.bounds].filter(([score, bound]) => score.operator === operator && bound.any_or_all !== "all");
    const rows = group.length > 1 ? [...group[0][0].several].filter((row) => this.members[row]) : [];
    if (!rows.length || !this.alike(group.map(([score]) => score)) || !this.reserve(what)) return this.release(what);
    const bit = this.bits.get(what), tests = group.map(([score, bound]) => [score, score.test(bound)]);
    for (const row of rows) {
      const codes = tests.map(([score, test]) => [...score.codesOf(row)].map(test));
      const together = codes[0].some((_, place) => codes.every((each) => each[place]));
      this.mask[row] = together ? this.mask[row] & ~bit : this.mask[row] | bit;
    }
  }

  /** Whether scores have as many values as each other in every row that one starts from. */
  alike([one, ...others]) {
    const count = (score, row) => score.codesOf(row).length;
    return others.every((other) => {
      for (let row = 0; row < this.size; row++) {
        if (this.members[row] && count(one, row) !== count(other, row)) return false;
      }
      return true;
    });
  }

  /** The bits that go with a score's bound. */
  own(score) {
    return (this.bits.get(score) ?? 0) | (this.bits.get(`together ${score.operator}`) ?? 0);
  }

  /** Count, for each score's bins, the rows that every other bound keeps; and what each bound does. */
  tally() {
    const { mask, members, list, size, scores } = this;
    const active = [...this.bounds.keys()], own = active.map((score) => this.own(score));
    const without = new Float64Array(active.length), fails = new Float64Array(active.length);
    for (const score of scores) score.counts.fill(0);
    let kept = 0, listed = 0;
    for (let row = 0; row < size; row++) {
      const often = members[row];
      if (!often) continue;
      const failed = mask[row];
      if (failed === 0) {
        kept += often;
        list[listed++] = row;
        continue;
      }
      for (let place = 0; place < own.length; place++) {
        if (failed & own[place]) fails[place] += often;
        if ((failed & ~own[place]) === 0) {
          without[place] += often;
          active[place].counts[active[place].bins[row]] += often;
        }
      }
    }
    for (const { counts, bins } of scores) {
      for (let place = 0; place < listed; place++) counts[bins[list[place]]] += members[list[place]];
    }
    this.kept = kept;
    this.effects = new Map(active.map((score, place) => [score, { alone: fails[place], beyond: without[place] }]));
  }

  tallyBase() {
    for (const score of this.scores) {
      score.base.fill(0);
      for (let row = 0; row < this.size; row++) {
        if (this.members[row]) score.base[score.bins[row]] += this.members[row];
      }
    }
  }
}
