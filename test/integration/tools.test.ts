// Tools: the grammar forces the form of a call, so models with random weights make valid ones too.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  type MessageInput,
  type Reply,
  type SendOptions,
  type Session,
  type StreamPart,
  type Tool,
  type ToolCall,
  type ToolCallHook,
  type ToolContext,
  tool,
} from 'llama-headstart';
import { describe, expect, it, onTestFinished } from 'vitest';
import { z } from 'zod';
import { type AgentSettings, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { CLEAN, runChild } from '../helpers/children.js';
import { likelyCalls, likelyText } from '../helpers/likely-text.js';
import { writeLora } from '../helpers/loras.js';
import { microModel, testModel } from '../helpers/models.js';

const ON = { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'], additionalProperties: false };
const lamp = (execute?: Tool['execute'], name = 'lamp'): Tool => ({
  name,
  description: 'Switches the lamp.',
  parameters: ON,
  ...(execute && { execute }),
});

/** One call, and nothing behind it. */
const ONE_CALL: SendOptions = { toolChoice: 'required', maxParallelTools: 1, maxSteps: 1, maxTokens: 300 };

async function openSession(tools: readonly Tool[], settings: AgentSettings = {}): Promise<Session> {
  return (await startAgent({ contextSize: 4096, ...settings })).createSession({ tools });
}

async function call(each: Tool, options: SendOptions = {}): Promise<{ reply: Reply; session: Session }> {
  const session = await openSession([each]);
  return { reply: await session.send('Light, please', { ...ONE_CALL, ...options }), session };
}

const vendored = (name: string) =>
  readFileSync(
    fileURLToPath(new URL(`../../vendor/llama.cpp/models/templates/${name}.jinja`, import.meta.url)),
    'utf8',
  );

const roles = (session: Session) => session.messages.map(({ role }) => role);

describe('a tool', () => {
  it('runs with the arguments that the model wrote, and the model goes on with its result', async () => {
    const seen: [unknown, ToolContext][] = [];
    const session = await openSession([lamp((args, context) => void seen.push([args, context]))]);
    const parts: StreamPart[] = [];
    for await (const part of session.stream('Light, please', { ...ONE_CALL, maxSteps: 2, maxTokens: 300 })) {
      parts.push(part);
    }
    const types = parts.map(({ type }) => type).filter((type) => type !== 'text-delta' && type !== 'tool-input-delta');
    expect(types).toEqual(['tool-input-start', 'tool-call', 'tool-result', 'finish']);
    expect(seen[0]?.[0]).toEqual({ on: expect.any(Boolean) });
    expect(seen[0]?.[1]).toMatchObject({ session: { id: session.id }, toolCallId: 'call00000' });
    expect(seen[0]?.[1].signal.aborted).toBe(false);
    expect(roles(session).slice(0, 4)).toEqual(['user', 'assistant', 'tool', 'assistant']);
    expect(session.messages[2]).toEqual({ role: 'tool', toolCallId: 'call00000', toolName: 'lamp', content: 'null' });
    expect(parts.at(-1)).toMatchObject({ usage: { steps: 2 } });
  });

  it.each<[string, Tool['execute'], unknown, boolean]>([
    ['a text', () => 'It is lit.', 'It is lit.', false],
    ['data', async () => ({ lit: true }), '{"lit":true}', false],
    ['nothing', () => undefined, 'null', false],
    ['a value that JSON cannot express', () => 1n, expect.stringContaining('is not JSON data'), false],
    [
      'a circle',
      () => {
        const a: object[] = [];
        a.push(a);
        return a;
      },
      expect.stringContaining('is not JSON data'),
      false,
    ],
    [
      'megabytes',
      () => 'a'.repeat(5_000_000),
      expect.stringMatching(/^a{4096}\n\[cut: 4995904 more characters\]$/),
      false,
    ],
    [
      'an error',
      () => {
        throw new Error('The bulb broke');
      },
      '{"error":"The bulb broke"}',
      true,
    ],
    ['a rejection', () => Promise.reject('odd'), '{"error":"odd"}', true],
    [
      'what cannot be a text',
      () => {
        throw Object.create(null);
      },
      '{"error":"the tool failed"}',
      true,
    ],
  ])('may return %s: the model is told', async (_, execute, content, isError) => {
    const { reply, session } = await call(lamp(execute));
    expect(reply.toolResults).toMatchObject([{ toolName: 'lamp', isError }]);
    expect(session.messages[2]).toMatchObject({ role: 'tool', content });
    expect(reply).toMatchObject({ finishReason: 'tool-calls', detail: 'max-steps' });
  });

  it('that hangs is given up after its time, and its signal fires', async () => {
    let stopped: AbortSignal | undefined;
    const hangs: Tool['execute'] = (_, { signal }) => {
      stopped = signal;
      return new Promise(() => undefined);
    };
    const { reply } = await call(lamp(hangs), { toolTimeoutMs: 20 });
    expect(reply.toolResults).toMatchObject([{ isError: true, output: 'The tool did not answer within 20 ms' }]);
    expect(stopped?.aborted).toBe(true);
  });

  it('that hangs, and holds nothing that keeps a process alive, is given up all the same', async () => {
    const child = await runChild('integration/children/hanging-tool.mjs', [microModel('dense')]);
    expect(child).toEqual({ ...CLEAN, stdout: 'The tool did not answer within 50 ms' });
  });

  it('that hangs does not hold up an abort, and the session goes on as if nothing had been', async () => {
    const controller = new AbortController();
    const hangs: Tool['execute'] = () => {
      controller.abort();
      return new Promise(() => undefined);
    };
    const session = await openSession([lamp(hangs)]);
    await expect(session.send('Light', { ...ONE_CALL, signal: controller.signal })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    expect(session.messages).toEqual([]);
    expect((await session.send('Hello', { toolChoice: 'none', maxTokens: 3 })).usage.outputTokens).toBe(3);
  });

  it('that hangs does not hold up the time limit of its turn', async () => {
    const session = await openSession([lamp(() => new Promise(() => undefined))]);
    const late = session.send('Light', { ...ONE_CALL, maxSteps: 2, timeoutMs: 3000 });
    await expect(late).rejects.toMatchObject({ code: 'ABORTED', message: expect.stringContaining('`timeoutMs`') });
    expect(session.messages).toEqual([]);
  });

  it('that hangs does not hold up closing', async () => {
    const session = await openSession([lamp(() => new Promise(() => void session.close()))]);
    await expect(session.send('Light', ONE_CALL)).rejects.toMatchObject({ code: 'CLOSED' });
  });

  it('lets others have the sequence while it runs', async () => {
    const agent = await startAgent({ nSeqMax: 1, contextSize: 4096 });
    const other = await agent.createSession();
    const session = await agent.createSession({
      tools: [lamp(async () => (await other.send('Hello', { maxTokens: 3 })).text)],
    });
    const { toolResults } = await session.send('Light', { ...ONE_CALL, maxSteps: 2 });
    expect(toolResults[0]).toMatchObject({ isError: false, output: other.messages[1]?.content });
  });

  it('lets others have the sequence until the last of its calls is done', async () => {
    const agent = await startAgent({ nSeqMax: 1, contextSize: 4096 });
    let calls = 0;
    const ask = async () => {
      if (calls++ === 0) {
        return 'lit';
      }
      await new Promise((resolve) => setTimeout(resolve, 20)); // the first result was handed out by then
      const helper = await agent.createSession();
      await helper.send('Hello', { maxTokens: 3 });
      return helper.close();
    };
    const session = await agent.createSession({ tools: [lamp(ask)] });
    const options = { sampling: await likelyCalls(), maxSteps: 1, maxTokens: 200, toolTimeoutMs: 20_000 };
    const { toolResults } = await session.send('Light', options);
    expect(toolResults.length).toBeGreaterThan(1);
    expect(toolResults.filter(({ isError }) => isError)).toEqual([]);
  });

  it('may change adapters, and open sessions while others wait to: the turn goes on with the new ones', async () => {
    const options = { toolChoice: 'required', maxParallelTools: 1, maxSteps: 2, maxTokens: 100 } as const;
    const settings = { contextSize: 4096, kvLayout: 'split', ...EXACT } as const; // cells that others hold change the last digits
    const agent = await startAgent(settings);
    const source = await writeLora(await temporaryDirectory(), 'a', { value: 0.3 }, agent.model.info.embeddingSize);
    const seen: string[] = [];
    const session = await agent.createSession({
      tools: [
        lamp(async () => {
          const changing = agent.setLoras([{ source }]);
          const helper = await agent.createSession();
          seen.push((await helper.send('Hello', { maxTokens: 3 })).finishReason);
          seen.push((await agent.complete('Hello', { maxTokens: 3 })).finishReason);
          await changing;
          return 'lit';
        }),
      ],
    });
    const { toolResults, text } = await session.send('Light', options);
    expect(toolResults).toMatchObject([{ isError: false }]);
    expect(seen).toEqual(['length', 'length']);
    const [user, call, result] = session.messages as [MessageInput, MessageInput, MessageInput];
    const replyOf = async (loras: { source: string }[]) => {
      const fresh = await (await startAgent({ ...settings, loras })).createSession({
        tools: [lamp(() => 'lit')],
        messages: [user, call],
      });
      return (await fresh.send(result, { maxTokens: 100 })).text;
    };
    expect(text).toBe(await replyOf([{ source }]));
    expect(text).not.toBe(await replyOf([]));
  });

  it('without `execute` is for the caller to run: its results go on with the turn', async () => {
    const { reply, session } = await call(lamp());
    expect(reply).toMatchObject({ finishReason: 'tool-calls', toolResults: [] });
    expect(session.pendingToolCalls).toEqual(reply.toolCalls);
    await expect(session.send('Never mind')).rejects.toThrow(/results for the tool calls "call00000" first/);
    const results = reply.toolCalls.map(({ toolCallId }) => ({ role: 'tool', toolCallId, content: 'lit' }) as const);
    const { usage } = await session.send(results, { toolChoice: 'none', maxTokens: 3 });
    expect(usage.cachedInputTokens).toBeGreaterThan(session.report.templateTokens);
    expect(roles(session)).toEqual(['user', 'assistant', 'tool', 'assistant']);
    expect(session.pendingToolCalls).toEqual([]);
  });

  it('without `execute` waits beside those that ran: only its own results are asked for', async () => {
    const root = await openSession([lamp(() => 'lit', 'mine'), lamp(undefined, 'yours')]);
    const calls = await likelyCalls();
    const of = async (seed: number): Promise<{ session: Session; reply: Reply }> => {
      const session = await root.fork();
      const sampling = { ...calls, temperature: 2, seed };
      const reply = await session.send('Light', { sampling, maxTokens: 200 });
      const names = new Set(reply.toolCalls.map(({ toolName }) => toolName));
      return names.size === 2 && reply.finishReason === 'tool-calls' ? { session, reply } : of(seed + 1);
    };
    const { session, reply } = await of(1);
    const ids = (name: string) => reply.toolCalls.flatMap((each) => (each.toolName === name ? each.toolCallId : []));
    expect(reply.usage.steps).toBe(1);
    expect(reply.toolResults.map(({ toolCallId }) => toolCallId).sort()).toEqual(ids('mine'));
    expect(session.pendingToolCalls.map(({ toolCallId }) => toolCallId)).toEqual(ids('yours'));
    const results = ids('yours').map((toolCallId) => ({ role: 'tool', toolCallId, content: 'lit' }) as const);
    expect((await session.send(results, { toolChoice: 'none', maxTokens: 3 })).usage.outputTokens).toBe(3);
    expect(session.pendingToolCalls).toEqual([]);
  });
});

describe('the arguments of a call', () => {
  it('are checked against all of the schema, and wrong ones never reach the tool', async () => {
    let ran = false;
    const parameters = z.object({ on: z.boolean().refine(() => false, 'the lamp is gone') });
    const { reply } = await call(tool({ name: 'lamp', parameters, execute: () => (ran = true) }));
    expect(reply.toolResults).toMatchObject([{ isError: true, output: expect.stringContaining('the lamp is gone') }]);
    expect(ran).toBe(false);
  });

  it("are the tool's own: what it does to them changes nothing of the conversation", async () => {
    const { reply, session } = await call(lamp((args) => delete args.on));
    const [{ input }] = reply.toolCalls as [ToolCall];
    expect(reply.toolResults).toMatchObject([{ output: true, isError: false }]);
    expect(input).toEqual({ on: expect.any(Boolean) });
    expect(session.messages[1]).toMatchObject({ toolCalls: [{ input }] });
  });

  it('are what a zod schema makes of them', async () => {
    const parameters = z.object({ on: z.boolean().transform((on) => (on ? 'lit' : 'dark')) });
    const { reply } = await call(tool({ name: 'lamp', parameters, execute: ({ on }) => `${on} by me` }));
    expect(reply.toolResults[0]?.output).toMatch(/^(lit|dark) by me$/);
  });
});

describe('schemas with references', () => {
  const pick = (type: string) => ({
    type: 'object',
    properties: { value: { $ref: '#/$defs/Value' } },
    required: ['value'],
    additionalProperties: false,
    $defs: { Value: { type } },
  });

  it('hold each call to its own, though two mean different things by one name', async () => {
    const tools = [
      { name: 'flag', parameters: pick('boolean'), execute: () => 'flagged' },
      { name: 'count', parameters: pick('integer'), execute: () => 'counted' },
    ];
    const session = await openSession(tools);
    for (const [name, output] of [
      ['flag', 'flagged'],
      ['count', 'counted'],
    ] as const) {
      const sampling = { ...(await likelyText(name)), penaltyLastTokens: 8 }; // the prompt has the names too
      const { toolResults } = await (await session.fork()).send('Go on', { ...ONE_CALL, sampling });
      expect(toolResults).toMatchObject([{ toolName: name, output }]);
    }
  });

  const tree = {
    type: 'object',
    properties: { on: { type: 'boolean' }, next: { $ref: '#' } },
    required: ['on'],
    additionalProperties: false,
  };
  it('may be a reference itself, also where calls write arguments one by one', async () => {
    const parameters = z.object({ on: z.boolean() }).meta({ id: 'Switch' });
    expect(z.toJSONSchema(parameters)).toHaveProperty('$ref');
    const tools = [tool({ name: 'lamp', parameters, execute: ({ on }) => typeof on })];
    const session = await openSession(tools, { chatTemplate: vendored('Qwen3-Coder') });
    const { toolResults } = await session.send('Light', ONE_CALL);
    expect(toolResults).toMatchObject([{ output: 'boolean', isError: false }]);
  });

  it.each([undefined, 'Qwen3-Coder', 'meta-llama-Llama-3.1-8B-Instruct'])(
    'may be recursive: the tool gets what fits (chat template: %s)',
    async (file) => {
      const settings = file === undefined ? {} : { chatTemplate: vendored(file) };
      const session = await openSession([{ name: 'tree', parameters: tree, execute: () => 'grown' }], settings);
      const { toolResults } = await session.send('Grow', { ...ONE_CALL, sampling: { temperature: 1, seed: 2 } });
      expect(toolResults).toMatchObject([{ output: 'grown', isError: false }]);
    },
  );
});

describe('the hook', () => {
  it.each<[string, ToolCallHook, object]>([
    ['approves', () => true, { output: 'ran', isError: false }],
    ['says nothing', () => undefined, { output: 'ran', isError: false }],
    ['says null, which is nothing', () => null as never, { output: 'ran', isError: false }],
    ['refuses', async () => false, { output: 'The call was refused', isError: true }],
    ['refuses for a reason', () => ({ refuse: 'It is noon' }), { output: 'Refused: It is noon', isError: true }],
    [
      'throws',
      () => {
        throw new Error('no');
      },
      { output: 'no', isError: true },
    ],
  ])('that %s', async (_, onToolCall, expected) => {
    const { reply } = await call(
      lamp(() => 'ran'),
      { onToolCall },
    );
    expect(reply.toolResults).toMatchObject([expected]);
  });

  it.each([
    ['what no JSON can say', { on: 1n }],
    ['nothing', undefined],
  ])('that changes the arguments to %s fails the call, and the conversation goes on', async (_, input) => {
    const { reply, session } = await call(
      lamp(() => 'ran'),
      { onToolCall: () => ({ input }), maxSteps: 2 },
    );
    expect(reply.toolResults).toMatchObject([{ isError: true, output: expect.stringContaining('JSON data') }]);
    expect(session.messages[1]).toMatchObject({ toolCalls: [{ input: { on: expect.any(Boolean) } }] });
  });

  it('that changes the arguments changes what the conversation says, too', async () => {
    const seen: unknown[] = [];
    const { reply, session } = await call(
      lamp((args) => void seen.push(args)),
      {
        onToolCall: ({ input }) => ({ input: { on: !(input as { on: boolean }).on } }),
      },
    );
    const [{ input }] = reply.toolCalls as unknown as [{ input: { on: boolean } }];
    expect(seen).toEqual([{ on: !input.on }]);
    expect(session.messages[1]).toMatchObject({ toolCalls: [{ input: { on: !input.on } }] });
  });
});

describe('the choice of tools', () => {
  it('can name one', async () => {
    const session = await openSession([lamp(undefined, 'left'), lamp(undefined, 'right')]);
    for (const name of ['left', 'right']) {
      const { toolCalls } = await (await session.fork()).send('Light', { ...ONE_CALL, toolChoice: { name } });
      expect(toolCalls).toMatchObject([{ toolName: name }]);
    }
  });

  it('can be none: the template is the same', async () => {
    const session = await openSession([lamp()]);
    const { toolCalls, usage } = await session.send('Light', { toolChoice: 'none', maxTokens: 20 });
    expect(toolCalls).toEqual([]);
    expect(usage.cachedInputTokens).toBe(session.report.templateTokens);
  });

  it('can be left to the model: a call that it begins is held to its form, also where nothing marks one', async () => {
    const session = await openSession([lamp(() => 'lit')], {
      chatTemplate: vendored('meta-llama-Llama-3.1-8B-Instruct'),
    });
    const message = `${'The bulb is old. '.repeat(20)}Light, please`; // the penalties see the newest tokens only
    const options: SendOptions = { maxSteps: 1, maxTokens: 100 };
    const { toolCalls } = await session.send(message, { ...options, sampling: await likelyText('{"name": "') });
    expect(toolCalls).toMatchObject([{ toolName: 'lamp', input: { on: expect.any(Boolean) } }]);
    const free = await session.send('Thanks', { ...options, maxTokens: 10 });
    expect(free).toMatchObject({ toolCalls: [], usage: { outputTokens: 10 } });
  });

  it('is free in the replies behind the first', async () => {
    const session = await openSession([lamp(() => 'ok')]);
    const { usage, finishReason } = await session.send('Light', { ...ONE_CALL, maxSteps: 16, maxTokens: 60 });
    expect(usage.steps).toBe(2);
    expect(finishReason).toBe('length');
  });
});

describe('a reply that grows beyond what trigger patterns are searched in', () => {
  it.each(['openai-gpt-oss-120b', 'meta-llama-Llama-3.1-8B-Instruct'])('goes on without them: %s', async (file) => {
    const agent = await startAgent({ chatTemplate: vendored(file), contextSize: 8192 });
    const session = await agent.createSession({ tools: [lamp(() => 'lit')] });
    const [word, pause] = [' temperature', '!']; // tokens of the micro models
    const [often = 0, then = 0] = await agent.model.tokenize(word + pause);
    // In turns: what was said last is penalised, also by what goes on without the triggers.
    const sampling = { logitBias: { [often]: 90, [then]: 60 }, presencePenalty: 60, penaltyLastTokens: 1 };
    const { text, usage, finishReason } = await session.send('Light', { sampling, maxTokens: 2400 });
    expect({ finishReason, tokens: usage.outputTokens }).toEqual({ finishReason: 'length', tokens: 2400 });
    expect(text).toBe((word + pause).repeat(1200));
  });
});

describe('calls of one reply', () => {
  const TEMPLATES: [string, AgentSettings][] = [
    ['a template of our own', {}],
    ['Qwen2.5', { chatTemplate: vendored('Qwen-Qwen2.5-7B-Instruct') }],
    ['a template without tools', { chatTemplate: vendored('HuggingFaceTB-SmolLM3-3B') }],
  ];
  it.each(TEMPLATES)('are as many as the model likes, or one where one is asked for: %s', async (_, settings) => {
    const session = await openSession([lamp(() => 'lit')], settings);
    const options = { sampling: await likelyCalls(), maxSteps: 1, maxTokens: 200 };
    for (const toolChoice of ['auto', 'required'] as const) {
      const one = await (await session.fork()).send('Light', { ...options, toolChoice, maxParallelTools: 1 });
      expect(one).toMatchObject({ finishReason: 'tool-calls', toolCalls: [{ toolName: 'lamp' }] });
      expect(one.toolCalls).toHaveLength(1);
      const many = await (await session.fork()).send('Light', { ...options, toolChoice, maxParallelTools: 4 });
      expect(many.toolCalls.length).toBeGreaterThan(1);
    }
  });
});

describe('a reply that is cut in the middle of a call', () => {
  it.each([4, 8, 16, 24])('after %i tokens has no call, or a whole one, and the session goes on', async (maxTokens) => {
    const { reply, session } = await call(
      lamp(() => 'ok'),
      { maxTokens },
    );
    expect(reply.finishReason).toBe('length');
    for (const { input } of reply.toolCalls) {
      expect(input).toEqual({ on: expect.any(Boolean) });
    }
    expect(reply.text).not.toContain('<tool_call>');
    expect(session.pendingToolCalls).toEqual([]);
    expect((await session.send('Hello', { toolChoice: 'none', maxTokens: 3 })).usage.outputTokens).toBe(3);
  });
});

describe('tools that cannot be', () => {
  it.each<[string, unknown, string]>([
    ['named alike', [lamp(), lamp()], 'CONFIG_INVALID'],
    ['without a name', [{ description: 'x' }], 'CONFIG_INVALID'],
    ['with a field misspelt', [{ name: 'a', exectue: () => 1 }], 'CONFIG_INVALID'],
    ['with a field of another package', [{ name: 'a', input_schema: {} }], 'CONFIG_INVALID'],
    ['named by half a character', [{ name: 'a\ud800' }], 'CONFIG_INVALID'],
    [
      'whose schema no value has',
      [{ name: 'a', parameters: { properties: { b: false }, required: ['b'] } }],
      'SCHEMA_INVALID',
    ],
    ['that run nothing', [{ ...lamp(), execute: 'rm' }], 'CONFIG_INVALID'],
    ['whose schema is none', [{ name: 'a', parameters: { type: 'colour' } }], 'SCHEMA_INVALID'],
    [
      'whose schema has no end',
      [{ name: 'a', parameters: { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } } }],
      'SCHEMA_INVALID',
    ],
    ['whose schema refers to nothing', [{ name: 'a', parameters: { $ref: '#/$defs/b' } }], 'SCHEMA_INVALID'],
    ['whose arguments are a text', [tool({ name: 'a', parameters: z.string() })], 'SCHEMA_INVALID'],
    ['whose arguments are a list', [{ name: 'a', parameters: { type: ['array', 'null'] } }], 'SCHEMA_INVALID'],
    [
      'of another library',
      [{ name: 'a', parameters: { '~standard': { version: 1, vendor: 'x', validate: () => ({ value: 1 }) } } }],
      'SCHEMA_INVALID',
    ],
  ])('%s are refused when a session is opened', async (_, tools, code) => {
    const agent = await startAgent();
    await expect(agent.createSession({ tools: tools as Tool[] })).rejects.toMatchObject({ code });
    expect(agent.health()).toMatchObject({ openSessions: 0, activeSessions: 0 });
  });
});

it('half a character in a tool, or in a call of it, is told as what every encoder makes of it', async () => {
  const description = 'Half of \ud83d';
  const parameters = { type: 'object', properties: { of: { type: 'string', description } } };
  const session = await (await startAgent({ contextSize: 4096 })).createSession({
    tools: [{ name: 'halve', description, parameters }],
    messages: [
      { role: 'user', content: 'Halve it' },
      {
        role: 'assistant',
        content: '',
        toolCalls: [{ toolCallId: 'call00000', toolName: 'halve', input: { of: '\ud83d', '\udeb2': 1 } }],
      },
      { role: 'tool', toolCallId: 'call00000', content: '\udeb2' },
    ],
  });
  expect((await session.send('Thanks', { toolChoice: 'none', maxTokens: 3 })).usage.outputTokens).toBe(3);
});

describe('chat templates', () => {
  const TEMPLATES = [
    'Qwen-Qwen2.5-7B-Instruct',
    'Qwen-Qwen3-0.6B',
    'mistralai-Mistral-Nemo-Instruct-2407',
    'meta-llama-Llama-3.1-8B-Instruct',
    'Qwen3-Coder',
    'ibm-granite-granite-3.3-2B-Instruct', // shows tools, but no calls: then they are ours to show
  ];
  it.each(TEMPLATES)('%s: a call is made, read, answered and shown again', async (file) => {
    const session = await openSession([lamp(() => 'lit')], { chatTemplate: vendored(file) });
    const options: SendOptions = { ...ONE_CALL, reasoning: false, maxTokens: 400 };
    const { toolCalls, toolResults } = await session.send('Light', options);
    expect(toolCalls).toMatchObject([{ toolName: 'lamp', input: { on: expect.any(Boolean) } }]);
    expect(toolResults).toMatchObject([{ output: 'lit', isError: false }]);
    const { usage } = await session.send('Thanks', { toolChoice: 'none', maxTokens: 2 });
    expect(usage.cachedInputTokens).toBeGreaterThan(0);
  });
});

describe.skipIf(testModel() === undefined)('SmolLM2', () => {
  it('calls a tool that it must call, and answers with its result', async () => {
    const { AgentServer } = await import('llama-headstart');
    const agent = await AgentServer.initialize({
      model: { source: testModel() as string, cacheDir: null, contextSize: 1024, nThreads: 1 },
      sampling: { temperature: 0 },
    });
    onTestFinished(() => agent.close());
    const weather = tool({
      name: 'get_weather',
      description: 'Tells the weather in a city.',
      parameters: z.object({ city: z.enum(['Paris', 'Rome']) }),
      execute: ({ city }) => `It is sunny in ${city}, 21 degrees.`,
    });
    const session = await agent.createSession({ systemPrompt: 'Be brief.', tools: [weather] });
    const reply = await session.send('What is the weather in Rome?', {
      toolChoice: 'required',
      maxParallelTools: 1,
      maxTokens: 60,
    });
    expect(reply.toolCalls).toMatchObject([{ toolName: 'get_weather' }]);
    expect(reply.toolResults[0]?.output).toMatch(/^It is sunny in (Paris|Rome)/);
    expect(reply.text.length).toBeGreaterThan(0);
    expect(session.messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'tool', 'assistant']);
  });
});
