// The histories of stateless requests are read tolerantly: each call gets one result, and unknown content is left out.
import type { RequestMessage } from 'llama-headstart';
import { readTolerantHistory } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { random } from '../helpers/random.js';

const read = (...input: unknown[]) => readTolerantHistory(input as RequestMessage[]);
const messagesOf = (...input: unknown[]) => read(...input).messages;

const user = { role: 'user', content: 'Hi' };
const called = (id: string | undefined, args: unknown = '{}', name = 'find') => ({
  ...(id !== undefined && { id }),
  type: 'function',
  function: { name, arguments: args },
});
const calls = (...tool_calls: object[]) => ({ role: 'assistant', content: null, tool_calls });
const result = (tool_call_id: string | undefined, content: unknown, name?: string) => ({
  role: 'tool',
  content,
  ...(tool_call_id !== undefined && { tool_call_id }),
  ...(name !== undefined && { name }),
});
/** Returns the results and the messages after them, in short. */
const afterCalls = (...input: unknown[]) =>
  messagesOf(user, ...input)
    .slice(2)
    .map((message) => (message.role === 'tool' ? [message.toolCallId, message.content] : message.content));

describe('system messages', () => {
  it('at the beginning become the system prompt, and stay at their place elsewhere', () => {
    const [first, second] = [
      { role: 'system', content: 'Be kind.' },
      { role: 'developer', content: [{ type: 'text', text: 'Be brief.' }] },
    ];
    expect(read(first, second, user, second)).toEqual({
      systemPrompt: 'Be kind.\n\nBe brief.',
      messages: [user, { role: 'system', content: 'Be brief.' }],
      indices: [2, 3],
    });
    expect(read(user, first)).toEqual({ systemPrompt: undefined, messages: [user, first], indices: [0, 1] });
  });

  it('that are volatile stand after the system prompt', () => {
    const [first, second] = [
      { role: 'system', content: 'Be kind.' },
      { role: 'system', content: 'Today is Monday.', volatile: true },
    ];
    expect(read(first, second, user)).toEqual({
      systemPrompt: 'Be kind.',
      messages: [{ role: 'system', content: 'Today is Monday.' }, user],
      indices: [1, 2],
    });
    expect(read(second, first, user).systemPrompt).toBe('Today is Monday.\n\nBe kind.');
    expect(read(user, second).messages).toEqual([user, { role: 'system', content: 'Today is Monday.' }]);
  });

  it('without text are left out, but an empty one at the beginning still replaces the system prompt of the agent', () => {
    expect(read({ role: 'system', content: null }, user, { role: 'system', content: ' ' })).toEqual({
      systemPrompt: '',
      messages: [user],
      indices: [1],
    });
  });
});

describe('content', () => {
  it.each<[unknown, string]>([
    [null, ''],
    [undefined, ''],
    [[], ''],
    [['a', { type: 'text', text: 'b' }, { type: 'input_text', text: 'c' }], 'abc'],
    [[{ type: 'thinking', thinking: 'x' }, null, 7, { text: 'no type' }, { type: 'text', text: null }], ''],
    [[{ type: 'image_url', image_url: { url: 'data:' } }], '[image omitted: this model reads only text]'],
    [
      [{ type: 'text', text: 'Look:' }, { type: 'input_image' }, { type: 'text', text: 'Red?' }],
      'Look:\n[image omitted: this model reads only text]\nRed?',
    ],
    [[{ type: 'input_audio', input_audio: {} }], '[audio omitted: this model reads only text]'],
    [[{ type: 'file', file: { filename: 'a.pdf' } }], '[file a.pdf omitted: this model reads only text]'],
    [[{ type: 'file', mediaType: 'image/png' }], '[image omitted: this model reads only text]'],
  ])('%j reads as %j', (content, expected) => {
    expect(messagesOf({ role: 'user', content })).toEqual([{ role: 'user', content: expected }]);
    expect(messagesOf(user, calls(called('one')), result('one', content)).at(-1)).toMatchObject({ content: expected });
  });

  it('that is neither a text nor a list is refused with the number of the message', () => {
    expect(() => read(user, { role: 'user', content: 7 })).toThrow(/content of message 1 .* got 7/);
    expect(() => read(user, { role: 'robot', content: '' })).toThrow(/`role` of message 1 .* developer.* got "robot"/);
    expect(() => read(user, calls({ id: 'one', function: {} }))).toThrow(/`toolName` of a call in message 1/);
  });
});

it('reasoning that is not text is ignored', () => {
  const message = { role: 'assistant', content: 'Yes', reasoning: { effort: 'low' } };
  expect(messagesOf(user, message)[1]).toEqual({ role: 'assistant', content: 'Yes' });
});

it('unknown fields are ignored, and of two names of one field the first one counts', () => {
  const message = { role: 'assistant', content: 'Yes', reasoning: 'a', reasoning_content: 'b', refusal: 'x', id: 'y' };
  expect(messagesOf(user, message)[1]).toEqual({ role: 'assistant', content: 'Yes', reasoning: 'a' });
});

describe('the arguments of a call', () => {
  it.each<[unknown, unknown]>([
    ['{"a":1}', { a: 1 }],
    [{ a: 1 }, { a: 1 }],
    ['', {}],
    [null, {}],
    ['{"a', '{"a'],
    ['[1]', '[1]'],
    ['7', '7'],
    [[1], '[1]'],
    ['{"a":9007199254740993}', '{"a":9007199254740993}'],
  ])('%j are read as %j', (args, expected) => {
    expect(messagesOf(user, calls(called('one', args)))[1]).toMatchObject({ toolCalls: [{ input: expected }] });
  });

  it('that are not JSON stay the same text if the message is sent again in the form of this package', () => {
    const [, message] = messagesOf(user, calls(called('one', '{"a')));
    expect(messagesOf(user, message)[1]).toEqual(message);
  });
});

describe('each call gets one result', () => {
  it('in the order of the calls', () => {
    const two = calls(called('one'), called('two'));
    expect(afterCalls(two, result('two', '2'), result('one', '1'))).toEqual([
      ['one', '1'],
      ['two', '2'],
    ]);
  });

  it('whose text is `[no result]` if the result is missing', () => {
    const two = calls(called('one'), called('two'));
    const expected = [
      ['one', '[no result]'],
      ['two', '2'],
    ];
    expect(afterCalls(two, result('two', '2'), user)).toEqual([...expected, 'Hi']);
    expect(afterCalls(two, result('two', '2'))).toEqual(expected);
    expect(afterCalls(calls(called('one')), user, result('one', '1'))).toEqual([
      ['one', '[no result]'],
      'Hi',
      '[tool result without a call]\n1',
    ]);
  });

  it('and other results become messages of the user', () => {
    const results = [result('one', '1'), result('one', 'again'), result('other', '2', 'find')];
    expect(afterCalls(calls(called('one')), ...results)).toEqual([
      ['one', '1'],
      '[tool result without a call]\nagain',
      '[tool result of find without a call]\n2',
    ]);
    expect(messagesOf(result('one', '1'), user).map(({ role }) => role)).toEqual(['user', 'user']);
  });

  it('also if the calls are in separate replies, or in a reply in front of a text', () => {
    const split = [calls(called('one')), calls(called('two')), result('one', '1'), result('two', '2')];
    const [, reply, ...results] = messagesOf(user, ...split);
    expect(reply).toMatchObject({ toolCalls: [{ toolCallId: 'one' }, { toolCallId: 'two' }] });
    expect(results.map(({ content }) => content)).toEqual(['1', '2']);
    const text = { role: 'assistant', content: 'I look.' };
    expect(messagesOf(user, calls(called('one')), text, result('one', '1'))[1]).toMatchObject({
      content: 'I look.',
      toolCalls: [{ toolCallId: 'one' }],
    });
  });

  it('by the names of the tools if there are no ids', () => {
    const two = calls(called(undefined, '{}', 'find'), called(undefined, '{}', 'book'));
    expect(afterCalls(two, result(undefined, 'booked', 'book'), result(undefined, 'found'))).toEqual([
      ['call00000', 'found'],
      ['call00001', 'booked'],
    ]);
  });

  it('and each message keeps the index of the message in the request that it was read from', () => {
    const two = calls(called('one'), called('two'));
    const { messages, indices } = read(user, two, { role: 'assistant' }, result('two', '2'), result('x', '3'), user);
    expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'tool', 'tool', 'user', 'user']);
    expect(indices).toEqual([0, 1, 1, 3, 4, 5]);
  });

  it('of calls with the same id', () => {
    expect(afterCalls(calls(called('one'), called('one')), result('one', '1'), result('one', '2'))).toEqual([
      ['one', '1'],
      ['one', '2'],
    ]);
  });
});

it('any list of messages is read, or refused with INVALID_ARGUMENT', () => {
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const odd = [null, undefined, 7, Number.NaN, 1n, true, '', '{"a', 'x', [], {}, [[]], circular, () => 1, Symbol('s')];
  const roles = ['system', 'developer', 'user', 'assistant', 'tool', 'robot'];
  const fields = ['content', 'reasoning', 'tool_calls', 'toolCalls', 'tool_call_id', 'name', 'toolReferences', 'other'];
  const below = random(1);
  const leaf = () => odd[below(odd.length)];
  const any = (): unknown => {
    const parts = [{ type: 'text', text: leaf() }, { type: 'file', filename: leaf(), mediaType: leaf() }, leaf()];
    const openAi = [{ id: leaf(), function: { name: 'find', arguments: leaf() } }];
    const own = [
      { toolCallId: 'one', toolName: 'find', input: leaf() },
      { ...called('one'), index: leaf() },
    ];
    return [parts, openAi, own, leaf(), 'text'][below(5)];
  };
  let count = 0;
  for (let round = 0; round < 3000; round++) {
    const input: unknown[] = Array.from({ length: below(4) }, () => ({
      role: roles[below(roles.length)],
      ...Object.fromEntries(fields.filter(() => below(4) === 0).map((field) => [field, any()])),
    }));
    input.length += below(20) === 0 ? 1 : 0; // a hole
    try {
      const { messages, indices } = read(...input);
      expect(indices).toHaveLength(messages.length);
      JSON.stringify(messages);
      count++;
    } catch (error) {
      expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
  }
  expect(count).toBeGreaterThan(1000);
});
