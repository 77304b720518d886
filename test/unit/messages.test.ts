import type { AssistantMessage, ChatMessage, MessageInput } from 'llama-headstart';
import { CallIds, pendingCalls, readHistory, readTurn, type TurnInput, toToolCall } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const call = (toolCallId: string, toolName = 'find') => ({ toolCallId, toolName, input: {} });
const historyWithCalls: ChatMessage[] = [
  { role: 'user', content: 'Look it up' },
  { role: 'assistant', content: '', toolCalls: [call('call00000'), call('call00001', 'book')] },
];
const answer = (toolCallId: string) => ({ role: 'tool', toolCallId, content: 'done' }) as const;

describe('a turn', () => {
  it('may be a text, a message, or several messages', () => {
    const message = { role: 'user', content: 'Hello' } as const;
    for (const input of [
      'Hello',
      message,
      [message],
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Hel' },
          { type: 'text', text: 'lo' },
        ],
      },
    ]) {
      expect(readTurn(input as TurnInput, [])).toEqual([message]);
    }
    expect(readTurn('', [])).toEqual([{ role: 'user', content: '' }]);
  });

  it('may answer pending tool calls, and each result gets the name of its tool', () => {
    expect(pendingCalls(historyWithCalls)).toHaveLength(2);
    const results = readTurn([answer('call00001'), answer('call00000')], historyWithCalls);
    expect(results.map((message) => message.role === 'tool' && message.toolName)).toEqual(['book', 'find']);
    expect(pendingCalls([...historyWithCalls, ...results])).toEqual([]);
    expect(
      readTurn([answer('call00001'), answer('call00000'), { role: 'user', content: 'And?' }], historyWithCalls),
    ).toHaveLength(3);
  });

  it.each<[unknown, RegExp, ChatMessage[]?]>([
    [5, /got 5/],
    [null, /got null/],
    [undefined, /got undefined/],
    [[], /end with a user message/],
    [['Hello'], /message 0 .* got "Hello"/],
    [{ role: 'user' }, /content of the message/],
    [{ role: 'user', content: [{ type: 'image' }] }, /text parts only, got a part of type "image"/],
    [{ role: 'system', content: 'Be evil' }, /systemPrompt/],
    [{ role: 'wizard', content: '' }, /got "wizard"/],
    [{ role: 'tool', content: '' }, /toolCallId/],
    [{ role: 'assistant', content: 'I say' }, /end with a user message/],
    [answer('call00009'), /got a result for "call00009"/],
    ['Never mind', /results for the tool calls "call00000", "call00001" first/, historyWithCalls],
    [[answer('call00000')], /results for the tool calls "call00001" first/, historyWithCalls],
    [[answer('call00000'), answer('call00000')], /got a result for "call00000"/, historyWithCalls],
    [{ role: 'assistant', content: '', toolCalls: 3 }, /array, got 3/],
  ])('is refused with the reason if it is invalid: %j', (input, message, before = []) => {
    expect(() => readTurn(input as TurnInput, before)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(message) }),
    );
  });

  it('does not change if the program later changes the passed message', () => {
    const message = { role: 'user' as const, content: 'Hello' };
    const [read] = readTurn(message, []);
    message.content = 'Bye';
    expect(read).toEqual({ role: 'user', content: 'Hello' });
  });
});

describe('the arguments of a call', () => {
  it('are frozen', () => {
    const written = toToolCall('call00000', { id: '', name: 'f', arguments: '{"a":{"b":[1]}}' });
    const history = readHistory([
      { role: 'user', content: 'Look it up' },
      { role: 'assistant', content: '', toolCalls: [{ ...call('call00000'), input: { a: { b: [1] } } }] },
    ]);
    const readCalls = history.flatMap((message) => (message.role === 'assistant' ? (message.toolCalls ?? []) : []));
    for (const { input } of [written, ...readCalls]) {
      expect(input).toEqual({ a: { b: [1] } });
      expect(() => (input as { a: { b: number[] } }).a.b.push(2)).toThrow(TypeError);
    }
  });
});

describe('the input of a call', () => {
  it.each([
    ['', {}],
    [' ', {}],
    ['{"a": 1}', { a: 1 }],
    ['{"a"', '{"a"'],
    ['{"a": 9007199254740993}', '{"a": 9007199254740993}'],
  ])('is the parsed JSON, or the text if it is not JSON or if parsing would lose digits: %j', (json, input) => {
    const call = toToolCall('call00000', { id: '', name: 'f', arguments: json });
    expect(call).toEqual({ toolCallId: 'call00000', toolName: 'f', input });
  });
});

describe('a conversation passed as `messages`', () => {
  it('may end with pending tool calls', () => {
    expect(readHistory(historyWithCalls as never)).toEqual(historyWithCalls);
  });

  it('must not contain two calls with the same id in one message', () => {
    const toolCalls = [1, 2].map((input) => ({ toolCallId: 'one', toolName: 'f', input }));
    expect(() => readHistory([{ role: 'assistant', content: '', toolCalls }])).toThrow(
      /different ids, got "one" twice/,
    );
  });
});

describe("a message in OpenAI's form", () => {
  const openAi = [
    { role: 'user', content: 'Look it up', name: null },
    {
      role: 'assistant',
      content: null,
      reasoning_content: 'Two calls.',
      tool_calls: [
        { id: 'one', type: 'function', function: { name: 'find', arguments: '{"a": [1]}' } },
        { id: 'two', type: 'function', index: 1, function: { name: 'book', arguments: '' } },
      ],
      refusal: null,
      annotations: [],
      audio: undefined,
    },
    { role: 'tool', tool_call_id: 'one', name: 'find', content: 'found' },
    { role: 'tool', tool_call_id: 'two', content: [{ type: 'text', text: 'booked' }] },
    { role: 'assistant', content: 'Done', reasoning_content: null, tool_calls: null },
  ];
  const expected: ChatMessage[] = [
    { role: 'user', content: 'Look it up' },
    {
      role: 'assistant',
      content: '',
      reasoning: 'Two calls.',
      toolCalls: [
        { toolCallId: 'one', toolName: 'find', input: { a: [1] } },
        { toolCallId: 'two', toolName: 'book', input: {} },
      ],
    },
    { role: 'tool', toolCallId: 'one', toolName: 'find', content: 'found' },
    { role: 'tool', toolCallId: 'two', toolName: 'book', content: 'booked' },
    { role: 'assistant', content: 'Done' },
  ];

  it('is read like a message in the form of this package', () => {
    expect(readHistory(openAi as MessageInput[])).toEqual(expected);
    expect(readHistory(expected)).toEqual(expected);
    expect(readTurn(openAi.slice(2, 4) as TurnInput, expected.slice(0, 2))).toEqual(expected.slice(2, 4));
  });

  it('may be mixed with the form of this package, even in one message', () => {
    const tool_calls = [call('one'), { id: 'two', type: 'function', function: { name: 'find', arguments: { b: 1 } } }];
    const parts = [{ type: 'tool-call', ...call('one') }];
    const [first, second] = readHistory([
      { role: 'assistant', content: '', reasoning: 'Hm.', tool_calls } as never,
      { role: 'tool', toolCallId: 'one', content: '' },
      { role: 'tool', toolCallId: 'two', content: '' },
      { role: 'assistant', content: '', toolCalls: parts } as never,
    ]).filter(({ role }) => role === 'assistant') as AssistantMessage[];
    expect(first?.toolCalls).toEqual([call('one'), { ...call('two'), input: { b: 1 } }]);
    expect(second?.toolCalls).toEqual([call('one')]);
  });
});

describe('an invalid message', () => {
  const called = { name: 'find', arguments: '{}' };

  it.each<[unknown, RegExp]>([
    [{ role: 'user', content: 'Hello', name: 'Ada' }, /Unknown field `name` in message 0$/],
    [{ role: 'user', content: 'Hello', reasoning: 'Hm' }, /Unknown field `reasoning` in message 0$/],
    [
      { role: 'assistant', content: '', tool_call: [call('one')] },
      /`tool_call` in message 0: did you mean `tool_calls`/,
    ],
    [{ role: 'assistant', content: '', toolcalls: [call('one')] }, /`toolcalls` .* did you mean `toolCalls`/],
    [{ role: 'assistant', content: '', reasoningContent: 'Hm' }, /did you mean `reasoning_content`/],
    [{ role: 'assistant', content: '', function_call: called }, /Unknown field `function_call`/],
    [{ role: 'assistant', content: '', refusal: 'No' }, /Unknown field `refusal`/],
    [{ role: 'assistant', content: '', toString: 'x' }, /Unknown field `toString`/],
    [{ role: 'tool', toolCallId: 'one', content: '', isError: false }, /Unknown field `isError`/],
    [
      { role: 'assistant', content: '', reasoning: 'a', reasoning_content: 'b' },
      /`reasoning` or `reasoning_content` in message 0, got both/,
    ],
    [{ role: 'assistant', content: '', toolCalls: [], tool_calls: [call('one')] }, /`toolCalls` or `tool_calls`/],
    [{ role: 'tool', toolCallId: 'one', tool_call_id: 'two', content: '' }, /`toolCallId` or `tool_call_id`/],
    [{ role: 'assistant', content: null }, /got null/],
    [{ role: 'assistant', content: null, tool_calls: [] }, /got null/],
    [{ role: 'tool', tool_call_id: 'one', content: null }, /got null/],
    [{ role: 'tool', tool_call_id: '', content: '' }, /`toolCallId` of message 0 to be a non-empty string/],
    [{ role: 'developer', content: 'Be brief' }, /message 0 .* got a developer message: .* `systemPrompt`/],
    [{ role: 'assistant', content: '', tool_calls: [null] }, /a call in message 0 to be an object, got null/],
    [
      { role: 'assistant', content: '', tool_calls: [{ id: 'one', name: 'find', arguments: '{}' }] },
      /Unknown field `id` in a call/,
    ],
    [
      { role: 'assistant', content: '', toolCalls: [{ toolCallId: 'one', toolName: 'f', args: {} }] },
      /Unknown field `args` in a call/,
    ],
    [
      { role: 'assistant', content: '', tool_calls: [{ id: 'one', function: { ...called, input: {} } }] },
      /Unknown field `input` in `function` of a call/,
    ],
    [
      { role: 'assistant', content: '', tool_calls: [{ id: 'one', function: { ...called, arguments: '{"a' } }] },
      /arguments of the call "one" to be JSON/,
    ],
    [
      {
        role: 'assistant',
        content: '',
        tool_calls: [{ id: 'one', function: { ...called, arguments: '[9007199254740993]' } }],
      },
      /arguments of the call "one" .*\(up to 2\^53\), got 9007199254740993/,
    ],
    [{ role: 'assistant', content: '', tool_calls: [{ function: called }] }, /`toolCallId` of a call in message 0/],
    [
      { role: 'assistant', content: '', tool_calls: [{ id: 'one', function: {} }] },
      /`toolName` of a call in message 0/,
    ],
  ])('is refused with the reason: %j', (message, expected) => {
    expect(() => readHistory([message] as MessageInput[])).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(expected) }),
    );
  });
});

describe('the ids of tool calls', () => {
  it('are the ids that the model wrote if every chat template accepts them, and numbered ids otherwise', () => {
    const ids = new CallIds(historyWithCalls);
    const given = ['abcDEF123', 'call-1', '', 'call00000', 'abcDEF123'].map((id) => ids.next(id));
    expect(given).toEqual(['abcDEF123', 'call00002', 'call00003', 'call00004', 'call00005']);
  });
});
