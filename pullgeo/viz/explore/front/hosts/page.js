/** The host of a page that stands alone in a file. */

import { mount } from "../scene.js";

const place = document.querySelector("#explorer");
const data = document.querySelector("#payload");
if (place && data) {
  const host = /** @type {any} */ (globalThis).pullgeoHost ?? {};
  /** @type {any} */ (globalThis).explorer = mount(/** @type {HTMLElement} */ (place), JSON.parse(data.textContent ?? "{}"), host);
}
