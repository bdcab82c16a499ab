/** Outputs of the decoder on canvases: pictures, bars or lines. */

/**
 * @typedef {{kind: string, shape: number[], names: string[] | null, range: number[]}} Shown
 */

/** @param {Shown} shown */
export function canvasSize(shown) {
  return shown.kind === "image" ? { width: shown.shape[1], height: shown.shape[0] } : { width: 120, height: 72 };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Float32Array} values
 * @param {Shown} shown
 * @param {string} ink
 */
export function drawOutput(canvas, values, shown, ink) {
  const { width, height } = canvasSize(shown);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  if (context === null) return;
  context.clearRect(0, 0, width, height);
  const missing = values.length === 0 || !Number.isFinite(values[0]);
  canvas.dataset.missing = String(missing);
  if (missing) return;
  const [low, high] = shown.range;
  const per = high > low ? 1 / (high - low) : 1;
  if (shown.kind === "image") drawPicture(context, values, shown, low, per);
  else if (shown.kind === "bars") drawBars(context, values, low, per, ink);
  else drawLine(context, values, low, per, ink);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Float32Array} values
 * @param {Shown} shown
 * @param {number} low
 * @param {number} per
 */
function drawPicture(context, values, shown, low, per) {
  const [height, width, channels = 1] = shown.shape;
  const image = context.createImageData(width, height);
  const pixels = width * height;
  for (let i = 0; i < pixels; i++) {
    for (let c = 0; c < 3; c++) {
      // channels lead, as torch has them
      image.data[4 * i + c] = 255 * (values[(channels === 3 ? c * pixels : 0) + i] - low) * per;
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Float32Array} values
 * @param {number} low
 * @param {number} per
 * @param {string} ink
 */
function drawBars(context, values, low, per, ink) {
  const { width, height } = context.canvas;
  const zero = height * (1 - Math.min(1, Math.max(0, -low * per)));
  context.fillStyle = ink;
  const step = width / values.length;
  for (let i = 0; i < values.length; i++) {
    const top = height * (1 - (values[i] - low) * per);
    context.fillRect(i * step, Math.min(top, zero), Math.max(0.5, step * 0.8), Math.max(0.5, Math.abs(zero - top)));
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Float32Array} values
 * @param {number} low
 * @param {number} per
 * @param {string} ink
 */
function drawLine(context, values, low, per, ink) {
  const { width, height } = context.canvas;
  context.strokeStyle = ink;
  context.lineWidth = 1.25;
  context.beginPath();
  for (let i = 0; i < values.length; i++) {
    const x = (i / Math.max(1, values.length - 1)) * width, y = height * (1 - (values[i] - low) * per);
    if (i) context.lineTo(x, y);
    else context.moveTo(x, y);
  }
  context.stroke();
}

/**
 * The largest entries of an output, by name.
 *
 * @param {Float32Array} values
 * @param {Shown} shown
 * @returns {string}
 */
export function largestEntries(values, shown) {
  if (!shown.names || values.length === 0) return "";
  const names = shown.names;
  const order = Array.from(values.keys()).sort((i, j) => values[j] - values[i]).slice(0, 3);
  return order.map((i) => `${names[i].slice(0, 24)} ${values[i].toPrecision(3)}`).join(", ");
}
