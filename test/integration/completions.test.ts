// Completions continue a text without a chat template.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CompletionPart, GenerationOptions } from 'llama-headstart/internal';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { coldReply } from '../helpers/cold.js';
import { microModel } from '../helpers/models.js';

describe('agent.complete', () => {
  it('continues a text without a chat template', async () => {
    const agent = await startAgent(EXACT);
    const options: GenerationOptions = { maxTokens: 12 };
    const first = await agent.complete('The chain is', options);
    const verbatim = '{% for m in messages %}{{ m.content }}{% endfor %}';
    const cold = await coldReply(microModel('dense'), {}, [{ role: 'user', content: 'The chain is' }], 12, {
      chatTemplate: verbatim,
    });
    expect(first.text).toBe(cold.text);
    expect(first.usage).toMatchObject({ inputTokens: await agent.countTokens('The chain is'), outputTokens: 12 });
    expect((await agent.complete('The chain is', options)).text).toBe(first.text);
    const [head = '', rest = ''] = [first.text.slice(0, 5), first.text.slice(5)];
    expect((await agent.complete('The chain is', { ...options, stop: first.text.slice(5, 8) })).text).toBe(
      first.text.slice(0, first.text.indexOf(rest.slice(0, 3))),
    );
    expect(head).not.toBe('');
  });

  it('treats control tokens in the prompt as text, unless `parseSpecial` is set', async () => {
    const agent = await startAgent();
    const { usage } = await agent.complete('<|im_start|>', { maxTokens: 1 });
    expect(usage.inputTokens).toBeGreaterThan(1);
    expect((await agent.complete('<|im_start|>', { maxTokens: 1, parseSpecial: true })).usage.inputTokens).toBe(1);
  });

  it('releases its sequence, whether it succeeds or fails', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    await expect(agent.complete('Hello', { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(agent.complete('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(agent.complete('word '.repeat(2000))).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
    await expect(agent.complete(5 as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    for (let round = 0; round < 3; round++) {
      await agent.complete('Hello', { maxTokens: 2 });
    }
    expect(agent.health()).toMatchObject({ heldSequences: 0, kvCells: { used: 0 } });
  });

  it('causes no process warning if many completions and sessions wait, even with one shared signal', async () => {
    const warnings: string[] = [];
    const listen = ({ name }: Error) => void warnings.push(name);
    process.on('warning', listen);
    onTestFinished(() => void process.off('warning', listen));
    const agent = await startAgent({ nSeqMax: 1 });
    const { signal } = new AbortController();
    await Promise.all([
      ...Array.from({ length: 12 }, () => agent.complete('Hello', { maxTokens: 2 })),
      ...Array.from({ length: 12 }, () => agent.complete('Hello', { maxTokens: 2, signal })),
      ...Array.from({ length: 12 }, () => agent.createSession({ signal })),
    ]);
    await new Promise(setImmediate); // the warning events come in the next tick
    expect(warnings).toEqual([]);
  });

  it('keeps no checkpoint, because no later prompt continues a completion', async () => {
    const agent = await startAgent({ name: 'recurrent' });
    const { saveBlockedMs } = agent.getTemplateCacheStats();
    await agent.complete('Hello', { maxTokens: 2 });
    expect(agent.getTemplateCacheStats().saveBlockedMs).toBe(saveBlockedMs);
  });
});

describe('agent.streamComplete', () => {
  it('streams the text that `complete` returns, and ends with the same finish reason', async () => {
    const agent = await startAgent();
    const options: GenerationOptions = { maxTokens: 12, logProbabilities: 1 };
    const { text, ...ending } = await agent.complete('The chain is', options);
    const parts: CompletionPart[] = [];
    for await (const part of agent.streamComplete('The chain is', options)) {
      parts.push(part);
    }
    const texts = parts.flatMap((part) => (part.type === 'text-delta' ? [part.text] : []));
    expect(texts.length).toBeGreaterThan(1);
    expect(texts.join('')).toBe(text);
    const { finishReason, detail, logProbabilities } = ending;
    expect(parts.at(-1)).toMatchObject({ type: 'finish', finishReason, detail, logProbabilities });
  });

  it('throws ABORTED with the usage if it is aborted, and then streams no `finish` part', async () => {
    const agent = await startAgent();
    const controller = new AbortController();
    const parts: CompletionPart[] = [];
    const reading = (async () => {
      for await (const part of agent.streamComplete('Hello', { signal: controller.signal })) {
        parts.push(part);
        controller.abort();
      }
    })();
    const message = 'The completion was aborted';
    await expect(reading).rejects.toMatchObject({ code: 'ABORTED', message, usage: { steps: 1 } });
    expect(parts.map(({ type }) => type)).toEqual(['text-delta']);
  });

  it('releases its sequence when its reader leaves or pauses, and ends with CLOSED if its agent closes', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    for await (const _ of agent.streamComplete('Hello')) {
      break;
    }
    expect(agent.health()).toMatchObject({ heldSequences: 0, kvCells: { used: 0 } });
    const texts: string[] = [];
    for await (const part of agent.streamComplete('Hello', { maxTokens: 3 })) {
      if (part.type === 'text-delta') {
        texts.push(part.text);
        expect((await agent.complete('Between', { maxTokens: 2 })).usage.outputTokens).toBe(2);
      }
    }
    expect(texts.join('')).toBe((await agent.complete('Hello', { maxTokens: 3 })).text);
    const stream = agent.streamComplete('Hello')[Symbol.asyncIterator]();
    await stream.next();
    await agent.close();
    await expect(stream.next()).rejects.toMatchObject({ code: 'CLOSED' });
  });
});

describe('agent.countTokens', () => {
  it('counts the tokens of a text, and of the prompt of a conversation', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    const { usage } = await session.send('Hello', { maxTokens: 1 });
    expect(await agent.countTokens([{ role: 'user', content: 'Hello' }])).toBe(usage.inputTokens);
    expect(await agent.countTokens('')).toBe(0);
    expect(await agent.countTokens('<|im_end|>')).toBeGreaterThan(1);
  });
});

describe('a model without a chat template', () => {
  it('completes texts, and supports sessions only with the option `chatTemplate`', async () => {
    const source = join(await temporaryDirectory(), 'bare.gguf');
    // Renames the metadata key of the chat template to an unknown key of the same length.
    const file = (await readFile(microModel('dense'))).toString('latin1');
    await writeFile(source, file.replace('tokenizer.chat_template', 'tokenizer.chat_templatX'), 'latin1');
    const agent = await startAgent({ source });
    await expect(agent.createSession()).rejects.toMatchObject({
      code: 'NO_CHAT_TEMPLATE',
      message: expect.stringContaining('`chatTemplate`'),
    });
    expect((await agent.complete('The chain is', { maxTokens: 3 })).usage.outputTokens).toBe(3);
    expect(agent.health()).toMatchObject({ openSessions: 0, activeSessions: 0, kvCells: { used: 0 } });
    const chatTemplate = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}";
    const session = await (await startAgent({ source, chatTemplate })).createSession();
    expect((await session.send('Hello', { maxTokens: 3 })).usage.outputTokens).toBe(3);
  });
});

describe('a model that adds BOS', () => {
  it('refuses a prompt of 200,000 tokens with CONTEXT_FULL', async () => {
    const source = join(await temporaryDirectory(), 'bos.gguf');
    const key = 'tokenizer.ggml.add_bos_token\u0007\0\0\0'; // a boolean in GGUF: the key, the type 7, and one byte
    const file = (await readFile(microModel('dense'))).toString('latin1');
    await writeFile(source, file.replace(`${key}\0`, `${key}\u0001`), 'latin1');
    const agent = await startAgent({ source });
    const { usage } = await agent.complete('Hello', { maxTokens: 1 });
    expect(usage.inputTokens).toBe((await agent.countTokens('Hello')) + 1);
    await expect(agent.complete('word '.repeat(200_000))).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
  });
});
