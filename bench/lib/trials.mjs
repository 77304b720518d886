// Alternates the trials of several measures, so that the same noise affects all of them, and computes medians.

/** @param {number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Runs every measure once per round. A warm-up round runs first, and its results are dropped.
 *
 * @param {number} rounds
 * @param {Record<string, () => Promise<number>>} measures by name; each returns milliseconds
 * @param {(fraction: number, detail: string) => void} [onProgress]
 * @returns {Promise<Record<string, number>>} the median of each measure
 */
export async function interleave(rounds, measures, onProgress) {
  return medians([await trials(rounds, measures, onProgress)]);
}

/**
 * Like {@link interleave}, but returns every result.
 *
 * @param {number} rounds
 * @param {Record<string, () => Promise<number>>} measures
 * @param {(fraction: number, detail: string) => void} [onProgress]
 * @param {number} [warmUpRounds] the number of additional rounds that run first; their results are dropped
 * @returns {Promise<Record<string, number[]>>}
 */
export async function trials(rounds, measures, onProgress = () => {}, warmUpRounds = 1) {
  const names = Object.keys(measures);
  const results = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 1 - warmUpRounds; round <= rounds; round++) {
    // Every second round runs in reverse order, so that no measure always follows the same other measure.
    for (const name of round % 2 === 0 ? names : [...names].reverse()) {
      const ms = await measures[name]();
      if (round > 0) results[name].push(ms);
    }
    onProgress(Math.max(0, round) / rounds, `round ${round} of ${rounds}`);
  }
  return results;
}

/**
 * Returns the median of each measure over several calls of {@link trials}.
 * @param {Record<string, number[]>[]} passes
 */
export function medians(passes) {
  return Object.fromEntries(
    Object.keys(passes[0]).map((name) => [name, median(passes.flatMap((results) => results[name]))]),
  );
}
