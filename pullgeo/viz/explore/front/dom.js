/** Elements, numbers and files. Whatever comes from a payload is set as text, never as markup. */

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

/**
 * A new element; `svg:path` is one of SVG, `onclick` a listener, `true` an attribute without a value.
 *
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  const svg = tag.startsWith("svg:");
  const node = svg ? document.createElementNS(SVG_NAMESPACE, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/**
 * A number as people read it: a few digits, and no long tails of zeros.
 *
 * @param {number | null | undefined} value
 * @param {number} [digits]
 * @returns {string}
 */
export function spoken(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) {
    const [mantissa, exponent] = value.toExponential(Math.max(0, digits - 2)).split("e");
    return `${mantissa.replace("-", "−")} · 10${raised(exponent)}`;
  }
  return value.toPrecision(digits).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "").replace("-", "−");
}

/**
 * A length with its error, unless that is beyond the digits that are shown.
 *
 * @param {number | null} length
 * @param {number | null} error
 * @returns {string}
 */
export function withError(length, error) {
  const known = Number.isFinite(error) && Number.isFinite(length) && /** @type {number} */ (error) > 1e-4 * /** @type {number} */ (length);
  return known ? `${spoken(length)} ± ${spoken(error, 1)}` : spoken(length);
}

/** @param {string} exponent */
function raised(exponent) {
  return exponent.replace("+", "").replace("-", "⁻").replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]);
}

/**
 * Let the reader keep a file.
 *
 * @param {string} name
 * @param {string} kind
 * @param {string} text
 */
export function keepFile(name, kind, text) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/**
 * Text that plotly, which reads some tags as markup, shows as it is; cut where it would fill the screen.
 *
 * @param {unknown} text
 * @param {number} [most]
 * @returns {string}
 */
export function plotText(text, most = 60) {
  const plain = String(text);
  const cut = plain.length > most ? `${plain.slice(0, most - 1)}…` : plain;
  return cut.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}
