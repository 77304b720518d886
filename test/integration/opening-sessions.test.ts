// Tests the opening of sessions: aborts, options, and templates that do not fit into the context.
import type { ChatMessage, SessionOptions } from 'llama-headstart';
import type { ToolDefinition } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { LONG_PROMPT } from '../helpers/prompts.js';
import { expectLikeNew, withCode } from '../helpers/turns.js';

describe('opening a session', () => {
  it('with an aborted signal fails with ABORTED', async () => {
    const agent = await startAgent();
    const why = new Error('not now');
    await expect(agent.createSession({ signal: AbortSignal.abort(why) })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: why,
    });
    expect(agent.getTemplateCacheStats()).toMatchObject({ hits: 0, misses: 0 });
  });

  it('can be aborted during its prefill, and a session that waits for the same template still opens', async () => {
    const agent = await startAgent({ contextSize: 8192, systemPrompt: LONG_PROMPT });
    const controller = new AbortController();
    const aborted = agent.createSession({ signal: controller.signal });
    const waiting = agent.createSession();
    controller.abort();
    await expect(aborted).rejects.toThrow(withCode('ABORTED'));
    expect((await waiting).report.cache).toBe('miss');
    expect(agent.getTemplateCacheStats()).toMatchObject({ misses: 1, hits: 0, residentTemplates: 1 });
  });

  it('copies the options, so that later changes of the object have no effect', async () => {
    const options: SessionOptions = { tools: [{ name: 'look' }], toolChoice: 'none', compaction: { threshold: 0.9 } };
    const session = await (await startAgent()).createSession(options);
    Object.assign(options, { toolChoice: 'required', maxSteps: 'many', tools: [] });
    Object.assign(options.compaction as object, { threshold: 0.1 });
    const parts: string[] = [];
    for await (const { type } of session.stream('Look', { maxTokens: 4 })) {
      parts.push(type);
    }
    expect(new Set(parts)).toEqual(new Set(['text-delta', 'finish']));
    expect(() => (session.messages as ChatMessage[]).push({ role: 'user', content: 'Hello' })).toThrow(TypeError);
    expect(session.messages).toHaveLength(2);
  });

  it('fails with CONTEXT_FULL for a template that fills the context', async () => {
    const agent = await startAgent({ contextSize: 256 });
    await expect(agent.createSession({ systemPrompt: LONG_PROMPT })).rejects.toThrow(withCode('CONTEXT_FULL'));
    await expectLikeNew(await agent.createSession());
  });

  it('rejects invalid tools and options with CONFIG_INVALID', async () => {
    const agent = await startAgent();
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    const tools: unknown[] = [
      'find_part',
      [null],
      [{}],
      [{ name: '' }],
      [{ name: 'a' }, { name: 'a' }],
      [{ name: 'a', description: 7 }],
      [{ name: 'a', parameters: 'none' }],
      [{ name: 'a', parameters: circular }],
      [{ name: 'a', parameters: { maximum: 7n } }],
    ];
    for (const invalid of tools) {
      const options = { tools: invalid as ToolDefinition[] };
      await expect(agent.createSession(options), String(invalid)).rejects.toThrow(withCode('CONFIG_INVALID'));
    }
    for (const options of [{ systemPrompt: 7 }, { templateCache: 1 }, { signal: {} }, { system: 'a' }, 'a', null]) {
      await expect(agent.createSession(options as object)).rejects.toThrow(withCode('CONFIG_INVALID'));
    }
    await expectLikeNew(await agent.createSession());
  });
});
