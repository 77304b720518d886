// Tests which flash attention agents use by default, and that templates cached with an earlier default stay usable.
import { expect, it } from 'vitest';
import { startAgent, startOn, temporaryDirectory } from '../helpers/agents.js';

it('an agent on the CPU has flash attention off by default, and on if it is set or the V cache is quantized', async () => {
  const uses = async (settings: Parameters<typeof startAgent>[0]) => {
    const agent = await startAgent({ contextSize: 512, ...settings });
    return (await agent.createSession()).report.key;
  };
  const [byDefault, auto, off, on] = await Promise.all([
    uses({}),
    uses({ flashAttention: 'auto' }),
    uses({ flashAttention: false }),
    uses({ flashAttention: true }),
  ]);
  expect([byDefault, auto]).toEqual([off, off]);
  expect(on).not.toBe(off);
  const quantized = { valueType: 'q8_0' } as const;
  expect(await uses(quantized)).toBe(await uses({ ...quantized, flashAttention: true }));
});

it('a template that was cached with flash attention is used by agents with this setting', async () => {
  const directory = await temporaryDirectory();
  await startOn(directory, { flashAttention: true });
  expect(await startOn(directory, { flashAttention: true })).toMatchObject({ source: 'disk' });
  expect(await startOn(directory)).toMatchObject({ source: 'prefill' });
  expect(await startOn(directory)).toMatchObject({ source: 'disk' }); // both entries stay
  expect(await startOn(directory, { flashAttention: true })).toMatchObject({ source: 'disk' });
});
