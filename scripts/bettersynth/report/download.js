// Every figure and table of the page as a file: drawings as SVG, their numbers as CSV. Without this script, they are there to be seen.
"use strict";
{
  const PROPERTIES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "font", "text-anchor", "opacity"];

  /** A drawing that stands by itself: the page's colours written into it. */
  function standalone(drawing) {
    const copy = drawing.cloneNode(true), copies = copy.querySelectorAll("*");
    drawing.querySelectorAll("*").forEach((part, place) => {
      const style = getComputedStyle(part);
      copies[place].setAttribute("style", PROPERTIES.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
    });
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("style", `background:${getComputedStyle(document.body).backgroundColor}`);
    return new XMLSerializer().serializeToString(copy);
  }

  /** Lines as CSV: what a comma, a quote or a line's end stands in is quoted. */
  const csv = (lines) => lines.map((line) => line.map((value) => (/[",\n]/.test(value ?? "") ? `"${String(value).replaceAll('"', '""')}"` : value ?? "")).join(",")).join("\n") + "\n";

  /** The text of a table's cells, one that spans several lines or columns in each. */
  function lines(table) {
    const found = [...table.rows].map(() => []);
    [...table.rows].forEach((row, top) => {
      let left = 0;
      for (const cell of row.cells) {
        while (found[top][left] !== undefined) left++;
        const text = cell.innerText.trim().replace(/\s+/g, " ");
        for (let down = 0; down < cell.rowSpan && top + down < found.length; down++) for (let right = 0; right < cell.colSpan; right++) found[top + down][left + right] = text;
        left += cell.colSpan;
      }
    });
    return found;
  }

  function button(text, about, name, make) {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    made.setAttribute("aria-label", `${text} of ${about}`);
    made.addEventListener("click", () => {
      const [content, type] = make(), link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([content], { type }));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    return made;
  }

  function offer(after, buttons) {
    const made = document.createElement("p");
    made.className = "downloads";
    made.append(...buttons);
    after.after(made);
  }

  for (const numbers of document.querySelectorAll("script.numbers")) {
    const drawing = numbers.parentElement.querySelector("svg"), name = numbers.dataset.name;
    const about = drawing.querySelector("title").textContent;
    offer(drawing, [
      button("SVG", about, `${name}.svg`, () => [standalone(drawing), "image/svg+xml"]),
      button("CSV", about, `${name}.csv`, () => [csv(JSON.parse(numbers.textContent)), "text/csv"]),
    ]);
  }
  for (const table of document.querySelectorAll(".scroll[aria-label] > table")) {
    const about = table.parentElement.getAttribute("aria-label");
    const name = about.toLowerCase().replace(/[^a-z0-9]+/g, "-");
    offer(table.parentElement, [button("CSV", about, `${name}.csv`, () => [csv(lines(table)), "text/csv"])]);
  }
}
