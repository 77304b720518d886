// Stop strings end the text of a reply. A stop string has no effect in reasoning, markup and arguments.
import { readFileSync } from 'node:fs';
import type { ResponseFormat, SendOptions, StreamPart } from 'llama-headstart';
import { Renderer, ReplyReader, VisibleReply } from 'llama-headstart/internal';
import { Model, type ReplyFormat } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { likelyText } from '../helpers/likely-text.js';
import { TOOLS } from '../helpers/prompts.js';

const MODELS = new URL('../../vendor/llama.cpp/models/', import.meta.url);
const templateOf = (name: string) => readFileSync(new URL(`templates/${name}.jinja`, MODELS), 'utf8');
const LAMP = {
  name: 'lamp',
  parameters: { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'] },
};

describe('a stop string', () => {
  it('in reasoning changes nothing', async () => {
    const agent = await startAgent({ chatTemplate: templateOf('Qwen-Qwen3-0.6B') });
    const session = await agent.createSession();
    const sampling = { ...(await likelyText('<think>Hm.</think>Yes')), penaltyLastTokens: 8 };
    for (const stop of ['Hm', 'm.', '<think>', '</', 'k>']) {
      const fork = await session.fork();
      const reply = await fork.send('Hm?', { sampling, maxTokens: 20, stop, logProbabilities: 0 });
      expect(reply).toMatchObject({ finishReason: 'stop', reasoning: 'Hm.', text: 'Yes' });
      expect(reply).not.toHaveProperty('detail');
      expect(reply.logProbabilities).toHaveLength(reply.usage.outputTokens);
      await fork.close();
    }
  });

  it('in the text after reasoning ends the reply', async () => {
    const agent = await startAgent({ chatTemplate: templateOf('Qwen-Qwen3-0.6B') });
    const session = await agent.createSession();
    const sampling = { ...(await likelyText('<think>Hm.</think>Yes')), penaltyLastTokens: 8 };
    const reply = await session.send('Hm?', { sampling, maxTokens: 20, stop: ['Hm', 'es'], logProbabilities: 0 });
    expect(reply).toMatchObject({ finishReason: 'stop', detail: 'stop-string', reasoning: 'Hm.', text: 'Y' });
    expect(reply.logProbabilities?.map(({ text }) => text).join('')).toBe('<think>Hm.</think>Yes');
    expect(session.messages.at(-1)).toEqual({ role: 'assistant', content: 'Y', reasoning: 'Hm.' });
    const next = await session.send('And?', { maxTokens: 2 });
    expect(next.usage.cachedInputTokens).toBeGreaterThan(reply.usage.inputTokens - 20);
  });

  it.each([
    'Qwen-Qwen3-0.6B',
    'Qwen3-Coder',
    'mistralai-Mistral-Nemo-Instruct-2407',
    'meta-llama-Llama-3.1-8B-Instruct',
  ])('in a tool call changes nothing, with %s', async (file) => {
    const agent = await startAgent({ chatTemplate: templateOf(file), contextSize: 4096 });
    const session = await agent.createSession({ tools: [LAMP] });
    const partsWith = async (stop: SendOptions['stop']) => {
      const fork = await session.fork();
      const options: SendOptions = { toolChoice: 'required', reasoning: false, maxParallelTools: 1, maxTokens: 200 };
      const parts: StreamPart[] = [];
      for await (const part of fork.stream('Light', { ...options, ...(stop !== undefined && { stop }) })) {
        parts.push(part);
      }
      await fork.close();
      return parts;
    };
    const free = await partsWith(undefined);
    expect(free.filter(({ type }) => !type.startsWith('tool-input'))).toMatchObject([
      { type: 'tool-call', toolName: 'lamp', input: { on: expect.any(Boolean) } },
      { type: 'finish', finishReason: 'tool-calls' },
    ]);
    const stopped = await partsWith(['\n', 'lamp', 'o', '"', '{', '<', '[', ':']);
    expect(stopped.slice(0, -1)).toEqual(free.slice(0, -1));
    expect(stopped.at(-1)).toMatchObject({ finishReason: 'tool-calls' });
  });

  const responseFormat: ResponseFormat = { type: 'json', schema: { enum: ['yes', 'no'] } };
  it('in a structured reply cuts off the reply, which then has no object', async () => {
    const session = await (await startAgent({ chatTemplate: templateOf('Qwen-Qwen2.5-7B-Instruct') })).createSession();
    const whole = await (await session.fork()).send('Well?', { responseFormat, maxTokens: 50 });
    expect(['yes', 'no']).toContain(whole.object);
    const stop = String(whole.object).slice(1);
    const cut = await session.send('Well?', { responseFormat, maxTokens: 50, stop });
    expect(cut).toMatchObject({ finishReason: 'stop', detail: 'stop-string' });
    expect(cut).not.toHaveProperty('object');
  });
});

describe("a reply's text", () => {
  let model: Model;
  beforeAll(async () => {
    const path = new URL('ggml-vocab-qwen2.gguf', MODELS).pathname;
    model = await Model.load({ path, vocabularyOnly: true });
  });
  afterAll(() => model.close());

  async function formatOf(name: string): Promise<ReplyFormat> {
    const renderer = new Renderer(model, templateOf(name));
    return (await renderer.prompt({ tools: TOOLS }, [{ role: 'user', content: 'Hi' }])).format;
  }

  /** Reads a reply in pieces, and ends it as a turn does. */
  async function read(format: ReplyFormat, raw: string, stop: string[], size: number) {
    const reply = new VisibleReply(new ReplyReader(model, format, true), stop);
    const characters = Array.from(raw);
    const returned: string[] = [];
    let length = 0;
    for (; length < characters.length && !reply.stopped; length += size) {
      returned.push((await reply.push(characters.slice(length, length + size).join(''))).text);
    }
    const { text, toolCalls } = await reply.finish(reply.stopped);
    returned.push(text);
    expect(returned.join('')).toBe(reply.text);
    return { text: reply.text, stopped: reply.stopped, calls: toolCalls.length, read: length };
  }

  const CALL = '{"name": "find_part", "arguments": {"name": "chain. Look"}}';
  const HERMES = `<tool_call>\n${CALL}\n</tool_call>`;
  const HARMONY = '<|channel|>analysis<|message|>Look. It is.<|end|><|start|>assistant<|channel|>';
  it.each<[string, string, string]>([
    ['Qwen-Qwen3-0.6B', '<think>\nLook. It is.\n</think>\n\n', HERMES],
    ['Qwen-Qwen2.5-7B-Instruct', '', HERMES],
    ['mistralai-Mistral-Nemo-Instruct-2407', '', `[TOOL_CALLS][${CALL.slice(0, -1)}, "id": "abcdefghi"}]`],
    ['openai-gpt-oss-120b', `${HARMONY}final<|message|>`, ''],
    ['meta-llama-Llama-3.1-8B-Instruct', '', ''],
  ])('ends at its first stop string, however it is cut into pieces, with %s', async (name, before, call) => {
    const format = await formatOf(name);
    const raw = `${before}Well, it is, 🚲 so. And.${call}`;
    for (const size of [1, 2, 7]) {
      const at = (stop: string) => read(format, raw, ['Look', stop], size);
      expect(await at('it is, 🚲 so.')).toMatchObject({ text: 'Well, ', stopped: true, calls: 0 });
      expect(await at('\u{1F6B2}')).toMatchObject({ text: 'Well, it is, ', stopped: true, calls: 0 });
      expect(await at('so. And.')).toMatchObject({ text: 'Well, it is, 🚲 ', stopped: true, calls: 0 });
      const free = await at('And. Never');
      expect(free).toMatchObject({ text: 'Well, it is, 🚲 so. And.', stopped: false, calls: call === '' ? 0 : 1 });
    }
  });

  it('that was held back as a possible call is searched for stop strings when the reply ends', async () => {
    const format = await formatOf('meta-llama-Llama-3.1-8B-Instruct');
    const cut = await read(format, 'So: {"name": STOP it', ['STOP'], 1);
    expect(cut).toMatchObject({ text: 'So: {"name": ', stopped: true, calls: 0 });
  });

  it('ends at once at a stop string in a long reply', async () => {
    const format = await formatOf('Qwen-Qwen3-0.6B');
    const raw = `${'A word and another. '.repeat(500)}STOP${' And more.'.repeat(50)}`;
    const { text, read: length } = await read(format, raw, ['STOP'], 1);
    expect(text).toBe(raw.slice(0, raw.indexOf('STOP')));
    expect(length).toBe(raw.indexOf('STOP') + 4);
  });

  it.each([
    ['Qwen-Qwen3-0.6B', `<think>${'a b '.repeat(1500)}</think>`],
    ['Qwen-Qwen2.5-7B-Instruct', `<tool_call>\n{"name": "find_part", "arguments": {"name": "${'a b '.repeat(1500)}"}}`],
  ])('is not parsed once more for each stop string in reasoning or arguments, with %s', async (name, raw) => {
    const format = await formatOf(name);
    const parse = vi.spyOn(model, 'parseReply');
    const parsesWith = async (stop: string) => {
      parse.mockClear();
      await read(format, raw, [stop], 4);
      return parse.mock.calls.length;
    };
    const rare = await parsesWith('never there');
    expect(await parsesWith(' ')).toBeLessThan(rare + 10);
    parse.mockRestore();
  });

  it('ends at once at a stop string right after long reasoning', async () => {
    const format = await formatOf('Qwen-Qwen3-0.6B');
    const before = `<think>${'Hm. '.repeat(1500)}</think>`;
    const { text, read: length } = await read(format, `${before}So. ${'And more. '.repeat(20)}`, ['.'], 1);
    expect(text).toBe('So');
    expect(length).toBe(before.length + 3);
  });

  it('that the model ended is complete, even if white space after it is a stop string', async () => {
    const template = templateOf('Qwen-Qwen2.5-7B-Instruct');
    const jsonSchema = { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'] };
    const { format } = await new Renderer(model, template).prompt({}, [{ role: 'user', content: 'x' }], { jsonSchema });
    const json = '{"on": true}';
    expect(await read(format, `${json} \n`, ['\n'], 1)).toMatchObject({ text: `${json} `, stopped: false });
  });
});
