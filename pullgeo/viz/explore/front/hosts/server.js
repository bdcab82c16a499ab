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
   * @returns {Promise<any>}
   */
  async function ask(question, signal) {
    let answer;
    try {
      const response = await fetch(address, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ client, ...question }),
        cache: "no-store",
        credentials: "omit",
        signal,
      });
      answer = await response.json();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Error("The server does not answer. Is it still running?");
    }
    if (!("full" in answer)) throw new Error(answer.text);
    return answer;
  }

  return {
    /** @param {{a: number[], b: number[], signal?: AbortSignal}} ends @returns {Promise<ExactCurve>} */
    exact: ({ a, b, signal }) => ask({ kind: "geodesic", a: [...a], b: [...b] }, signal),
    /** @param {{a: number[], v: number[], signal?: AbortSignal}} arrow @returns {Promise<ExactCurve>} */
    shoot: ({ a, v, signal }) => ask({ kind: "exponential", a: [...a], v: [...v] }, signal),
    /** @param {{rows: number[], signal?: AbortSignal}} lasso @returns {Promise<ExactMean>} */
    mean: ({ rows, signal }) => ask({ kind: "mean", rows: [...rows] }, signal),
  };
}
