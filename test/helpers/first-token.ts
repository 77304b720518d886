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
  const [first] = actual.logProbabilities ?? [];
  const likely = new Map(
    cold.logProbabilities?.[0]?.likely.map(({ token, logProbability }) => [token, logProbability]),
  );
  for (const { token, logProbability } of first?.likely.slice(0, 1) ?? []) {
    expect(Math.abs(logProbability - (likely.get(token) ?? Number.NEGATIVE_INFINITY))).toBeLessThan(NOISE);
  }
  expect(first?.likely.length).toBeGreaterThan(0);
}
