// Compares the first tokens of two replies.
import type { Reply } from 'llama-headstart';
import { expect } from 'vitest';

/** Cells at other places in the KV cache change log-probabilities by less than this. */
const NOISE = 0.05;

/**
 * Expects that the most likely first token of a reply has the same log-probability in a cold reply. Both replies need
 * `logProbabilities` of 3 or more, so that the cold reply still lists a token that was a little more likely.
 */
export function expectSameFirstToken(actual: Reply, cold: Reply): void {
  const likely = cold.logProbabilities?.[0]?.likely ?? [];
  expectFirstToken(actual, new Map(likely.map(({ token, logProbability }) => [token, logProbability])));
}

/**
 * Expects that the most likely first token of a reply has the expected log-probability.
 *
 * @param expected the log-probabilities of likely tokens in a cold run
 */
export function expectFirstToken({ logProbabilities = [] }: Reply, expected: ReadonlyMap<number, number>): void {
  const [mostLikely] = logProbabilities[0]?.likely ?? [];
  expect(mostLikely).toBeDefined();
  if (mostLikely !== undefined) {
    const { token, logProbability } = mostLikely;
    expect(Math.abs(logProbability - (expected.get(token) ?? Number.NEGATIVE_INFINITY))).toBeLessThan(NOISE);
  }
}
