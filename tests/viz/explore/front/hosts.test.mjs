// The hosts: who is asked, how often, and what a page is told where there is no answer.
import assert from "node:assert/strict";
import { test } from "node:test";
import { serverHost } from "../../../../pullgeo/viz/explore/front/hosts/server.js";
import { kernelHost } from "../../../../pullgeo/viz/explore/front/hosts/widget.js";

const CURVE = { nodes: [[0, 0], [1, 1]], full: [[0, 0, 0], [1, 1, 1]], length: 2, error: 0.1, status: "CONVERGED", text: "" };

function served(answer) {
  const asked = [];
  globalThis.fetch = async (address, options) => {
    asked.push({ address, ...options, question: JSON.parse(options.body) });
    if (answer instanceof Error) throw answer;
    return { json: async () => answer };
  };
  return asked;
}

test("a server is asked for a geodesic, and its answer is passed on", async () => {
  const asked = served(CURVE);
  const host = serverHost();
  assert.deepEqual(await host.exact({ a: Float64Array.of(0, 1), b: [2, 3] }), CURVE);
  const { address, method, credentials, question } = asked[0];
  assert.deepEqual([address, method, credentials], ["solve", "POST", "omit"]);
  assert.deepEqual([question.kind, question.a, question.b], ["geodesic", [0, 1], [2, 3]]);
  assert.match(question.client, /^\w{8,64}$/);
  await host.shoot({ a: [0, 1], v: [1, 0] });
  await host.mean({ rows: Int32Array.of(2, 5) });
  assert.deepEqual(asked[1].question.v, [1, 0]);
  assert.deepEqual(asked[2].question.rows, [2, 5]);
  assert.equal(asked[2].question.client, question.client);
  const other = serverHost();
  await other.exact({ a: [0, 0], b: [1, 1], plane: "dims:0,3" });
  assert.notEqual(asked[3].question.client, question.client);
  assert.deepEqual([question.plane, asked[3].question.plane], [undefined, "dims:0,3"]);
});

test("the map of another plane is asked for beside other questions", async () => {
  const asked = served({ status: "DRAWN", text: "", payload: { title: "T" } });
  const host = serverHost();
  assert.equal((await host.map({ plane: "dims:0,3" })).payload.title, "T");
  assert.deepEqual([asked[0].question.kind, asked[0].question.plane], ["map", "dims:0,3"]);
  served(CURVE);
  await host.exact({ a: [0, 0], b: [1, 1] });
  const again = served(CURVE);
  await host.exact({ a: [0, 0], b: [1, 1] });
  assert.notEqual(asked[0].question.client, again[0].question.client);
});

test("members are asked about as a pair is, and a spread is an answer", async () => {
  const spread = { lengths: [1, null], mean: 1, std: null, cv: null, status: "NOT_SOLVED", text: "" };
  const asked = served(spread);
  assert.deepEqual(await serverHost().members({ a: [0, 1], b: [2, 3], plane: "dims:0,3" }), spread);
  const { kind, a, b, plane } = asked[0].question;
  assert.deepEqual([kind, a, b, plane], ["members", [0, 1], [2, 3], "dims:0,3"]);
  const { model, sent, answer } = kernel();
  const waiting = kernelHost(model).members({ a: [0, 1], b: [2, 3] });
  assert.deepEqual([sent[0].question.kind, sent[0].question.b], ["members", [2, 3]]);
  answer(sent[0].id, spread);
  assert.deepEqual(await waiting, spread);
});

test("a curve that did not converge is an answer, and a reason without a curve an error", async () => {
  served({ ...CURVE, status: "MAX_STEPS", text: "stopped" });
  assert.equal((await serverHost().exact({ a: [0, 0], b: [1, 1] })).status, "MAX_STEPS");
  served({ status: "TIMEOUT", text: "not solved within 10 s" });
  await assert.rejects(serverHost().exact({ a: [0, 0], b: [1, 1] }), /not solved within 10 s/);
  served(new TypeError("Failed to fetch"));
  await assert.rejects(serverHost().exact({ a: [0, 0], b: [1, 1] }), /Is it still running/);
});

test("what the page gave up itself is told apart", async () => {
  const abort = new AbortController();
  abort.abort();
  served(new DOMException("aborted", "AbortError"));
  await assert.rejects(serverHost().exact({ a: [0, 0], b: [1, 1], signal: abort.signal }), { name: "AbortError" });
});

function kernel() {
  const handlers = [];
  const sent = [];
  const model = {
    on: (event, handler) => handlers.push(handler),
    off: (event, handler) => handlers.splice(handlers.indexOf(handler), 1),
    send: (message) => sent.push(message),
  };
  return { model, sent, handlers, answer: (id, answer) => handlers.forEach((handler) => handler({ id, answer })) };
}

test("a kernel has one question at a time, and the newest of those that wait", async () => {
  const { model, sent, answer, handlers } = kernel();
  const host = kernelHost(model);
  const ends = (k) => ({ a: [0, 0], b: [k, 0] });
  const first = host.exact(ends(1));
  const second = host.exact(ends(2));
  const third = host.exact(ends(3));
  assert.equal(sent.length, 1);
  await assert.rejects(second, { name: "AbortError" });
  answer("of another view", CURVE);
  answer(sent[0].id, CURVE);
  assert.deepEqual(await first, CURVE);
  assert.equal(sent.length, 2);
  assert.deepEqual(sent[1].question.b, [3, 0]);
  answer(sent[1].id, { status: "FAILED", text: "RuntimeError: no such digit" });
  await assert.rejects(third, /no such digit/);
  host.close();
  assert.equal(handlers.length, 0);
});

test("a question that was given up is not sent, and does not hold up the next", async () => {
  const { model, sent, answer } = kernel();
  const host = kernelHost(model);
  const abort = new AbortController();
  const first = host.exact({ a: [0, 0], b: [1, 0], signal: abort.signal });
  const waiting = host.exact({ a: [0, 0], b: [2, 0], signal: abort.signal });
  abort.abort();
  await assert.rejects(first, { name: "AbortError" });
  await assert.rejects(waiting, { name: "AbortError" });
  const last = host.mean({ rows: [1, 2] });
  answer(sent[0].id, CURVE);
  assert.equal(sent.length, 2);
  assert.deepEqual(sent[1].question.rows, [1, 2]);
  answer(sent[1].id, CURVE);
  assert.deepEqual(await last, CURVE);
});
