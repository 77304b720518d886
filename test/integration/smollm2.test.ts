// The specification's example with a real model: SmolLM2-135M-Instruct.
import { readdir, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { type AgentOptions, AgentServer } from 'llama-headstart';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { temporaryDirectory } from '../helpers/agents.js';
import { testModel } from '../helpers/models.js';
import { inOtherProcess } from '../helpers/processes.js';
import { SYSTEM_PROMPT, TOOLS } from '../helpers/prompts.js';

const model = testModel();
const title = model ? 'SmolLM2' : 'SmolLM2 (skipped: LLAMA_HEADSTART_TEST_MODEL names no model)';

const QUESTION = 'When do you open?';
const MAX_TOKENS = 12;

const options = (cacheDir: string | null): AgentOptions => ({
  model: {
    source: model as string,
    cacheDir,
    contextSize: 1024,
    batchSize: 512,
    nSeqMax: 4,
    nThreads: 1,
    // Without flash attention, the place of a session's cells changes the last digits of its logits, and so some replies.
    flashAttention: true,
  },
  cache: { minFreeDiskBytes: 0 },
  systemPrompt: SYSTEM_PROMPT,
  sampling: { temperature: 0 },
  tools: TOOLS,
});

async function startAgent(cacheDir: string | null): Promise<AgentServer> {
  const agent = await AgentServer.initialize(options(cacheDir));
  onTestFinished(() => agent.close());
  return agent;
}

async function ask(agent: AgentServer, templateCache = true): Promise<string> {
  const session = await agent.createSession({ templateCache });
  try {
    return (await session.send(QUESTION, { maxTokens: MAX_TOKENS })).text;
  } finally {
    await session.close();
  }
}

describe.skipIf(model === undefined)(title, () => {
  let uncached: string;

  beforeAll(async () => {
    const agent = await AgentServer.initialize(options(null));
    uncached = await ask(agent, false);
    await agent.close();
  });

  it('prefills a template once for ten sessions, which reply as a session without the cache does', async () => {
    const agent = await startAgent(await temporaryDirectory());
    const first = await agent.createSession();
    expect(first.report).toMatchObject({ cache: 'miss', reason: 'absent', cachedTokens: 0 });
    const { templateTokens } = first.report;
    expect(templateTokens).toBeGreaterThan(100);
    const others = await Promise.all(Array.from({ length: 9 }, () => agent.createSession()));
    for (const { report } of others) {
      expect(report).toMatchObject({ source: 'resident', cachedTokens: templateTokens, key: first.report.key });
    }
    await agent.flush();
    expect(agent.getTemplateCacheStats()).toMatchObject({
      entries: 1,
      totalTokens: templateTokens,
      hits: 9,
      misses: 1,
      hitRate: 0.9,
      saves: 1,
      prefixMismatches: 0,
    });
    for (const session of [first, ...others.slice(-2)]) {
      expect((await session.send(QUESTION, { maxTokens: MAX_TOKENS })).text).toBe(uncached);
    }
  });

  it('starts from a template that another process saved, and prefills it again if its file is cut in half', async () => {
    const directory = await temporaryDirectory();
    const input = { options: options(directory), messages: [QUESTION], maxTokens: MAX_TOKENS };
    const saved = await inOtherProcess('agent', input);
    expect(saved.report.cache).toBe('miss');
    expect(saved.texts).toEqual([uncached]);
    const agent = await startAgent(directory);
    expect(agent.getTemplateCacheStats()).toMatchObject({
      entries: 1,
      totalTokens: saved.report.templateTokens,
      hits: 0,
      misses: 0,
      hitRate: 0,
    });
    const session = await agent.createSession();
    expect(session.report).toMatchObject({ source: 'disk', cachedTokens: saved.report.templateTokens });
    expect(session.report.bytes).toBeGreaterThan(1_000_000);
    expect((await session.send(QUESTION, { maxTokens: MAX_TOKENS })).text).toBe(uncached);
    expect(agent.getTemplateCacheStats()).toMatchObject({ hits: 1, misses: 0, hitRate: 1 });
    await agent.close();

    for (const name of await readdir(directory)) {
      await truncate(join(directory, name), (await stat(join(directory, name))).size >> 1);
    }
    const damaged = await startAgent(directory);
    expect(await ask(damaged)).toBe(uncached);
    expect(damaged.getTemplateCacheStats()).toMatchObject({ hits: 0, misses: 1, corruptions: 1 });
  });

  it('describes tools in the system message if the chat template does not describe tools', async () => {
    const agent = await startAgent(null);
    const [withTools, without] = [await agent.createSession(), await agent.createSession({ tools: [] })];
    expect(withTools.report.templateTokens - without.report.templateTokens).toBeGreaterThan(100);
    const { usage } = await withTools.send(QUESTION, { maxTokens: 1 });
    expect(usage.cachedInputTokens).toBe(withTools.report.templateTokens);
  });

  it('streams only whole characters, and omits a character that `maxTokens` cuts off', async () => {
    const agent = await startAgent(null);
    const session = await agent.createSession({ systemPrompt: 'You repeat what the user says.', tools: [] });
    const pieces: string[] = [];
    for await (const part of session.stream('\u{1F6B2} '.repeat(5), { maxTokens: 15 })) {
      if (part.type === 'text-delta') {
        pieces.push(part.text);
      }
    }
    expect(pieces).toContain('\u{1F6B2}'); // this character consists of three tokens
    expect(pieces.join('')).not.toContain('\uFFFD');
  });
});
