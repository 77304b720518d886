// OpenAI's completions and list of models, with OpenAI's own client, and what the server does not have.
import { describe, expect, it } from 'vitest';
import { openAiClient } from '../../helpers/openai-client.js';
import { startServer } from '../../helpers/server.js';
import { readAll } from '../../helpers/streams.js';
import { iterate } from '../../helpers/turns.js';

const greedy = { model: 'any', prompt: 'The chain of my bicycle', max_tokens: 12, temperature: 0 };

describe('POST /v1/completions', () => {
  it('continues a text like agent.complete, at once and as a stream', async () => {
    const server = await startServer();
    const client = openAiClient(server);
    const expected = await server.agent.complete(greedy.prompt, { maxTokens: 12 });
    const whole = await client.completions.create({ ...greedy, echo: true });
    expect(whole.model).toBe(server.agent.id);
    expect(whole.choices).toEqual([
      { index: 0, text: greedy.prompt + expected.text, logprobs: null, finish_reason: expected.finishReason },
    ]);
    expect(whole.usage).toMatchObject({ prompt_tokens: expected.usage.inputTokens, completion_tokens: 12 });
    const stream = await client.completions.create({
      ...greedy,
      echo: true,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await readAll(iterate(stream));
    expect(chunks.map(({ choices }) => choices[0]?.text ?? '').join('')).toBe(greedy.prompt + expected.text);
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe(expected.finishReason);
    expect(chunks.at(-1)?.usage).toEqual({ ...whole.usage, prompt_tokens_details: expect.anything() });
  });

  it('answers several prompts, with several choices and log-probabilities for each', async () => {
    const server = await startServer();
    const prompts = [greedy.prompt, 'My lamp'];
    const { choices, usage } = await openAiClient(server).completions.create({
      ...greedy,
      prompt: prompts,
      n: 2,
      temperature: 1,
      seed: 3,
      logprobs: 2,
    });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(new Set(choices.map(({ text }) => text)).size).toBe(4);
    const [first] = choices;
    expect(first?.logprobs?.tokens?.join('')).toBe(first?.text);
    expect(first?.logprobs?.text_offset?.slice(0, 2)).toEqual([0, first?.logprobs?.tokens?.[0]?.length]);
    expect(first?.logprobs?.top_logprobs).toHaveLength(12);
    const lengths = await Promise.all(prompts.map((prompt) => server.agent.countTokens(prompt)));
    expect(usage?.prompt_tokens).toBe((lengths[0] ?? 0) + (lengths[1] ?? 0));
    expect(usage?.completion_tokens).toBe(48);
  });

  it('ends at stop strings', async () => {
    const server = await startServer();
    const { text } = await server.agent.complete(greedy.prompt, { maxTokens: 12 });
    const stop = text.slice(4, 8);
    const { choices } = await openAiClient(server).completions.create({ ...greedy, stop: [stop] });
    expect(choices[0]).toMatchObject({ text: text.slice(0, text.indexOf(stop)), finish_reason: 'stop' });
  });

  it('keeps the cached tokens of different tenants apart', async () => {
    const apiKeys = ['a', 'b'].map((tenant) => ({ key: tenant, tenant }));
    const server = await startServer({}, { apiKeys });
    const messages = [{ role: 'user', content: 'one two three four five six '.repeat(20) }] as const;
    const prompt = await server.agent.renderPrompt({ messages, tools: [] });
    const chat = { model: 'any', messages: [...messages], max_tokens: 1 };
    await openAiClient(server, 'a').chat.completions.create(chat);
    const cached = async (key: string) =>
      (await openAiClient(server, key).completions.create({ ...greedy, prompt })).usage?.prompt_tokens_details
        ?.cached_tokens;
    expect(await cached('b')).toBe(0);
    expect(await cached('a')).toBeGreaterThan(100);
  });

  it('refuses prompts that are too long or not text, and too many choices', async () => {
    const server = await startServer({ contextSize: 256 });
    const codeOf = async (body: object) => {
      const response = await server.post('/v1/completions', body);
      return [response.status, ((await response.json()) as { error: { code: string } }).error.code];
    };
    const long = 'chain '.repeat(2000);
    expect(await codeOf({ prompt: long })).toEqual([400, 'context_length_exceeded']);
    expect(await codeOf({ prompt: long, stream: true })).toEqual([400, 'context_length_exceeded']);
    expect(await codeOf({ prompt: [1, 2, 3] })).toEqual([400, 'invalid_request']);
    expect(await codeOf({ prompt: Array(40).fill('a'), n: 2 })).toEqual([400, 'invalid_request']);
  });
});

describe('GET /v1/models', () => {
  it("lists the model with OpenAI's, Anthropic's and llama-server's fields", async () => {
    const server = await startServer({ id: 'micro/dense' });
    const client = openAiClient(server);
    const { data } = await client.models.list();
    expect(data).toHaveLength(1);
    const { info } = server.agent.model;
    expect(data[0]).toMatchObject({
      id: 'micro/dense',
      object: 'model',
      type: 'model',
      display_name: 'micro/dense',
      meta: { n_ctx: 1024, n_vocab: info.vocabulary.size, n_params: info.parameters, size: info.sizeBytes },
    });
    expect(await client.models.retrieve('micro/dense')).toEqual(data[0]);
    const page = await (await server.get('/v1/models?limit=1000')).json();
    expect(page).toMatchObject({ object: 'list', has_more: false, first_id: 'micro/dense', last_id: 'micro/dense' });
  });

  it('describes the model under any name, because the server answers for any name', async () => {
    const server = await startServer();
    expect(await openAiClient(server).models.retrieve('gpt-5')).toMatchObject({ id: server.agent.id });
  });
});

describe('endpoints for what the model cannot make', () => {
  it('answer 501 with one sentence', async () => {
    const server = await startServer();
    for (const path of ['/v1/embeddings', '/v1/images/generations', '/v1/audio/speech']) {
      const response = await server.post(path, { input: 'x' });
      expect(response.status).toBe(501);
      expect(await response.json()).toMatchObject({ error: { code: 'not_implemented', type: 'server_error' } });
    }
  });
});
