// Two scores against each other: how many rows lie at each place, kept ones over dropped ones.

const CELLS = 160;

class Scatter {
  constructor(rows, scales) {
    Object.assign(this, { rows, scales });
    this.canvas = byId("plane");
    this.kept = new Float64Array(CELLS * CELLS);
    this.dropped = new Float64Array(CELLS * CELLS);
    this.image = element("canvas", { width: CELLS, height: CELLS });
  }

  get inSight() {
    const { top, bottom } = this.canvas.getBoundingClientRect();
    return top < window.innerHeight && bottom > 0;
  }

  /** Choose the two scores; each must be a number. */
  choose(across, up) {
    [this.across, this.up] = [across, up];
    this.cells = [across, up].map((score) => this.cellsOf(score));
  }

  cellsOf(score) {
    const scale = this.scales.get(score), cells = new Int16Array(65536).fill(-1);
    for (let code = 0; code <= 2 * score.edges.length; code++) {
      const place = scale.axis === "value" ? scale.place(score.value(code)) : (scale.share[code] + scale.share[code + 1]) / 2;
      cells[code] = Math.max(0, Math.min(CELLS - 1, Math.floor(place * CELLS)));
    }
    return cells;
  }

  draw(bounds) {
    if (!this.across) return;
    this.count();
    this.paint();
    const size = Math.min(this.canvas.parentElement.clientWidth, 460), context = cleared(this.canvas, size, size);
    if (!context) return;
    this.canvas.style.width = `${size}px`;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.image, 0, 0, size, size);
    context.strokeStyle = colour("ink");
    context.setLineDash([4, 3]);
    const line = (x1, y1, x2, y2) => (context.beginPath(), context.moveTo(x1, y1), context.lineTo(x2, y2), context.stroke());
    for (const side of SIDES) {
      const [x, y] = [this.across, this.up].map((score) => {
        const value = bounds.get(score)?.[side];
        return value === undefined ? undefined : this.scales.get(score).place(value) * size;
      });
      if (x !== undefined) line(x, 0, x, size);
      if (y !== undefined) line(0, size - y, size, size - y);
    }
    byId("plane-about").textContent = `${this.up.key} (up) against ${this.across.key} (across): coloured, rows that every bound keeps; grey, the others; the darker, the more.`;
  }

  count() {
    const { mask, members, size } = this.rows, [x, y] = this.cells, { kept, dropped } = this;
    const across = this.across.first, up = this.up.first;
    kept.fill(0);
    dropped.fill(0);
    for (let row = 0; row < size; row++) {
      if (!members[row]) continue;
      const column = x[across[row]], line = y[up[row]];
      if (column < 0 || line < 0) continue;
      (mask[row] ? dropped : kept)[(CELLS - 1 - line) * CELLS + column] += members[row];
    }
  }

  paint() {
    const context = this.image.getContext("2d"), pixels = context.createImageData(CELLS, CELLS);
    const most = Math.log1p(Math.max(...this.kept, ...this.dropped));
    const [strong, weak] = ["accent", "faint"].map(rgb);
    for (let cell = 0; cell < CELLS * CELLS; cell++) {
      const inside = this.kept[cell], outside = this.dropped[cell];
      if (!inside && !outside) continue;
      const paint = inside >= outside ? strong : weak;
      pixels.data.set(paint, 4 * cell);
      pixels.data[4 * cell + 3] = 110 + (145 * Math.log1p(Math.max(inside, outside))) / most;
    }
    context.putImageData(pixels, 0, 0);
  }
}

/** Red, green and blue of a colour of the style sheet. */
function rgb(name) {
  const hex = colour(name).replace("#", "");
  return [0, 2, 4].map((place) => parseInt(hex.slice(place, place + 2), 16));
}
