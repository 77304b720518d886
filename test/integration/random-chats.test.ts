// The replies of random programs have the logits of cold runs over the same tokens.
import type { LoraConfig } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { expectFirstToken } from '../helpers/first-token.js';
import { LORA_METADATA, type LoraFile, writeLora } from '../helpers/loras.js';
import { openEngine } from '../helpers/open-engine.js';
import { random } from '../helpers/random.js';
import { type CheckedReply, runProgram } from '../helpers/random-chats.js';
import { rounds, variants } from '../helpers/soak.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
type Memory = (typeof MEMORIES)[number];
const LAYOUTS = ['unified', 'split'] as const;

/** An adapter for each model. */
const ADAPTERS: Record<Memory, { architecture: string } & LoraFile> = {
  dense: { architecture: 'qwen2' },
  'sliding-window': { architecture: 'gemma3' },
  recurrent: { architecture: 'mamba', weight: 'blk.0.ssm_in.weight', outputs: 512, value: 0.1 },
  hybrid: { architecture: 'jamba', weight: 'blk.1.attn_q.weight' },
};

async function adapterOf(name: Memory): Promise<LoraConfig> {
  const { architecture, ...file } = ADAPTERS[name];
  const metadata = LORA_METADATA.map(([key, type, value]): [string, string, unknown] => {
    const isArchitecture = key === 'general.architecture';
    return [key, type, isArchitecture ? architecture : value];
  });
  return { source: await writeLora(await temporaryDirectory(), 'adapter', { ...file, metadata }, 128) };
}

/** Compares each reply with a cold run over the tokens of its prompt. */
async function expectAsCold(
  replies: readonly CheckedReply[],
  settings: AgentSettings,
  adapters: readonly LoraConfig[][],
) {
  const { model, engine, lease } = await openEngine({ name: settings.name as Memory, maxSequences: 1 });
  for (const [index, loras] of adapters.entries()) {
    const loaded = await Promise.all(loras.map(({ source }) => model.loadLora(source as string)));
    await engine.context.setLoras(loaded.map((adapter) => ({ adapter, scale: 1 })));
    for (const { reply, prompt } of replies.filter((each) => each.adapters === index)) {
      const sequence = await lease();
      const { logProbabilities } = await engine.decode({ sequence, tokens: prompt, logProbabilities: 100 });
      engine.sessions.release(sequence);
      const { tokens = [], values = [] } = logProbabilities ?? {};
      expectFirstToken(reply, new Map(Array.from(tokens, (token, at) => [token, values[at] as number])));
    }
  }
}

describe.each(MEMORIES)('a random program with the %s model', (name) => {
  const layouts = variants(LAYOUTS, (layout) => (layout === 'split') === (name === 'hybrid'));
  it.each(layouts)('gets the logits of cold runs, in the %s layout', async (kvLayout) => {
    const settings: AgentSettings = { name, kvLayout, contextSize: 768, nSeqMax: 3, ...EXACT };
    const onDisk = { cacheDir: await temporaryDirectory(), conversations: { minSpeedup: 0, maxBytes: 2 ** 28 } };
    const start = () => startAgent({ ...settings, ...onDisk, reuse: 'nearest', maxMemoryBytes: 2 ** 20 });
    const adapters = [[], [await adapterOf(name)]];
    const seed = MEMORIES.indexOf(name) + 1;
    const replies = await runProgram({ start, adapters, below: random(seed), steps: rounds(8, 100) });
    expect(replies.length).toBeGreaterThan(3);
    expect(replies.some(({ reply }) => reply.usage.cachedInputTokens > 60)).toBe(true);
    await expectAsCold(replies, settings, adapters);
  });
});
