"use strict";
(() => {
  // A figure's data stand beside it as JSON. Where the figure carries pictures (layout.meta.hover_images), the panel
  // next to it shows the one that belongs to what the pointer meets: a trace's meta names a picture for each of its
  // points, or says how a grid of pictures lies on the plane.
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

  function pictureNumber(point) {
    const meta = point.fullData.meta;
    if (!meta) return -1;
    if (meta.images) return meta.images[point.pointNumber];
    if (meta.grid) {
      const { first, rows, columns, extent } = meta.grid;
      const cell = (value, [low, high], n) =>
        Math.min(n - 1, Math.max(0, Math.floor(((value - low) / (high - low)) * n)));
      return first + cell(point.y, extent[1], rows) * columns + cell(point.x, extent[0], columns);
    }
    return -1;
  }

  // Without a picture of its own a point shows that of the place where it lies.
  function nearestPicture(figure, point) {
    const own = pictureNumber(point);
    if (own >= 0) return own;
    const plane = figure._fullData.find((trace) => trace.meta && trace.meta.grid);
    return plane ? pictureNumber({ fullData: plane, x: point.x, y: point.y }) : -1;
  }

  function describe(point) {
    const number = (value) => Number(value).toPrecision(3);
    const { customdata, text, z } = point;
    const lines = [`(${number(point.x)}, ${number(point.y)})`];
    if (z !== undefined) return [...lines, `${point.fullData.name} ${z.toFixed(3)}`];
    if (typeof customdata === "string") return [...lines, customdata];
    if (customdata) {
      const [row, volume] = customdata;
      const name = point.fullData.name;
      lines.push(name === "latents" ? `latent ${row}` : `latent ${row}, class ${name}`, `log √det G ${volume.toFixed(3)}`);
    } else if (text) lines.push(...text.split("<br>"));
    return lines;
  }

  function connect(figure, panel) {
    const images = figure.layout.meta && figure.layout.meta.hover_images;
    if (!images) return;
    const canvas = panel.querySelector("canvas");
    const words = panel.querySelector("output");
    const sheet = new Image();
    canvas.width = images.width;
    canvas.height = images.height;
    const entities = document.createElement("textarea");
    figure.on("plotly_hover", (event) => {
      const point = event.points[0];
      const picture = nearestPicture(figure, point);
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, canvas.width, canvas.height);
      if (picture >= 0) {
        const x = (picture % images.columns) * images.width;
        const y = Math.floor(picture / images.columns) * images.height;
        context.drawImage(sheet, x, y, images.width, images.height, 0, 0, canvas.width, canvas.height);
      }
      // names are escaped for plotly, which reads markup
      entities.innerHTML = describe(point).join("\n");
      words.replaceChildren(...entities.value.split("\n").flatMap((line) => [line, document.createElement("br")]));
      panel.dataset.picture = picture;
    });
    sheet.addEventListener("load", () => { panel.dataset.ready = "true"; });
    sheet.src = images.sheet;
  }

  for (const place of document.querySelectorAll(".figure")) {
    const { data, layout } = JSON.parse(place.querySelector("script").textContent);
    const plot = place.querySelector(".plot");
    Plotly.newPlot(plot, data, layout, config).then((figure) => {
      const panel = place.querySelector(".peek");
      if (panel) connect(figure, panel);
      plot.dataset.drawn = "true";
    });
  }
})();
