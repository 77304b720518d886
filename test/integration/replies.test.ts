// A reply that arrives in pieces is separated into text, reasoning and calls. The parts do not depend on the size of
// the pieces, and contain no markup.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Renderer, ReplyReader, type ToolDefinition } from 'llama-headstart/internal';
import { Model, type ReplyFormat } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { TOOLS } from '../helpers/prompts.js';

const MODELS_DIRECTORY = fileURLToPath(new URL('../../vendor/llama.cpp/models', import.meta.url));
let model: Model;
beforeAll(async () => {
  model = await Model.load({ path: join(MODELS_DIRECTORY, 'ggml-vocab-qwen2.gguf'), vocabularyOnly: true });
});
afterAll(() => model.close());

const formats = new Map<string, ReplyFormat>();
const formOf: Record<string, ReplyFormat> = {};

/** Returns the reply format of Qwen3's chat template. */
async function formatWith(tools: readonly ToolDefinition[]): Promise<ReplyFormat> {
  const name = JSON.stringify(tools);
  let format = formats.get(name);
  if (format === undefined) {
    const renderer = new Renderer(
      model,
      readFileSync(join(MODELS_DIRECTORY, 'templates/Qwen-Qwen3-0.6B.jinja'), 'utf8'),
    );
    const prompt = await renderer.prompt({ tools }, [{ role: 'user', content: 'Hi' }], { parallelToolCalls: true });
    format = prompt.format;
    formats.set(name, format);
  }
  return format;
}

async function read(text: string, size: number, { tools = TOOLS, cut = false } = {}) {
  const format = await formatWith(tools);
  const reader = new ReplyReader(model, format, tools.length > 0);
  const deltas = { text: '', reasoning: '' };
  for (let at = 0; at < text.length; at += size) {
    const delta = await reader.push(text.slice(at, at + size));
    deltas.text += delta.text;
    deltas.reasoning += delta.reasoning;
  }
  const { toolCalls, ...rest } = await reader.finish(cut);
  const calls = toolCalls.map(({ name, arguments: json }) => ({ name, input: JSON.parse(json) as unknown }));
  return { text: deltas.text + rest.text, reasoning: deltas.reasoning + rest.reasoning, calls };
}

const CALL = '<tool_call>\n{"name": "find_part", "arguments": {"name": "chain"}}\n</tool_call>';
const PARSED = { name: 'find_part', input: { name: 'chain' } };

describe.each([1, 3, 1000])('in a reply that arrives in pieces of %i characters,', (size) => {
  it('reasoning and text are separated', async () => {
    const reply = await read('<think>\nA chain is a part.\n</think>\n\nYes, we do.', size);
    expect({ ...reply, reasoning: reply.reasoning.trim() }).toEqual({
      text: 'Yes, we do.',
      reasoning: 'A chain is a part.',
      calls: [],
    });
  });

  it('tool calls are not part of the text', async () => {
    const reply = await read(`<think>\nHm.\n</think>\n\nLet me see.\n${CALL}\n${CALL}`, size);
    expect(reply.text.trim()).toBe('Let me see.');
    expect(reply.calls).toEqual([PARSED, PARSED]);
  });

  it('text keeps its white space', async () => {
    for (const text of [' Hello\n\n', 'a < b <tool', '', '\n']) {
      expect(await read(text, size)).toEqual({ text, reasoning: '', calls: [] });
      expect((await read(text, size, { tools: [] })).text).toBe(text);
    }
  });

  it('only complete calls are returned, at whatever position the reply is cut off', async () => {
    const whole = `${CALL}\n${CALL}`;
    for (let length = 0; length < whole.length; length += 11) {
      const { text, calls } = await read(whole.slice(0, length), Math.max(size, 20), { cut: true });
      expect(calls.every((each) => JSON.stringify(each) === JSON.stringify(PARSED))).toBe(true);
      expect(text).not.toContain('{');
    }
  });
});

const ARGUMENTS = '{"name": "chain"}';
const HERMES = `<tool_call>\n{"name": "find_part", "arguments": ${ARGUMENTS}}\n</tool_call>`;
const CODER = '<tool_call>\n<function=find_part>\n<parameter=name>\nchain\n</parameter>\n</function>\n</tool_call>';
const NEMO = `[TOOL_CALLS][{"name": "find_part", "arguments": ${ARGUMENTS}, "id": "abcdefghi"}]`;
const HARMONY = '<|channel|>analysis<|message|>A chain.<|end|><|start|>assistant<|channel|>';

describe.each<[string, string, { text?: string; reasoning?: string; calls?: number }]>([
  [
    'Qwen-Qwen3-0.6B',
    `<think>\nA chain.\n</think>\n\nLook:\n${HERMES}`,
    { text: 'Look:', reasoning: 'A chain.', calls: 1 },
  ],
  ['Qwen-Qwen2.5-7B-Instruct', HERMES, { calls: 1 }],
  ['Qwen3-Coder', `Look:\n${CODER}`, { text: 'Look:', calls: 1 }],
  ['mistralai-Mistral-Nemo-Instruct-2407', NEMO, { calls: 1 }],
  ['meta-llama-Llama-3.1-8B-Instruct', `{"name": "find_part", "parameters": ${ARGUMENTS}}`, { calls: 1 }],
  [
    'openai-gpt-oss-120b',
    `${HARMONY}commentary to=functions.find_part <|constrain|>json<|message|>${ARGUMENTS}`,
    { reasoning: 'A chain.', calls: 1 },
  ],
  ['openai-gpt-oss-120b', ` to=functions.find_part<|channel|>commentary json<|message|>${ARGUMENTS}`, { calls: 1 }],
  ['openai-gpt-oss-120b', `${HARMONY}final<|message|>We do.`, { text: 'We do.', reasoning: 'A chain.' }],
])('a reply in the format of %s', (file, raw, { text = '', reasoning = '', calls = 0 }) => {
  const readTo = async (length: number, cut: boolean) => {
    const template = readFileSync(join(MODELS_DIRECTORY, 'templates', `${file}.jinja`), 'utf8');
    const messages = [{ role: 'user', content: 'Hi' }] as const;
    formOf[file] ??= (await new Renderer(model, template).prompt({ tools: TOOLS }, messages)).format;
    const reader = new ReplyReader(model, formOf[file], true);
    const deltas = { text: '', reasoning: '' };
    for (let at = 0; at < length; at += 5) {
      const delta = await reader.push(raw.slice(at, Math.min(at + 5, length)));
      deltas.text += delta.text;
      deltas.reasoning += delta.reasoning;
    }
    const { toolCalls, ...rest } = await reader.finish(cut);
    return { text: deltas.text + rest.text, reasoning: deltas.reasoning + rest.reasoning, toolCalls };
  };

  it('is separated into text, reasoning and calls', async () => {
    const whole = await readTo(raw.length, false);
    expect({ text: whole.text.trim(), reasoning: whole.reasoning.trim() }).toEqual({ text, reasoning });
    expect(whole.toolCalls.map((each) => [each.name, JSON.parse(each.arguments)])).toEqual(
      Array(calls).fill(['find_part', { name: 'chain' }]),
    );
  });

  it('shows no markup and no incomplete call, at whatever position it is cut off', async () => {
    for (let length = 0; length < raw.length; length++) {
      const part = await readTo(length, true);
      expect(`${text}\n`.startsWith(part.text.trimStart()), part.text).toBe(true);
      expect(`${reasoning}\n`.startsWith(part.reasoning), part.reasoning).toBe(true);
      expect(part.toolCalls.every((each) => JSON.parse(each.arguments).name === 'chain')).toBe(true);
    }
  });
});

it('a reply that is cut off keeps its text if it has no markup yet, but loses the beginning of a call', async () => {
  const file = join(MODELS_DIRECTORY, 'templates/openai-gpt-oss-120b.jinja');
  const renderer = new Renderer(model, readFileSync(file, 'utf8'));
  const { format } = await renderer.prompt({ tools: TOOLS }, [{ role: 'user', content: 'Hi' }]);
  const call = '<|channel|>commentary to=functions.find_part <|constrain|>json<|message|>{"na';
  const texts = ['We have four', ' a < b', '[1] We have', '{ a', '<b>We', call];
  const read: string[] = [];
  for (const text of texts) {
    const reader = new ReplyReader(model, format, true);
    await reader.push(text);
    await reader.finish(true);
    read.push(reader.text);
  }
  expect(read).toEqual([...texts.slice(0, -1), '']);
});

describe('in a format that does not mark calls', () => {
  const texts = [
    'Use f() { return 1; } and {"a": 1}.',
    '{"a": [1, 2], "name": "x"}',
    '{\n}',
    ' { "names": 1 }',
    '}{"name"',
    '{',
  ];
  it.each(texts)('braces that are not a call are text: %j', async (text) => {
    const template = readFileSync(join(MODELS_DIRECTORY, 'templates/meta-llama-Llama-3.1-8B-Instruct.jinja'), 'utf8');
    const { format } = await new Renderer(model, template).prompt({ tools: TOOLS }, [{ role: 'user', content: 'Hi' }]);
    for (const cut of [true, false]) {
      const reader = new ReplyReader(model, format, true);
      for (const piece of text) {
        await reader.push(piece);
      }
      // Text that may become a call is held back. If the reply is cut off there, this text is dropped.
      const certain = text.replace(/\{(\s*"name")?$/, '');
      expect(reader.text).toBe(certain);
      await reader.finish(cut);
      expect(reader.text).toBe(cut ? certain : text);
    }
  });
});

it('a structured reply is returned without a code fence around it', async () => {
  const template = readFileSync(join(MODELS_DIRECTORY, 'templates', 'Qwen-Qwen2.5-7B-Instruct.jinja'), 'utf8');
  const jsonSchema = { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'] };
  const { format } = await new Renderer(model, template).prompt({}, [{ role: 'user', content: 'Hi' }], { jsonSchema });
  for (const text of ['```json\n{"on": true}\n```', '{"on": true}', ' {"on": true}\n']) {
    const reader = new ReplyReader(model, format, true);
    for (const piece of text) {
      await reader.push(piece);
    }
    await reader.finish(false);
    expect(JSON.parse(reader.text)).toEqual({ on: true });
  }
});

it('a reply of 64 KiB in 3,277 pieces is parsed fewer than 1,000 times', async () => {
  const parse = vi.spyOn(model, 'parseReply');
  const { text } = await read('A word and another. '.repeat(3277), 20, { tools: TOOLS });
  expect(text).toHaveLength(65_540);
  expect(parse.mock.calls.length).toBeLessThan(1000);
  parse.mockRestore();
});
