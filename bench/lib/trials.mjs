// Trials of several measures taken in turn, so that all of them meet the same noise, and their medians.

/** @param {number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Runs every measure once a round, in turn, after one round that does not count.
 *
 * @param {number} rounds
 * @param {Record<string, () => Promise<number>>} measures each returns milliseconds
 * @param {(fraction: number, detail: string) => void} [onProgress]
 * @returns {Promise<Record<string, number>>} the median of each
 */
export async function interleave(rounds, measures, onProgress) {
  return medians([await trials(rounds, measures, onProgress)]);
}

/**
 * As {@link interleave}, with all that was measured.
 *
 * @param {number} rounds
 * @param {Record<string, () => Promise<number>>} measures
 * @param {(fraction: number, detail: string) => void} [onProgress]
 * @param {number} [uncounted] rounds before those that count
 * @returns {Promise<Record<string, number[]>>}
 */
export async function trials(rounds, measures, onProgress = () => {}, uncounted = 1) {
  const names = Object.keys(measures);
  const results = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 1 - uncounted; round <= rounds; round++) {
    // Every second round backwards: no measure always follows the same one.
    for (const name of round % 2 === 0 ? names : [...names].reverse()) {
      const ms = await measures[name]();
      if (round > 0) results[name].push(ms);
    }
    onProgress(Math.max(0, round) / rounds, `round ${round} of ${rounds}`);
  }
  return results;
}

/** @param {Record<string, number[]>[]} passes of {@link trials}: the medians over all of them */
export function medians(passes) {
  return Object.fromEntries(
    Object.keys(passes[0]).map((name) => [name, median(passes.flatMap((results) => results[name]))]),
  );
}
