// While a request waits or the model reads its prompt, clients get events. Otherwise they cut the connection.
import { setTimeout } from 'node:timers/promises';
import { type ChatModel, tool } from 'llama-headstart';
import { createHandler, type HandlerOptions, type ListenOptions, listen } from 'llama-headstart/server';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startAgent } from '../../helpers/agents.js';

const messages = [{ role: 'user', content: 'Hi' }];
/** A body for every dialect. Each ignores the fields of the others. */
const body = { messages, input: messages, stream: true };

/** The text of a stream so far. */
class EventText {
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #decoder = new TextDecoder();
  #text = '';

  constructor({ body: stream }: Response) {
    this.#chunks = (stream as unknown as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]();
  }

  /** Reads until the text contains `part` a number of times. */
  async readUntil(part: string, times = 1): Promise<string> {
    while (this.#text.split(part).length <= times) {
      const { done, value } = await this.#chunks.next();
      if (done) throw new Error(`The stream ended without ${part}: ${this.#text}`);
      this.#text += this.#decoder.decode(value, { stream: true });
    }
    return this.#text;
  }
}

/** Starts a server whose replies wait for `finish` in the middle. */
async function startWaiting(options: HandlerOptions = {}, limits: ListenOptions = {}) {
  const agent = await startAgent();
  let finish: (result: string) => void = () => undefined;
  const ready = new Promise<string>((resolve) => {
    finish = resolve;
  });
  const wait = tool({
    name: 'wait',
    parameters: { type: 'object', additionalProperties: false },
    execute: () => ready,
  });
  const model: ChatModel = {
    id: agent.id,
    countTokens: (request, options) => agent.countTokens(request, options),
    chat: (request) => agent.chat({ ...request, tools: [wait], toolChoice: 'required', maxSteps: 1 }),
  };
  const server = await listen(createHandler(model, options), { port: 0, ...limits });
  onTestFinished(() => server.close());
  const headers = { 'content-type': 'application/json' };
  const post = (path: string, sent: object) =>
    fetch(server.url + path, { method: 'POST', headers, body: JSON.stringify(sent) });
  return { post, finish };
}

describe('a reply that takes long', () => {
  it.each([
    ['/v1/chat/completions', '"delta":{"role":"assistant","content":""}', /^data: /, '[DONE]'],
    ['/v1/responses', 'event: response.in_progress', /^event: response.created/, 'event: response.completed'],
    ['/v1/messages', 'event: ping', /^event: message_start/, 'event: message_stop'],
  ])('gets events that change nothing from %s, and then its end', async (path, keepAlive, beginning, end) => {
    const { post, finish } = await startWaiting({ keepAliveMs: 10 });
    const reader = new EventText(await post(path, body));
    expect(await reader.readUntil(keepAlive, 9)).toMatch(beginning);
    finish('done');
    expect(await reader.readUntil(end)).toContain(end);
  });

  it.each([true, false])(
    'may wait longer than `readTimeoutMs`, because nothing is unread (stream: %s)',
    async (stream) => {
      const { post, finish } = await startWaiting({ keepAliveMs: 60_000 }, { readTimeoutMs: 1 });
      const response = post('/v1/chat/completions', { ...body, stream });
      if (stream) await response;
      await setTimeout(50);
      finish('done');
      expect((await (await response).text()).length).toBeGreaterThan(0);
    },
  );
});
