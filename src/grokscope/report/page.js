// Draws every chart where the page has a place for it. Charts name their colours as CSS variables,
// so that they follow the page from light to dark without being drawn again.
const specs = JSON.parse(document.getElementById("specs").textContent);
for (const place of document.querySelectorAll("[data-chart]")) {
  vegaEmbed(place, specs[place.dataset.chart], { renderer: "svg", actions: false }).catch((error) => {
    place.textContent = "This chart could not be drawn: " + error.message;
  });
}
// A table whose headings are buttons is sorted by the column of the one pressed; pressed again, the
// other way round. Cells without a value stay at the end.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const body = heading.closest("table").tBodies[0];
    const order = heading.ariaSort === "ascending" ? -1 : 1;
    const key = (row) => {
      const cell = row.cells[heading.cellIndex];
      return cell.dataset.value ?? cell.textContent.trim();
    };
    const rows = [...body.rows].map((row) => [key(row), row]);
    const compared = (a, b) => (Number.isNaN(a - b) ? a.localeCompare(b) : a - b);
    rows.sort(([a], [b]) => (a === "") - (b === "") || order * compared(a, b));
    for (const other of heading.parentElement.cells) other.ariaSort = "none";
    heading.ariaSort = order > 0 ? "ascending" : "descending";
    body.append(...rows.map(([, row]) => row));
  });
}
