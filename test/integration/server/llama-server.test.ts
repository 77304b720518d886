// The endpoints that programs for llama-server call, and the metrics.
import { createHandler } from 'llama-headstart/server';
import { describe, expect, it } from 'vitest';
import { startAgent } from '../../helpers/agents.js';
import { eventsOf, startServer } from '../../helpers/server.js';

const messages = [{ role: 'user', content: 'My chain broke. What now?' }] as const;
const chat = { messages, max_tokens: 8, temperature: 0 };

const asBearer = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });

describe("llama-server's endpoints", () => {
  it('report the health without a key, but nothing else', async () => {
    const server = await startServer({}, { apiKeys: [{ key: 'secret' }] });
    const health = await server.get('/health');
    expect([health.status, await health.json()]).toEqual([200, { status: 'ok' }]);
    for (const path of ['/props', '/metrics', '/v1/models', '/headstart/v1/requests']) {
      expect((await server.get(path)).status).toBe(401);
      expect((await server.get(path, asBearer('secret'))).status).toBe(200);
    }
    await server.agent.close();
    expect((await server.get('/health')).status).toBe(503);
  });

  it('describe model and server in /props, without paths of files', async () => {
    const server = await startServer({ id: 'micro', nSeqMax: 3 });
    const text = await (await server.get('/props')).text();
    expect(JSON.parse(text)).toMatchObject({
      default_generation_settings: { n_ctx: 1024 },
      total_slots: 3,
      model_alias: 'micro',
      chat_template: server.agent.chatTemplate,
      build_info: expect.stringContaining('llama-headstart'),
    });
    expect(text).not.toContain('.gguf');
  });

  it('convert text to tokens and back', async () => {
    const server = await startServer();
    const post = async (path: string, body: object) => (await server.post(path, body)).json();
    const content = 'A chain, a lamp and naïve 🚲';
    const { tokens } = (await post('/tokenize', { content })) as { tokens: number[] };
    expect(tokens).toEqual([...(await server.agent.model.tokenize(content, { parseSpecial: true }))]);
    expect(await post('/detokenize', { tokens })).toEqual({ content });
    const { tokens: pieces } = (await post('/tokenize', { content, with_pieces: true })) as {
      tokens: { id: number; piece: string | number[] }[];
    };
    expect(pieces.map(({ id }) => id)).toEqual(tokens);
    expect(Buffer.concat(pieces.map(({ piece }) => Buffer.from(piece as string))).toString()).toBe(content);
  });

  it('render the prompt of a chat completion', async () => {
    const server = await startServer();
    const response = await server.post('/apply-template', chat);
    const { prompt } = (await response.json()) as { prompt: string };
    expect(prompt).toContain(messages[0].content);
    expect(prompt).toBe(await server.agent.renderPrompt({ messages, tools: [] }));
    const tokens = await server.agent.model.tokenize(prompt, { parseSpecial: true, addSpecial: true });
    expect(tokens.length).toBe(await server.agent.countTokens({ messages, tools: [] }));
  });

  it('refuse wrong bodies with status 400', async () => {
    const server = await startServer();
    for (const [path, body] of [
      ['/tokenize', { content: 1 }],
      ['/detokenize', { tokens: [-1] }],
      ['/detokenize', { tokens: [1e9] }],
      ['/detokenize', { tokens: 'x' }],
      ['/apply-template', { messages: 'x' }],
    ] as const) {
      expect([path, (await server.post(path, body)).status]).toEqual([path, 400]);
    }
  });

  it('answer 501 if the model has only the parts of ChatModel', async () => {
    const { id, ...agent } = await startAgent();
    const handler = createHandler({ id, chat: () => Promise.reject(agent) as never, countTokens: async () => 1 });
    const call = (path: string, body?: object) =>
      handler(
        new Request(`http://localhost${path}`, {
          ...(body && { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
        }),
      );
    for (const response of [
      await call('/props'),
      await call('/tokenize', { content: 'x' }),
      await call('/apply-template', chat),
      await call('/v1/completions', { prompt: 'x' }),
      await call('/headstart/v1/explain', chat),
    ]) {
      expect(response.status).toBe(501);
      expect(await response.json()).toMatchObject({ error: { code: 'not_implemented' } });
    }
    expect((await call('/health')).status).toBe(200);
    expect((await call('/metrics')).status).toBe(200);
  });
});

describe('timings', () => {
  it('count the cached, prefilled and generated tokens of a reply', async () => {
    const server = await startServer();
    const first = (await (await server.post('/v1/chat/completions', chat)).json()) as { usage: Usage; timings: object };
    expect(first.timings).toMatchObject({ cache_n: 0, prompt_n: first.usage.prompt_tokens, predicted_n: 8 });
    const events = await eventsOf(await server.post('/v1/chat/completions', { ...chat, stream: true }));
    const last = JSON.parse(events.at(-2)?.data ?? '') as { timings: { cache_n: number; prompt_n: number } };
    expect(last.timings.cache_n).toBeGreaterThan(0);
    expect(last.timings.cache_n + last.timings.prompt_n).toBe(first.usage.prompt_tokens);
  });

  interface Usage {
    prompt_tokens: number;
  }
});

describe('GET /metrics', () => {
  it('counts tokens, replies and errors, without texts, tenants and keys', async () => {
    const apiKeys = [{ key: 'secret-key', tenant: 'alice' }];
    const server = await startServer({}, { apiKeys });
    const init = asBearer('secret-key');
    const replies: { usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } } }[] = [];
    for (let turn = 0; turn < 2; turn++) {
      const response = await server.post('/v1/chat/completions', chat, init);
      replies.push((await response.json()) as (typeof replies)[number]);
    }
    await server.post('/v1/chat/completions', '{', init);
    const long = [{ role: 'user', content: 'chain '.repeat(3000) }];
    await server.post('/v1/chat/completions', { messages: long, stream: true }, init);
    await server.get('/v1/models');
    const response = await server.get('/metrics', init);
    expect(response.headers.get('content-type')).toContain('text/plain');
    const text = await response.text();
    const value = (name: string) =>
      Number(
        text
          .split('\n')
          .find((line) => line.startsWith(`${name} `))
          ?.split(' ')[1],
      );
    const reused = replies.reduce((sum, { usage }) => sum + usage.prompt_tokens_details.cached_tokens, 0);
    const all = replies.reduce((sum, { usage }) => sum + usage.prompt_tokens, 0);
    expect(reused).toBeGreaterThan(0);
    expect(value('llama_headstart_prompt_tokens_total{source="reused"}')).toBe(reused);
    expect(value('llama_headstart_prompt_tokens_total{source="prefilled"}')).toBe(all - reused);
    expect(value('llamacpp:prompt_tokens_total')).toBe(all - reused);
    expect(value('llama_headstart_reply_tokens_total')).toBe(16);
    expect(value('llama_headstart_time_to_first_token_seconds_count')).toBe(2);
    expect(value('llama_headstart_errors_total{status="400"}')).toBe(2);
    expect(value('llama_headstart_errors_total{status="401"}')).toBe(1);
    expect(value('llama_headstart_requests_in_progress')).toBe(0);
    const { kvCells, templateCache, threads } = server.agent.health();
    expect(value('llama_headstart_threads{work="decode"}')).toBe(threads.decode.threads);
    expect(value('llama_headstart_threads{work="prefill"}')).toBe(threads.prefill.threads);
    expect(value('llama_headstart_thread_changes_total{reason="slower"}')).toBe(threads.decode.changes.slower);
    expect(value('llama_headstart_kv_cells{state="used"}')).toBe(kvCells.used);
    expect(value('llama_headstart_template_misses_total')).toBe(templateCache.misses);
    for (const source of ['resident', 'memory', 'disk'] as const) {
      const hits = value(`llama_headstart_template_hits_total{source="${source}"}`);
      expect(hits).toBe(templateCache.hitsByTier[source]);
    }
    expect(text).not.toMatch(/secret-key|alice|chain/);
  });
});
