// `model.render()` turns a conversation into a prompt. It fails with an error code if the conversation is invalid.
import { Model, type RenderRequest } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { codeOf } from '../helpers/native.js';

// biome-ignore lint/suspicious/noExplicitAny: the tests pass malformed requests
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
  it('writes the system prompt, the messages and the header of the reply', async () => {
    const messages = [{ role: 'system', content: 'Be brief.' }, ...hi];
    expect(await promptOf({ messages })).toBe(
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n',
    );
    expect(await promptOf({ messages, addGenerationPrompt: false })).not.toContain('assistant');
  });

  it('writes the same prompt but returns no grammar if `textOnly` is set', async () => {
    const whole = await model.render({ messages: hi, tools: [tool], toolChoice: 'required' });
    const { prompt, grammar, generationPrompt } = await model.render({ messages: hi, tools: [tool], textOnly: true });
    expect(prompt).toBe(whole.prompt);
    expect(generationPrompt).toBe(whole.generationPrompt);
    expect([whole.grammar === '', grammar]).toEqual([false, '']);
  });

  it('writes the tools, and returns whether the chat template supports tools', async () => {
    const rendered = await model.render({ messages: hi, tools: [tool] });
    expect(rendered.supportsTools).toBe(true);
    expect(rendered.prompt).toContain('"name": "f"');
    expect((await model.render({ messages: hi, chatTemplate: '{{ messages[0].content }}' })).supportsTools).toBe(false);
  });

  it('writes `shownTools` into the prompt, but builds the grammar from `tools`', async () => {
    const withFunction = (changes: object) => ({ ...tool, function: { ...tool.function, ...changes } });
    const shownTools = [withFunction({ description: 'Shown' })];
    const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
    const tools = [withFunction({ parameters })];
    const rendered = await model.render({ messages: hi, tools, shownTools });
    expect(rendered.prompt).toContain('Shown');
    expect(rendered.prompt).not.toContain('city');
    expect(rendered.grammar).toContain('city');
  });

  it("uses the chat template of the request instead of the model's", async () => {
    expect(await promptOf({ messages: hi, chatTemplate: '{{ messages[0].content }}!' })).toBe('Hi!');
  });

  it('keeps every character except unpaired surrogates, which become U+FFFD', async () => {
    const content = 'NUL \0, quotes " \\ \', emoji 🦙, newline \n\u2028';
    expect(await promptOf({ messages: [{ role: 'user', content }] })).toContain(content);
    expect(await promptOf({ messages: [{ role: 'user', content: 'half a llama: \uD83E' }] })).toContain(
      'llama: \uFFFD<',
    );
  });

  it('accepts a megabyte of words, and a message that consists of brackets', async () => {
    for (const content of ['word '.repeat(1 << 18), '['.repeat(100_000), '{"a":'.repeat(100_000)]) {
      expect(await promptOf({ messages: [{ role: 'user', content }] })).toContain(content);
    }
  });

  it('accepts a thousand messages and a hundred tools', async () => {
    const messages = Array.from({ length: 1000 }, (_, at) => ({
      role: at % 2 ? 'assistant' : 'user',
      content: `m${at}`,
    }));
    expect(await promptOf({ messages })).toContain('m999');
    const tools = Array.from({ length: 100 }, (_, at) => ({ ...tool, function: { ...tool.function, name: `f${at}` } }));
    expect(await promptOf({ messages: hi, tools })).toContain('"f99"');
  });
});

describe('an invalid request', () => {
  it('is refused if the request or its messages have a wrong type', async () => {
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

  it('is refused if its tools have a wrong type', async () => {
    for (const tools of [5, 'x', {}, tool, [5], [null], [{}], [{ type: 'function' }], [{ type: 'x', function: {} }]]) {
      expect(await render({ messages: hi, tools }), JSON.stringify(tools)).toBe('INVALID_ARGUMENT');
      const shown = await render({ messages: hi, tools: [tool], shownTools: tools });
      expect(shown, JSON.stringify(tools)).toBe('INVALID_ARGUMENT');
    }
  });

  it('is refused if its options have a wrong type', async () => {
    expect(await render({ messages: hi, addGenerationPrompt: 1 })).toBe('INVALID_ARGUMENT');
    expect(await render({ messages: hi, textOnly: 'no' })).toBe('INVALID_ARGUMENT');
    expect(await render({ messages: hi, reasoning: 'no' })).toBe('INVALID_ARGUMENT');
    expect(await render({ messages: hi, chatTemplate: 5 })).toBe('INVALID_ARGUMENT');
  });

  it('is refused if a message or tool is nested more than 64 levels deep', async () => {
    for (const levels of [65, 1000, 100_000]) {
      const deep = nested(levels);
      expect(await render({ messages: [{ role: 'user', content: deep }] }), String(levels)).toBe('JSON_TOO_DEEP');
      const parameters = { type: 'object', properties: { a: { enum: deep } } };
      const tools = [{ ...tool, function: { ...tool.function, parameters } }];
      expect(await render({ messages: hi, tools }), String(levels)).toBe('JSON_TOO_DEEP');
    }
  });

  it('is refused if the JSON text in the arguments of a tool call is nested more than 64 levels deep', async () => {
    for (const levels of [65, 1000, 1_000_000]) {
      const call = { name: 'weather', arguments: `{"city": ${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}` };
      const message = { role: 'assistant', tool_calls: [{ type: 'function', function: call }] };
      expect(await render({ messages: [...hi, message], tools: [tool] }), String(levels)).toBe('JSON_TOO_DEEP');
    }
  });

  it('never fails without an error code, whatever JSON value a field contains', async () => {
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

describe('an invalid chat template', () => {
  it('is refused if it cannot be parsed', async () => {
    for (const chatTemplate of ['{% if %}', '{{', '{% for x in %}{% endfor %}', '{% endif %}']) {
      expect(await render({ messages: hi, chatTemplate }), chatTemplate).toBe('CHAT_TEMPLATE_INVALID');
    }
  });

  it('is refused if it raises an error during rendering', async () => {
    for (const chatTemplate of ['{{ raise_exception("no") }}', '{{ 1 + {} }}']) {
      expect(await render({ messages: hi, chatTemplate }), chatTemplate).toMatch(/^CHAT_TEMPLATE_(FAILED|INVALID)$/);
    }
  });

  it('does not crash the process if it is nested very deeply', async () => {
    // Sanitizers report an exception that is thrown 64 MiB deep in the stack, so the template nests less deeply with
    // sanitizers.
    const depth = process.env.LLAMA_HEADSTART_ASSERTS === '1' ? 5_000 : 20_000;
    for (const chatTemplate of [`{{ ${'('.repeat(50_000)}1${')'.repeat(50_000)} }}`, '{% if a %}'.repeat(depth)]) {
      expect(await render({ messages: hi, chatTemplate })).toMatch(/^(none|CHAT_TEMPLATE_(FAILED|INVALID))$/);
    }
  });

  it('does not affect the next request', async () => {
    expect(await promptOf({ messages: hi })).toContain('Hi');
  });
});
