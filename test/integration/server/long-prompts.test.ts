// What the server answers at once, while it reads a long prompt.
import { describe, expect, it, onTestFinished } from 'vitest';
import { openAiClient } from '../../helpers/openai-client.js';
import { startServer } from '../../helpers/server.js';

const messages = [{ role: 'user' as const, content: 'My chain broke. What now?' }];

/** Starts a server that reads a prompt for many seconds, with its only sequence. */
async function startReading() {
  const server = await startServer({ contextSize: 32_000, nSeqMax: 1, batchSize: 256 });
  const content = 'Zinc and steel. '.repeat(1900);
  const leaving = new AbortController();
  onTestFinished(() => leaving.abort());
  const body = { messages: [{ role: 'user', content }], stream: true, return_progress: true, max_tokens: 1 };
  const response = await server.post('/v1/chat/completions', body, { signal: leaving.signal });
  const { readable, ended } = watch(response);
  await readable;
  return { server, hasEnded: ended };
}

/** Reads a stream. `readable` resolves at its first event. */
function watch({ body }: Response) {
  let isEnded = false;
  let onReadable: () => void = () => undefined;
  const readable = new Promise<void>((resolve) => {
    onReadable = resolve;
  });
  const read = async () => {
    for await (const _ of body as unknown as AsyncIterable<Uint8Array>) onReadable();
    isEnded = true;
  };
  read().catch(() => undefined); // the test leaves the stream
  return { readable, ended: () => isEnded };
}

describe('while a long prompt is read with the only sequence, the server', () => {
  it('counts tokens and refuses prompts that are too long, without waiting', async () => {
    const { server, hasEnded } = await startReading();
    const counted = await server.post('/v1/messages/count_tokens?beta=true', { messages });
    expect(await counted.json()).toEqual({ input_tokens: expect.any(Number) });
    const { input_tokens } = await openAiClient(server).responses.inputTokens.count({ input: messages });
    expect(input_tokens).toBeGreaterThan(0);
    const long = [{ role: 'user', content: 'chain '.repeat(20_000) }];
    for (const stream of [true, false]) {
      const refused = await server.post('/v1/chat/completions', { messages: long, stream });
      expect([refused.status, await refused.json()]).toMatchObject([
        400,
        { error: { code: 'context_length_exceeded' } },
      ]);
    }
    expect(hasEnded()).toBe(false);
    expect(server.agent.health()).toMatchObject({ heldSequences: 1, queueLength: 0 });
  });

  it('begins the stream of another request at once, although this request waits for the sequence', async () => {
    const { server, hasEnded } = await startReading();
    const response = await server.post('/v1/messages', { messages, stream: true, max_tokens: 4 });
    const waiting = watch(response);
    await waiting.readable;
    expect([response.status, waiting.ended(), hasEnded()]).toEqual([200, false, false]);
  });
});
