// A conversation is rendered as the chat template writes it; what is no conversation is refused with a code.
import { Model, type RenderRequest } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { codeOf } from '../helpers/native.js';

// biome-ignore lint/suspicious/noExplicitAny: malformed requests are what is tested
type Anything = any;

let model: Model;
beforeAll(async () => {
  model = await Model.load({ path: microModel('dense') });
});
afterAll(() => model?.close());

const hi = [{ role: 'user', content: 'Hi' }];
const tool = { type: 'function', function: { name: 'f', description: 'F', parameters: { type: 'object' } } };
const render = (request: Anything) => codeOf(() => model.render(request));
const promptOf = async (request: RenderRequest) => (await model.render(request)).prompt;

const nested = (levels: number): Anything => {
  let value: Anything = 'x';
  for (let level = 0; level < levels; level++) value = [value];
  return value;
};

describe('render', () => {
  it('writes system prompt, messages and the opening of the answer', async () => {
    const messages = [{ role: 'system', content: 'Be brief.' }, ...hi];
    expect(await promptOf({ messages })).toBe(
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n',
    );
    expect(await promptOf({ messages, addGenerationPrompt: false })).not.toContain('assistant');
  });

  it('writes tools, and says whether the template can', async () => {
    const rendered = await model.render({ messages: hi, tools: [tool] });
    expect(rendered.supportsTools).toBe(true);
    expect(rendered.prompt).toContain('"name": "f"');
    expect((await model.render({ messages: hi, chatTemplate: '{{ messages[0].content }}' })).supportsTools).toBe(false);
  });

  it('writes other tools in the place of those that the reply is held to', async () => {
    const withFunction = (changes: object) => ({ ...tool, function: { ...tool.function, ...changes } });
    const shownTools = [withFunction({ description: 'Shown' })];
    const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
    const tools = [withFunction({ parameters })];
    const rendered = await model.render({ messages: hi, tools, shownTools });
    expect(rendered.prompt).toContain('Shown');
    expect(rendered.prompt).not.toContain('city');
    expect(rendered.grammar).toContain('city');
  });

  it('uses a chat template of the caller', async () => {
    expect(await promptOf({ messages: hi, chatTemplate: '{{ messages[0].content }}!' })).toBe('Hi!');
  });

  it('keeps every character, and replaces what is no character', async () => {
    const content = 'NUL \0, quotes " \\ \', emoji 🦙, newline \n\u2028';
    expect(await promptOf({ messages: [{ role: 'user', content }] })).toContain(content);
    expect(await promptOf({ messages: [{ role: 'user', content: 'half a llama: \uD83E' }] })).toContain(
      'llama: \uFFFD<',
    );
  });

  it('takes a megabyte of text, and brackets in it mean nothing', async () => {
    for (const content of ['word '.repeat(1 << 18), '['.repeat(100_000), '{"a":'.repeat(100_000)]) {
      expect(await promptOf({ messages: [{ role: 'user', content }] })).toContain(content);
    }
  });

  it('takes a thousand messages and a hundred tools', async () => {
    const messages = Array.from({ length: 1000 }, (_, at) => ({
      role: at % 2 ? 'assistant' : 'user',
      content: `m${at}`,
    }));
    expect(await promptOf({ messages })).toContain('m999');
    const tools = Array.from({ length: 100 }, (_, at) => ({ ...tool, function: { ...tool.function, name: `f${at}` } }));
    expect(await promptOf({ messages: hi, tools })).toContain('"f99"');
  });
});

describe('what is no conversation', () => {
  it('is refused: requests and messages of wrong types', async () => {
    for (const request of [undefined, null, 5, 'x', {}, { messages: undefined }]) {
      expect(await render(request), String(request)).toBe('INVALID_ARGUMENT');
    }
    const wrong = [null, 5, 'Hi', {}, hi[0], [null], [5], ['Hi'], [[]], [{}], [{ content: 'no role' }], [{ role: 5 }]];
    for (const messages of wrong) {
      expect(await render({ messages }), JSON.stringify(messages)).toBe('INVALID_ARGUMENT');
    }
    const circular: Anything = [];
    circular.push(circular);
    for (const messages of [5n, [{ role: 'user', content: 5n }], circular, () => {}, Symbol('s')]) {
      expect(await render({ messages }), typeof messages).toBe('INVALID_ARGUMENT');
    }
  });

  it('is refused: tools of wrong types', async () => {
    for (const tools of [5, 'x', {}, tool, [5], [null], [{}], [{ type: 'function' }], [{ type: 'x', function: {} }]]) {
      expect(await render({ messages: hi, tools }), JSON.stringify(tools)).toBe('INVALID_ARGUMENT');
      const shown = await render({ messages: hi, tools: [tool], shownTools: tools });
      expect(shown, JSON.stringify(tools)).toBe('INVALID_ARGUMENT');
    }
  });

  it('is refused: options of wrong types', async () => {
    expect(await render({ messages: hi, addGenerationPrompt: 1 })).toBe('INVALID_ARGUMENT');
    expect(await render({ messages: hi, reasoning: 'no' })).toBe('INVALID_ARGUMENT');
    expect(await render({ messages: hi, chatTemplate: 5 })).toBe('INVALID_ARGUMENT');
  });

  it('is refused: nesting deeper than 64, however deep', async () => {
    for (const levels of [65, 1000, 100_000]) {
      const deep = nested(levels);
      expect(await render({ messages: [{ role: 'user', content: deep }] }), String(levels)).toBe('JSON_TOO_DEEP');
      const parameters = { type: 'object', properties: { a: { enum: deep } } };
      const tools = [{ ...tool, function: { ...tool.function, parameters } }];
      expect(await render({ messages: hi, tools }), String(levels)).toBe('JSON_TOO_DEEP');
    }
  });

  it('is refused: arguments of a call, which are JSON in a string, nested deeper than 64', async () => {
    for (const levels of [65, 1000, 1_000_000]) {
      const call = { name: 'weather', arguments: `{"city": ${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}` };
      const asked = { role: 'assistant', tool_calls: [{ type: 'function', function: call }] };
      expect(await render({ messages: [...hi, asked], tools: [tool] }), String(levels)).toBe('JSON_TOO_DEEP');
    }
  });

  it('gives an answer or a code for everything that JSON can say', async () => {
    const calls = (value: Anything) => [
      { messages: [{ role: value, content: 'x' }] },
      { messages: [{ role: 'user', content: value }] },
      { messages: [...hi, { role: 'assistant', tool_calls: value }] },
      { messages: [...hi, { role: 'assistant', tool_calls: [{ type: 'function', function: value }] }] },
      {
        messages: [
          ...hi,
          { role: 'assistant', tool_calls: [{ type: 'function', function: { name: 'f', arguments: value } }] },
        ],
      },
      { messages: [...hi, { role: 'tool', tool_call_id: value, content: 'x' }] },
      { messages: hi, tools: [{ type: 'function', function: { name: value, parameters: {} } }] },
      { messages: hi, tools: [{ type: 'function', function: { name: 'f', parameters: value } }] },
      { messages: hi, tools: [{ type: 'function', function: { name: 'f', parameters: { properties: value } } }] },
    ];
    const values = [null, true, 0, 1e308, '', 'x', '\0', [], {}, [null], [[[]]], { type: 'text' }, [{ type: 'text' }]];
    const strings = ['{', '{"a":', '['.repeat(100_000), '{"a":'.repeat(100_000), 'null', '\uD800'];
    for (const value of [...values, ...strings]) {
      for (const request of calls(value)) {
        expect(await render(request)).toMatch(
          /^(none|INVALID_ARGUMENT|SCHEMA_INVALID|CHAT_TEMPLATE_FAILED|JSON_TOO_DEEP)$/,
        );
      }
    }
  });
});

describe('a chat template that is wrong', () => {
  it('is refused when it cannot be parsed', async () => {
    for (const chatTemplate of ['{% if %}', '{{', '{% for x in %}{% endfor %}', '{% endif %}']) {
      expect(await render({ messages: hi, chatTemplate }), chatTemplate).toBe('CHAT_TEMPLATE_INVALID');
    }
  });

  it('is refused when it fails', async () => {
    for (const chatTemplate of ['{{ raise_exception("no") }}', '{{ 1 + {} }}']) {
      expect(await render({ messages: hi, chatTemplate }), chatTemplate).toMatch(/^CHAT_TEMPLATE_(FAILED|INVALID)$/);
    }
  });

  it('is refused when it nests beyond all measure', async () => {
    // The parser throws from the bottom: address checks follow that up 64 MiB of stack, and take what is above for errors.
    const depth = process.env.LLAMA_HEADSTART_ASSERTS === '1' ? 5_000 : 20_000;
    for (const chatTemplate of [`{{ ${'('.repeat(50_000)}1${')'.repeat(50_000)} }}`, '{% if a %}'.repeat(depth)]) {
      expect(await render({ messages: hi, chatTemplate })).toMatch(/^(none|CHAT_TEMPLATE_(FAILED|INVALID))$/);
    }
  });

  it('leaves the next one alone', async () => {
    expect(await promptOf({ messages: hi })).toContain('Hi');
  });
});
