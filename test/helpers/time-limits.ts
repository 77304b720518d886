// Time limits in tests. How long a machine needs for the steps in front of a time limit is unknown, and may be much on
// a busy one.

const MAX_MS = 60_000;

/**
 * Runs a scenario with a time limit, in ms. As long as it fails, it runs again with a longer limit: the limit may have
 * been over too early.
 *
 * @throws the error of the last run
 */
export async function withEnoughTime(ms: number, scenario: (ms: number) => Promise<void>): Promise<void> {
  try {
    await scenario(ms);
  } catch (error) {
    if (ms * 4 > MAX_MS) {
      throw error;
    }
    await withEnoughTime(ms * 4, scenario);
  }
}
