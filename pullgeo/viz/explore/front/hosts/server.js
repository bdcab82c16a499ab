// The host of a page beside a server, which solves exactly and in all dimensions of the latent space.

/**
 * @typedef {{nodes: number[][], full: number[][], length: number|null, error: number|null, status: string, text: string,
 *   converged: boolean}} ExactCurve
 * @typedef {{point: number[], full: number[], euclidean: number[], variance: number|null, status: string, text: string,
 *   converged: boolean}} ExactMean
 */

/**
 * What the server answers. A promise is rejected with the server's reason where there is no curve to show, and with an
 * `AbortError` where the caller gave it up.
 *
 * @param {string} [address] where questions go, beside the page
 */
export function serverHost(address = "solve") {
  // names this page among those that ask at the same time; a newer question takes the place of an older one
  const client = Array.from({ length: 4 }, () => Math.random().toString(36).slice(2, 10)).join("");

  /**
   * @param {Record<string, unknown>} question
   * @param {AbortSignal} [signal]
   * @param {string} [asker] another name, for a question that does not take the place of others
   * @returns {Promise<any>}
   */
  async function ask(question, signal, asker = client) {
    let answer;
    try {
      const response = await fetch(address, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ client: asker, ...question }),
        cache: "no-store",
        credentials: "omit",
        signal,
      });
      answer = await response.json();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Error("The server does not answer. Is it still running?");
    }
    if (!["full", "payload", "lengths"].some((name) => name in answer)) throw new Error(answer.text);
    return answer;
  }

  return {
    /** @param {{a: number[], b: number[], plane?: string, signal?: AbortSignal}} ends @returns {Promise<ExactCurve>} */
    exact: ({ a, b, plane, signal }) => ask({ kind: "geodesic", a: [...a], b: [...b], plane }, signal),
    /** @param {{a: number[], b: number[], plane?: string, signal?: AbortSignal}} ends the spread of the members' distances */
    members: ({ a, b, plane, signal }) => ask({ kind: "members", a: [...a], b: [...b], plane }, signal),
    /** @param {{a: number[], v: number[], plane?: string, signal?: AbortSignal}} arrow @returns {Promise<ExactCurve>} */
    shoot: ({ a, v, plane, signal }) => ask({ kind: "exponential", a: [...a], v: [...v], plane }, signal),
    /** @param {{rows: number[], plane?: string, signal?: AbortSignal}} lasso @returns {Promise<ExactMean>} */
    mean: ({ rows, plane, signal }) => ask({ kind: "mean", rows: [...rows], plane }, signal),
    /** @param {{plane: string, signal?: AbortSignal}} which @returns {Promise<{payload: any}>} the map of another plane */
    map: ({ plane, signal }) => ask({ kind: "map", plane }, signal, `${client}-map`),
  };
}
