import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { combinedSignal } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

describe('a signal of several', () => {
  it('fires with a time limit that nobody else refers to', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const make = () => combinedSignal(new AbortController().signal, AbortSignal.timeout(100));
    const fired = new Promise((resolve) => make().addEventListener('abort', resolve, { once: true }));
    for (let turn = 0; turn < 5; turn++) {
      await new Promise(setImmediate);
      collect();
    }
    await fired;
  });

  it('is one of its own, and may be of none', () => {
    const { signal } = new AbortController();
    expect(combinedSignal(signal)).not.toBe(signal);
    expect(combinedSignal().aborted).toBe(false);
    expect(combinedSignal(undefined, AbortSignal.abort('why'))).toMatchObject({ aborted: true, reason: 'why' });
  });
});
