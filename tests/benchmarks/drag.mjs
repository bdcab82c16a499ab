// Times of the front end's solver on a surface that test_explore.py wrote; prints JSON.
import { readFileSync } from "node:fs";
import { openDecode } from "../../pullgeo/viz/explore/front/decode.js";
import { distanceField } from "../../pullgeo/viz/explore/front/distance.js";
import { fan } from "../../pullgeo/viz/explore/front/exponential.js";
import { Tracker, geodesic } from "../../pullgeo/viz/explore/front/geodesic.js";
import { gaussCurvature, grid } from "../../pullgeo/viz/explore/front/metric.js";
import { frechetMean } from "../../pullgeo/viz/explore/front/mean.js";
import { openSurface } from "../../pullgeo/viz/explore/front/surface.js";

const work = JSON.parse(readFileSync(process.argv[2], "utf8"));
const z = work.latents;
const timed = (f) => {
  const start = process.cpuUsage();
  const value = f();
  const spent = process.cpuUsage(start);
  return [value, (spent.user + spent.system) / 1e3];
};
const quantile = (values, q) => [...values].sort((a, b) => a - b)[Math.floor(q * (values.length - 1))];

const [surface, open] = timed(() => openSurface(work.surface));
const decode = openDecode({ kind: "image", ...work.decode }, surface);
const single = [], statuses = {};
for (let i = 0; i + 1 < Math.min(z.length, 512); i += 2) {
  const [curve, ms] = timed(() => geodesic(surface, z[i], z[i + 1]));
  single.push(ms);
  statuses[curve.status] = (statuses[curve.status] ?? 0) + 1;
}
// an end is dragged from one latent to the next in steps of a hundredth of the map
const moves = [], dragged = {};
const tracker = new Tracker(surface);
const size = Math.min(surface.x[1] - surface.x[0], surface.y[1] - surface.y[0]);
for (let k = 0; k < 12; k++) {
  const [from, to] = [z[3 * k + 1], z[3 * k + 2]];
  const steps = Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / (0.01 * size));
  for (let i = 0; i <= steps; i++) {
    const b = [0, 1].map((c) => from[c] + ((to[c] - from[c]) * i) / steps);
    const [curve, ms] = timed(() => tracker.move(z[3 * k], b));
    moves.push(ms);
    dragged[curve.status] = (dragged[curve.status] ?? 0) + 1;
  }
}
const out = {
  open,
  geodesic: { median: quantile(single, 0.5), p95: quantile(single, 0.95), statuses },
  move: { median: quantile(moves, 0.5), p95: quantile(moves, 0.95), max: quantile(moves, 1), count: moves.length, statuses: dragged },
  decode: timed(() => z.slice(0, 20).map(([x, y]) => decode(x, y)))[1] / 20,
  distance: timed(() => distanceField(surface, z[0], 97, 97))[1],
  curvature: timed(() => grid(surface, gaussCurvature, 128, 128))[1],
  fan: timed(() => fan(surface, z[0], 24, 1))[1],
  mean: timed(() => frechetMean(surface, z.slice(0, 50)))[1],
};
process.stdout.write(JSON.stringify(out));
