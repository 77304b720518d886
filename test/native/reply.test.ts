import { readFileSync } from 'node:fs';
import { hermesReplyFormat } from 'llama-headstart/internal';
import { jsonSchemaToGrammar, Model, type ReplyFormat, type SamplerOptions } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { microModel, testModel } from '../helpers/models.js';
import { codeOf } from '../helpers/native.js';
import { Bench } from '../helpers/sampling.js';

const messages = [{ role: 'user', content: 'How is the weather in Paris?' }];
const tools = [
  {
    type: 'function',
    function: {
      name: 'weather',
      description: 'Says how the weather is.',
      parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    },
  },
];
const call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>';
const parsedCall = { name: 'weather', arguments: { city: 'Paris' } };

let bench: Bench;

beforeAll(async () => {
  bench = await Bench.open(microModel('dense'));
});
afterAll(() => bench.close());

async function parse(model: Model, rendered: Pick<ReplyFormat, 'parser'>, text: string, partial = false) {
  const { toolCalls, length: _, ...rest } = await model.parseReply({ rendered, text, partial });
  return { ...rest, calls: toolCalls.map(({ name, arguments: json }) => ({ name, arguments: JSON.parse(json) })) };
}

describe('a reply', () => {
  test('without tools is parsed into its text', async () => {
    const rendered = await bench.model.render({ messages });
    expect(rendered.grammar).toBe('');
    expect(await parse(bench.model, rendered, 'Sunny, 20 °C.')).toEqual({
      content: 'Sunny, 20 °C.',
      reasoning: '',
      calls: [],
    });
  });

  test('with a tool call is parsed into its text and the call', async () => {
    const rendered = await bench.model.render({ messages, tools });
    expect(await parse(bench.model, rendered, `Let me see.\n${call}`)).toEqual({
      content: 'Let me see.\n',
      reasoning: '',
      calls: [parsedCall],
    });
  });

  test('has the ids of tool calls if its format has ids', async () => {
    const path = new URL(
      '../../vendor/llama.cpp/models/templates/mistralai-Mistral-Nemo-Instruct-2407.jinja',
      import.meta.url,
    );
    const chatTemplate = readFileSync(path, 'utf8');
    const rendered = await bench.model.render({ messages, tools, chatTemplate });
    expect(rendered.hasCallIds).toBe(true);
    const text = '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}]';
    expect((await bench.model.parseReply({ rendered, text })).toolCalls).toMatchObject([{ id: 'abcdefghi' }]);
    expect((await bench.model.render({ messages, tools })).hasCallIds).toBe(false);
    expect((await bench.model.render({ messages, chatTemplate })).hasCallIds).toBe(false);
  });

  test('without a tool call is parsed into its text, even if there are tools', async () => {
    const rendered = await bench.model.render({ messages, tools });
    expect((await parse(bench.model, rendered, 'I do not know.')).content).toBe('I do not know.');
  });

  test('with several tool calls is parsed into all of them if parallelToolCalls is set', async () => {
    const rendered = await bench.model.render({ messages, tools, parallelToolCalls: true });
    expect((await parse(bench.model, rendered, `${call}\n${call}`)).calls).toEqual([parsedCall, parsedCall]);
  });

  test('can be parsed when it is cut off at any position, and its text never contains markup', async () => {
    const rendered = await bench.model.render({ messages, tools });
    const text = `Let me see.\n${call}`;
    for (let length = 0; length <= text.length; length++) {
      const { content, toolCalls } = await bench.model.parseReply({
        rendered,
        text: text.slice(0, length),
        partial: true,
      });
      expect('Let me see.\n'.startsWith(content)).toBe(true);
      expect(toolCalls.length).toBeLessThanOrEqual(1);
    }
  });

  test('with reasoning is parsed into reasoning and text if the chat template supports it', async () => {
    const chatTemplate = THINKING_TEMPLATE;
    const text = '<think>\nParis is in France.\n</think>\n\nSunny.';
    const rendered = await bench.model.render({ messages, chatTemplate });
    expect(rendered.supportsThinking).toBe(true);
    expect(rendered.thinkingStartTag).toBe('<think>');
    expect(rendered.thinkingEndTags).toEqual(['</think>']);
    const { content, reasoning } = await parse(bench.model, rendered, text);
    expect(content.trim()).toBe('Sunny.');
    expect(reasoning.trim()).toBe('Paris is in France.');
    const whole = await bench.model.render({ messages, chatTemplate, reasoningFormat: 'none' });
    expect((await parse(bench.model, whole, text)).content).toContain('Paris is in France.');
  });

  test.each([1, 1000])('nested %i thousand levels deep is parsed or refused with an error code', async (thousands) => {
    const rendered = await bench.model.render({ messages, tools });
    const nested = '['.repeat(thousands * 1000);
    const text = `<tool_call>\n{"name": "weather", "arguments": {"city": ${nested}`;
    for (const partial of [false, true]) {
      expect(['none', 'REPLY_INVALID', 'JSON_TOO_DEEP']).toContain(
        await codeOf(() => bench.model.parseReply({ rendered, text, partial })),
      );
    }
  });

  test.each([
    ['strings', '["]",'],
    ["Python's strings", "[']',"],
    ['strings after an escaped quote', '["\\"]",'],
  ])('nested a million levels deep, with closing brackets inside %s, is refused as JSON_TOO_DEEP', async (_, level) => {
    const rendered = await bench.model.render({ messages, tools });
    for (const before of ['', 'He said " and ', "It's "]) {
      const text = `${before}<tool_call>\n{"name": "weather", "arguments": {"city": ${level.repeat(1_000_000)}`;
      expect(await codeOf(() => bench.model.parseReply({ rendered, text }))).toBe('JSON_TOO_DEEP');
    }
  });

  test('of a megabyte is parsed', async () => {
    const rendered = await bench.model.render({ messages, tools });
    const text = 'A word and another. '.repeat(50_000);
    expect((await bench.model.parseReply({ rendered, text })).content.trim()).toBe(text.trim());
  });

  test('of 20 MiB is refused as TEXT_TOO_LONG, and parseReply() refuses arguments of the wrong type', async () => {
    const rendered = await bench.model.render({ messages });
    expect(await codeOf(() => bench.model.parseReply({ rendered, text: 'a'.repeat(20 << 20) }))).toBe('TEXT_TOO_LONG');
    for (const bad of [
      undefined,
      {},
      { rendered: {} },
      { rendered: { parser: {} }, text: 'a' },
      { rendered, text: 5 },
    ]) {
      expect(await codeOf(() => bench.model.parseReply(bad as never))).toBe('INVALID_ARGUMENT');
    }
  });

  test('cannot be parsed after the model is closed', async () => {
    const model = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
    const rendered = await model.render({ messages });
    await model.close();
    expect(await codeOf(() => model.parseReply({ rendered, text: 'a' }))).toBe('CLOSED');
  });
});

describe("a rendered prompt's grammar", () => {
  test('makes the model call a tool if a call is required', async () => {
    const parameters = { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'] };
    const lamp = { type: 'function', function: { name: 'lamp', description: 'Switches the lamp.', parameters } };
    const rendered = await hermesReplyFormat(bench.model, [lamp], { toolChoice: 'required' });
    expect(rendered.grammarLazy).toBe(false);
    // The model has random weights. The bias makes it first start a call and then end the reply.
    const [opening] = await bench.model.tokenize('<tool_call>', { parseSpecial: true });
    const likely = { [opening as number]: 90, [bench.model.info.vocabulary.eos as number]: 50 };
    const text = await replyUnder(rendered, { logitBias: likely, presencePenalty: 100 });
    expect((await parse(bench.model, rendered, text)).calls).toEqual([
      { name: 'lamp', arguments: { on: expect.any(Boolean) } },
    ]);
  });

  test('starts only at a tool call if calls are optional', async () => {
    const rendered = await bench.model.render({ messages, tools });
    expect(rendered.grammarLazy).toBe(true);
    expect(rendered.grammarTriggers.length).toBeGreaterThan(0);
    const sampler = await bench.sampler(rendered);
    expect(await bench.write(sampler, 4)).toEqual(await bench.write(null, 4));
  });

  test('is empty if tools must not be called', async () => {
    const rendered = await bench.model.render({ messages, tools, toolChoice: 'none' });
    expect(rendered.grammar).toBe('');
  });

  test('makes the model write JSON that matches a schema', async () => {
    const jsonSchema = { type: 'object', properties: { sunny: { type: 'boolean' } }, required: ['sunny'] };
    const rendered = await bench.model.render({ messages, jsonSchema });
    const { content } = await bench.model.parseReply({ rendered, text: await replyUnder(rendered) });
    expect(JSON.parse(content)).toEqual({ sunny: expect.any(Boolean) });
  });

  test('is not created if an option of render() has a wrong value', async () => {
    for (const bad of [
      { toolChoice: 'maybe' },
      { parallelToolCalls: 1 },
      { reasoningFormat: 'loud' },
      { toolChoice: 5 },
    ]) {
      expect(await codeOf(() => bench.model.render({ messages, tools, ...bad } as never))).toBe('INVALID_ARGUMENT');
    }
  });

  test('is not created if a schema refers to itself forever', async () => {
    const endless = { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } } };
    expect(await codeOf(() => bench.model.render({ messages, jsonSchema: endless }))).toBe('SCHEMA_INVALID');
    const tool = { type: 'function', function: { name: 'f', description: '', parameters: endless } };
    expect(await codeOf(() => bench.model.render({ messages, tools: [tool] }))).toBe('SCHEMA_INVALID');
  });
});

async function replyUnder(rendered: ReplyFormat, options: SamplerOptions = {}): Promise<string> {
  const { grammar, grammarLazy, grammarTriggers, preservedTokens, generationPrompt } = rendered;
  const sampler = await bench.sampler({
    grammar,
    grammarLazy,
    grammarTriggers,
    preservedTokens,
    generationPrompt,
    ...options,
  });
  const tokens = await bench.write(sampler, 200);
  const bytes = await bench.model.detokenize(Int32Array.from(tokens.slice(0, -1)), { special: true });
  return new TextDecoder().decode(bytes);
}

describe('a model whose chat template has no tools', () => {
  const path = testModel();

  test.skipIf(!path)('uses the Hermes format, in which complete and partial tool calls can be parsed', async () => {
    const model = await Model.load({ path: path as string, vocabularyOnly: true });
    expect((await model.render({ messages, tools })).prompt).not.toContain('weather"');
    const rendered = await hermesReplyFormat(model, tools);
    expect(await parse(model, rendered, `Let me see.\n${call}`)).toEqual({
      content: 'Let me see.\n',
      reasoning: '',
      calls: [parsedCall],
    });
    const compact = '<tool_call>{"name":"weather","arguments":{"city":"Paris"}}</tool_call>';
    expect((await parse(model, rendered, compact)).calls).toEqual([parsedCall]);
    const partial = await model.parseReply({ rendered, text: compact.slice(0, -25), partial: true });
    expect(partial.toolCalls.map(({ name }) => name)).toEqual(['weather']);
    expect(partial.content).toBe('');
    expect((await parse(model, rendered, 'Just text.')).content).toBe('Just text.');
    await model.close();
  });

  test.skipIf(!path)('cannot end its reply without a required call', async () => {
    const real = await Bench.open(path as string, '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n');
    const eos = real.model.info.vocabulary.eos as number;
    const logitBias = { [eos]: 1e5 };
    const rendered = await hermesReplyFormat(real.model, tools, { toolChoice: 'required' });
    const { grammar, grammarLazy, grammarTriggers, preservedTokens, generationPrompt } = rendered;
    const forced = { grammar, grammarLazy, grammarTriggers, preservedTokens, generationPrompt };
    expect(await real.drawWith({ logitBias })).toEqual([eos]);
    expect(await real.write(await real.sampler({ ...forced, logitBias }), 8)).not.toContain(eos);
    await real.close();
  });
});

describe('a JSON schema', () => {
  test('becomes a grammar that the model follows', async () => {
    const schema = {
      type: 'object',
      properties: { kind: { enum: ['cat', 'dog'] }, age: { type: 'integer', minimum: 0, maximum: 30 } },
      required: ['kind', 'age'],
      additionalProperties: false,
    };
    const sampler = await bench.sampler({ grammar: await jsonSchemaToGrammar(schema), temperature: 1, seed: 3 });
    const tokens = await bench.write(sampler, 400);
    const value = JSON.parse(await bench.textOf(tokens.slice(0, -1)));
    expect(['cat', 'dog']).toContain(value.kind);
    expect(value.age).toBeGreaterThanOrEqual(0);
    expect(value.age).toBeLessThanOrEqual(30);
  });

  test('may refer to itself if a finite text can match it', async () => {
    const tree = {
      $ref: '#/$defs/node',
      $defs: { node: { type: 'object', properties: { next: { $ref: '#/$defs/node' } }, additionalProperties: false } },
    };
    expect(await jsonSchemaToGrammar(tree)).toContain('root ::=');
  });

  const self = { type: 'object', properties: { next: { $ref: '#/$defs/a' } }, required: ['next'] };
  const types = (depth: number): object =>
    depth === 0
      ? {}
      : { type: ['object', 'array', 'string'], properties: { a: types(depth - 1) }, items: types(depth - 1) };
  test.each<[string, unknown]>([
    ['whose reference refers to itself', { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } }],
    [
      'whose reference in allOf refers to itself',
      { allOf: [{ $ref: '#/$defs/a' }], $defs: { a: { $ref: '#/$defs/a' } } },
    ],
    ['that no finite text can match', { $ref: '#/$defs/a', $defs: { a: self } }],
    ['that refers to a URL', { $ref: 'https://example.com/schema.json' }],
    ['that refers to nothing', { $ref: '#/$defs/missing' }],
    ['whose root refers to the root', { $ref: '#' }],
    ['of an unknown type', { type: 'color' }],
    ['with a minimum above its maximum', { type: 'integer', minimum: 5, maximum: 1 }],
    ['with bounds beyond 64-bit integers', { type: 'integer', minimum: -1e300 }],
    ['with a minLength above its maxLength', { type: 'string', minLength: 5, maxLength: 1 }],
    ['with a huge minLength', { type: 'string', minLength: 1e9 }],
    ['with an empty enum', { enum: [] }],
    ['with an invalid pattern', { type: 'string', pattern: '^(a$' }],
    ['with nested lists of types', types(11)],
    [
      'with thousands of properties',
      { properties: Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`p${i}`, {}])) },
    ],
    ['longer than 256 KiB', { enum: ['a'.repeat(300_000)] }],
    ['that is an array', []],
  ])('%s is refused as SCHEMA_INVALID', async (_, schema) => {
    expect(await codeOf(() => jsonSchemaToGrammar(schema as object))).toBe('SCHEMA_INVALID');
  });

  test('that nests too deeply or is not an object is refused with an error code', async () => {
    let deep: object = {};
    for (let level = 0; level < 100; level++) deep = { items: deep };
    expect(await codeOf(() => jsonSchemaToGrammar(deep))).toBe('JSON_TOO_DEEP');
    expect(await codeOf(() => jsonSchemaToGrammar(undefined as never))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(() => jsonSchemaToGrammar(5 as never))).toBe('SCHEMA_INVALID');
  });
});

const THINKING_TEMPLATE = `{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{%- endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
`;
