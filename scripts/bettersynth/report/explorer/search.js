// Search: a record by its id, or the rows whose captions hold all words.

const MOST_FOUND = 24;

class Search {
  constructor(rows, pictures) {
    Object.assign(this, { rows, pictures });
    byId("query").addEventListener("input", () => {
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.show(), 150);
    });
  }

  async show() {
    const query = byId("query").value.trim().toLowerCase(), latest = (this.latest = {});
    const found = query ? await this.find(query) : { rows: [], more: false };
    const cards = await Promise.all(found.rows.map((row) => card(row, this.pictures, this.verdict(row))));
    if (this.latest !== latest) return;
    byId("found").textContent = query ? `${found.rows.length}${found.more ? " of more" : ""} found` : "";
    put("results", cards);
  }

  async find(query) {
    const lowered = async (what) => (loading[`lower ${what}`] ??= new Texts((await texts[what]()).whole.toLowerCase(), meta.rows));
    const [ids, captions] = await Promise.all([lowered("ids"), lowered("captions")]);
    const words = query.split(/\s+/), found = new Set();
    const rarest = words.reduce((one, other) => (other.length > one.length ? other : one));
    const add = (row) => found.add(row).size > MOST_FOUND;
    this.each(ids, query, add);
    this.each(captions, rarest, (row) => words.every((word) => captions.at(row).includes(word)) && add(row));
    const rows = [...found];
    return { rows: rows.slice(0, MOST_FOUND), more: rows.length > MOST_FOUND };
  }

  /** Call `see` with each row whose text holds a word, till it says that this is enough. */
  each(texts, word, see) {
    for (let place = texts.whole.indexOf(word); place >= 0; ) {
      const row = texts.rowAt(place);
      if (see(row)) return;
      place = texts.whole.indexOf(word, texts.starts[row + 1]);
    }
  }

  /** Whether a row is kept, and which bounds drop it. */
  verdict(row) {
    const { rows } = this;
    if (!rows.members[row]) return ["not among the rows that one starts from"];
    const dropping = [...rows.bounds.keys()].filter((score) => rows.mask[row] & rows.own(score)).map((score) => score.key);
    return [dropping.length ? `dropped by ${dropping.join(", ")}` : "kept"];
  }
}
