// What the page holds: data blocks are unpacked when they are asked for.

const meta = JSON.parse(document.getElementById("meta").textContent);

/** An element of the page by its id. */
const byId = (id) => document.getElementById(id);

/** A new element with properties and children; a text among these stays text. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function bytesOf(block) {
  const text = byId(`block-${block}`).textContent;
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let place = 0; place < bytes.length; place++) bytes[place] = binary.charCodeAt(place);
  return bytes;
}

/** The numbers of a data block, as an array of the type. */
async function unpacked(block, Type = Uint8Array) {
  const stream = new Blob([bytesOf(block)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Type(await new Response(stream).arrayBuffer());
}

/** Texts that a NUL ends each: the whole of them, and where each begins. */
class Texts {
  constructor(whole, count) {
    this.whole = whole;
    this.starts = new Uint32Array(count + 1);
    for (let place = 0, start = 0; place < count; place++) {
      start = whole.indexOf("\0", start) + 1;
      this.starts[place + 1] = start;
    }
  }

  static async of(block, count) {
    return new Texts(new TextDecoder().decode(await unpacked(block)), count);
  }

  at(row) {
    return this.whole.slice(this.starts[row], this.starts[row + 1] - 1);
  }

  /** The row whose text covers a place in the whole. */
  rowAt(place) {
    let low = 0, high = this.starts.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.starts[middle] <= place) low = middle;
      else high = middle;
    }
    return low;
  }
}

const loading = {};
/** Ids, captions, what each row was made of, and pictures: each unpacked once, when it is first needed. */
const texts = {
  ids: () => (loading.ids ??= Texts.of(meta.ids, meta.rows)),
  captions: () => (loading.captions ??= Texts.of(meta.captions, meta.rows)),
  origins: () => (loading.origins ??= unpacked(meta.origins, Int32Array)),
};
