// Draws every chart where the page has a place for it. Charts name their colours as CSS variables,
// so that they follow the page from light to dark without being drawn again.
const specs = JSON.parse(document.getElementById("specs").textContent);
for (const place of document.querySelectorAll("[data-chart]")) {
  vegaEmbed(place, specs[place.dataset.chart], { renderer: "svg", actions: false }).catch((error) => {
    place.textContent = "This chart could not be drawn: " + error.message;
  });
}
