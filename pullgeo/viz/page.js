"use strict";
(() => {
  // a figure's data stand beside it as JSON
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  for (const place of document.querySelectorAll(".figure")) {
    const { data, layout } = JSON.parse(place.querySelector("script").textContent);
    const plot = place.querySelector(".plot");
    Plotly.newPlot(plot, data, layout, config).then(() => { plot.dataset.drawn = "true"; });
  }
})();
