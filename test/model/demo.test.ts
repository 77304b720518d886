// Checks the demo's output on a micro model: the JSON fields, and the same reply from every session.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { ONE_CORE } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';

interface DemoSession {
  source: string;
  cache: string;
  /** Earlier versions had this field instead of `source` and `cache`. */
  tier: string;
  ms: number;
  cachedTokens: number;
  firstTokenMs: number;
  reply: string;
}

it('the demo prints JSON, and its sessions reply the same after a prefill and after warm starts', async () => {
  const script = fileURLToPath(new URL('../../scripts/demo.mjs', import.meta.url));
  const args = [script, '--json', '--model', microModel('dense')];
  const { stdout } = await promisify(execFile)(process.execPath, args, { env: ONE_CORE });
  const { model, machine, template, uncached, cached, totals, stats } = JSON.parse(stdout);

  const nine = Array(9).fill('resident');
  const starts = (at: number, name: 'source' | 'tier') => cached[at].sessions.map((each: DemoSession) => each[name]);
  expect([starts(0, 'source'), starts(1, 'source')]).toEqual([
    ['prefill', ...nine],
    ['disk', ...nine],
  ]);
  expect(starts(0, 'tier')).toEqual(['miss', ...nine]);
  const sessions: DemoSession[] = cached.flatMap(({ sessions }: { sessions: DemoSession[] }) => sessions);
  expect(new Set([...uncached.sessions, ...sessions].map(({ reply }: DemoSession) => reply)).size).toBe(1);
  for (const { cache, cachedTokens, ms, firstTokenMs } of sessions) {
    expect(cachedTokens).toBe(cache === 'miss' ? 0 : template.tokens);
    expect([ms, firstTokenMs].every((value) => value > 0)).toBe(true);
  }
  expect(uncached.sessions).toHaveLength(10);
  expect(model).toEqual({
    name: expect.any(String),
    sizeBytes: expect.any(Number),
    sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
  });
  expect(machine).toEqual({ cpu: expect.any(String), threads: expect.any(Number) });
  expect(template).toEqual({
    tokens: expect.any(Number),
    stateBytes: expect.any(Number),
    key: expect.stringMatching(/^[0-9a-f]{64}$/),
  });
  expect(totals.speedup).toBeCloseTo(totals.uncachedMs / totals.cachedMs, 6);
  expect(stats).toMatchObject({ entries: 1, totalTokens: template.tokens, hits: 10, misses: 0, hitRate: 1 });
});
