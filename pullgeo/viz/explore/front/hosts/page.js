/** The host of a page that stands alone in a file, or beside a server. */

import { mountAtlas } from "../atlas.js";

const place = document.querySelector("#explorer");
const data = document.querySelector("#payload");
if (place && data) {
  const globals = /** @type {any} */ (globalThis);
  mountAtlas(/** @type {HTMLElement} */ (place), JSON.parse(data.textContent ?? "[]"), globals.pullgeoHost ?? {}, (explorer) => {
    globals.explorer = explorer;
  });
}
