// While a request waits or the model reads its prompt, clients get events. Otherwise they cut the connection.
import { type ChatModel, tool } from 'llama-headstart';
import { createHandler, listen } from 'llama-headstart/server';
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

/** A model whose replies wait for `ready` in the middle, and how to serve it. */
async function startWaiting(ready: Promise<string>) {
  const agent = await startAgent();
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
  const server = await listen(createHandler(model, { keepAliveMs: 10 }), { port: 0 });
  onTestFinished(() => server.close());
  return server;
}

describe('a reply that takes long', () => {
  it.each([
    ['/v1/chat/completions', '"delta":{"role":"assistant","content":""}', /^data: /, '[DONE]'],
    ['/v1/responses', 'event: response.in_progress', /^event: response.created/, 'event: response.completed'],
    ['/v1/messages', 'event: ping', /^event: message_start/, 'event: message_stop'],
  ])('gets events that change nothing from %s, and then its end', async (path, keepAlive, beginning, end) => {
    let finish: (result: string) => void = () => undefined;
    const server = await startWaiting(
      new Promise((resolve) => {
        finish = resolve;
      }),
    );
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(server.url + path, { method: 'POST', headers, body: JSON.stringify(body) });
    const reader = new EventText(response);
    expect(await reader.readUntil(keepAlive, 9)).toMatch(beginning);
    finish('done');
    expect(await reader.readUntil(end)).toContain(end);
  });
});
