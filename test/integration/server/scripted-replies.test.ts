// Replies whose parts come in a chosen order. A real model cannot be made to fail, or to end its replies, in this order.
import type { ChatModel, ReplyStream, StreamPart } from 'llama-headstart';
import { createHandler, type HandlerOptions } from 'llama-headstart/server';
import { describe, expect, it } from 'vitest';
import { eventsOf } from '../../helpers/server.js';

const CHAT = '/v1/chat/completions';
const usage = { inputTokens: 5, cachedInputTokens: 0, outputTokens: 1, reasoningTokens: 0, firstTokenMs: 1, steps: 1 };

/** The last part of a reply that reused this number of tokens. */
const finish = (cachedTokens: number): StreamPart => ({
  type: 'finish',
  finishReason: 'stop',
  usage: { ...usage, cachedInputTokens: cachedTokens, tokensPerSecond: 1 },
  cache: { source: 'resident', cachedTokens, prefilledTokens: 5 - cachedTokens, ms: 1 },
});

/** Streams the replies of a model. */
async function streamOf(
  path: string,
  replies: (() => AsyncGenerator<StreamPart>)[],
  options: HandlerOptions = {},
  more: object = {},
) {
  const model: ChatModel = {
    id: 'scripted',
    countTokens: async () => 5,
    chat: () => replies.shift()?.() as unknown as ReplyStream<StreamPart, never>,
  };
  const messages = [{ role: 'user', content: 'Hi' }];
  const body = JSON.stringify({ messages, input: messages, stream: true, ...more });
  const headers = { 'content-type': 'application/json' };
  const request = new Request(`http://localhost${path}`, { method: 'POST', headers, body });
  const response = await createHandler(model, options)(request);
  return eventsOf(response);
}

describe('a stream of several replies', () => {
  it('reports what the first reply reused, even if the second ends sooner', async () => {
    let endSecond: () => void = () => undefined;
    const secondEnded = new Promise<void>((resolve) => {
      endSecond = resolve;
    });
    async function* first(): AsyncGenerator<StreamPart> {
      yield { type: 'text-delta', text: 'a' };
      await secondEnded;
      yield finish(1);
    }
    async function* second(): AsyncGenerator<StreamPart> {
      yield { type: 'text-delta', text: 'b' };
      yield finish(2);
      endSecond();
    }
    const events = await streamOf(CHAT, [first, second], {}, { n: 2, stream_options: { include_usage: true } });
    const chunks = events.slice(0, -1).map(({ data }) => JSON.parse(data));
    expect(chunks.slice(0, 2).map(({ choices }) => [choices[0].index, choices[0].delta.role])).toEqual([
      [0, 'assistant'],
      [1, 'assistant'],
    ]);
    expect(chunks.at(-1)).toMatchObject({
      timings: { cache_n: 1 },
      headstart: { cache: { cachedTokens: 1 } },
      usage: { prompt_tokens: 5, prompt_tokens_details: { cached_tokens: 1 }, completion_tokens: 2 },
    });
  });
});

async function* failing(): AsyncGenerator<StreamPart> {
  yield { type: 'text-delta', text: 'a' };
  throw new Error('the disk is full');
}

describe('a stream that fails', () => {
  it.each([
    [CHAT, undefined, { error: { type: 'server_error', code: 'internal_error' } }],
    ['/v1/responses', 'response.failed', { response: { status: 'failed', error: { code: 'server_error' } } }],
    ['/v1/messages', 'error', { type: 'error', error: { type: 'api_error' } }],
  ])('of %s ends with an event in the form of its API', async (path, name, data) => {
    const last = (await streamOf(path, [failing])).at(-1);
    expect([last?.event, JSON.parse(last?.data ?? '')]).toMatchObject([name, data]);
  });

  it('logs the cause, which the client does not see, and does not wait for other replies', async () => {
    const lines: string[] = [];
    async function* endless(): AsyncGenerator<StreamPart> {
      yield { type: 'text-delta', text: 'b' };
      await new Promise(() => undefined);
    }
    const logger = (level: string, message: string) => void lines.push(`${level}: ${message}`);
    const events = await streamOf(CHAT, [failing, endless], { logger }, { n: 2 });
    expect(lines).toEqual(['error: POST /v1/chat/completions: the disk is full']);
    expect(JSON.parse(events.at(-1)?.data ?? '')).toMatchObject({
      error: { type: 'server_error', code: 'internal_error' },
    });
    expect(events.map(({ data }) => data).join()).not.toContain('disk');
  });
});
