// Runs the front end's mathematics on cases that a Python test wrote, and prints what it finds as JSON.
import { readFileSync } from "node:fs";
import { openDecode } from "../../../../pullgeo/viz/explore/front/decode.js";
import { chordEnergy, geodesic } from "../../../../pullgeo/viz/explore/front/geodesic.js";
import { gaussCurvature, metricAt } from "../../../../pullgeo/viz/explore/front/metric.js";
import { Members } from "../../../../pullgeo/viz/explore/front/members.js";
import { openSurface } from "../../../../pullgeo/viz/explore/front/surface.js";

const work = JSON.parse(readFileSync(process.argv[2], "utf8"));
const surface = openSurface(work.surface);
const decode = work.decode ? openDecode({ kind: "line", ...work.decode }, surface) : null;
const members = work.members ? new Members(work.members) : null;
const { signal } = new AbortController();
const out = {
  metric: work.places.map(([x, y]) => {
    const { E, F, G } = metricAt(surface, x, y);
    return [E, F, G];
  }),
  curvature: work.places.map(([x, y]) => gaussCurvature(surface, x, y)),
  inside: work.places.map(([x, y]) => surface.inside(x, y)),
  decoded: decode ? work.places.slice(0, 50).map(([x, y]) => Array.from(decode(x, y))) : [],
  disagreement: members ? work.places.map(([x, y]) => members.disagreement(x, y)) : [],
  spreads: members ? await Promise.all((work.pairs ?? []).map(([a, b]) => members.spread(a, b, signal, async () => undefined))) : [],
  energies: (work.curves ?? []).map((nodes) => {
    const T = nodes.length - 1;
    const energy = chordEnergy(surface, T);
    const value = 2 * T * energy.expand(Float64Array.from(nodes.flat()));
    const scaled = (/** @type {Float64Array} */ array) => Array.from(array, (v) => 2 * T * v);
    return {
      energy: value,
      gradient: scaled(energy.gradient),
      diagonal: scaled(energy.diagonal),
      off: scaled(energy.off),
    };
  }),
  geodesics: (work.pairs ?? []).map(([a, b]) => {
    const { nodes, length, error, status, text } = geodesic(surface, a, b, work.options ?? {});
    return { nodes: Array.from(nodes), length, error, status, text };
  }),
};
// JSON has no NaN
process.stdout.write(JSON.stringify(out, (_, v) => (typeof v === "number" && !Number.isFinite(v) ? null : v)));
