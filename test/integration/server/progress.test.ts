// While the model reads a prompt, clients and programs can follow the progress.
import { describe, expect, it } from 'vitest';
import { startAgent } from '../../helpers/agents.js';
import { eventsOf, startServer } from '../../helpers/server.js';

interface Progress {
  total: number;
  cache: number;
  processed: number;
  time_ms: number;
}

const messages = [{ role: 'user', content: 'My chain broke. What now? '.repeat(20) }] as const;
const body = {
  messages,
  input: messages,
  prompt: messages[0].content,
  max_tokens: 4,
  max_output_tokens: 4,
  stream: true,
};

describe('return_progress', () => {
  it.each([
    ['/v1/chat/completions', undefined],
    ['/v1/completions', undefined],
    ['/v1/responses', 'response.in_progress'],
  ])("adds llama-server's `prompt_progress` to the stream of %s", async (path, name) => {
    const server = await startServer({ batchSize: 64 });
    const progressOf = async (sent: object) => {
      const events = await eventsOf(await server.post(path, { ...body, ...sent }));
      const data = events
        .filter((event) => event.data !== '[DONE]')
        .map((each) => ({ ...each, ...JSON.parse(each.data) }));
      const found = data.filter((each) => each.prompt_progress !== undefined);
      expect(found.every(({ event }) => event === name)).toBe(true);
      return found.map((each) => each.prompt_progress as Progress);
    };
    const first = await progressOf({ return_progress: true });
    const { total = 0 } = first[0] ?? {};
    expect(total).toBeGreaterThan(256);
    expect(first.length).toBeGreaterThanOrEqual(4);
    expect(first.map(({ processed }) => processed)).toEqual(
      first.map(({ processed }) => processed).sort((a, b) => a - b),
    );
    expect(first.at(-1)).toEqual({ total, cache: 0, processed: total, time_ms: expect.any(Number) });
    expect(first.every((each) => each.cache === 0 && each.total === total)).toBe(true);
    expect(await progressOf({})).toEqual([]);
  });

  it('counts the reused tokens of a prompt from its first event on', async () => {
    const server = await startServer({ batchSize: 64 });
    const chat = { ...body, return_progress: true, stream_options: { include_usage: true } };
    await eventsOf(await server.post('/v1/chat/completions', chat));
    const events = await eventsOf(await server.post('/v1/chat/completions', chat));
    const data = events.slice(0, -1).map((event) => JSON.parse(event.data));
    const cached = data.at(-1).usage.prompt_tokens_details.cached_tokens;
    const progress = data.flatMap((each) => (each.prompt_progress ? [each.prompt_progress as Progress] : []));
    expect(cached).toBeGreaterThan(256);
    expect(progress[0]).toMatchObject({ cache: cached, processed: cached });
    expect(progress.at(-1)).toMatchObject({ cache: cached, processed: progress[0]?.total });
  });
});

describe('onPrefill', () => {
  it.each(['dense', 'sliding-window', 'hybrid', 'recurrent'] as const)(
    'ends with all tokens of the prompt (%s)',
    async (name) => {
      const agent = await startAgent({ name, batchSize: 64 });
      const seen: { processed: number; cached: number }[] = [];
      const { usage } = await agent.chat({ messages, maxTokens: 2, onPrefill: (each) => void seen.push(each) }).result;
      expect(seen.at(-1)).toMatchObject({ total: usage.inputTokens, processed: usage.inputTokens, cached: 0 });
      expect(seen.length).toBeGreaterThan(3);
    },
  );

  it('may throw: the request then fails, and other requests do not', async () => {
    const agent = await startAgent({ batchSize: 64 });
    const other = agent.chat({ messages, maxTokens: 20 }).result;
    const failing = agent.chat({
      messages,
      maxTokens: 2,
      onPrefill: () => {
        throw new Error('no more');
      },
    });
    await expect(failing.result).rejects.toThrow('no more');
    expect((await other).usage.outputTokens).toBe(20);
  });
});
