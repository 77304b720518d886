// Tests MCP servers whose lists, prompts and answers to `initialize` break the protocol.
import { describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { failsWith } from '../helpers/errors.js';
import {
  callTool,
  connectOdd,
  good,
  inChild,
  NO_ARGUMENTS,
  overHttpJson,
  TRANSPORTS,
  textContent,
} from '../helpers/odd-mcp.js';
import type { Answers } from '../helpers/odd-mcp-server.js';

/** Tools with unusual or missing fields, and the input schema that each tool gets. */
const USABLE: readonly [tool: object, parameters: object][] = [
  [{ inputSchema: {} }, NO_ARGUMENTS],
  [{}, NO_ARGUMENTS],
  [{ inputSchema: null, title: null, annotations: null, outputSchema: null, icons: null, _meta: null }, NO_ARGUMENTS],
  [{ inputSchema: [] }, NO_ARGUMENTS],
  [{ inputSchema: { type: 'object' } }, NO_ARGUMENTS],
  [{ inputSchema: { type: null, properties: null, required: null } }, NO_ARGUMENTS],
  [{ inputSchema: { type: 'object', properties: [] } }, NO_ARGUMENTS],
  [{ inputSchema: { type: ['object', 'null'] } }, NO_ARGUMENTS],
  [
    { inputSchema: { properties: { a: { type: 'string', description: null, enum: ['x', null], default: null } } } },
    { type: 'object', properties: { a: { type: 'string', enum: ['x', null], default: null } } },
  ],
  [
    { inputSchema: { properties: { a: { type: 'string', enum: null, examples: null, pattern: null, const: 'x' } } } },
    { type: 'object', properties: { a: { type: 'string', const: 'x' } } },
  ],
  [
    { inputSchema: { properties: { a: null, b: { type: 'array', items: [] }, c: [] } } },
    { type: 'object', properties: { a: {}, b: { type: 'array', items: {} }, c: {} } },
  ],
  [
    { inputSchema: NO_ARGUMENTS, title: 7, annotations: 'none', outputSchema: [], icons: 'none', execution: 1 },
    NO_ARGUMENTS,
  ],
  [
    { inputSchema: NO_ARGUMENTS, annotations: { readOnlyHint: 'yes', title: {} }, outputSchema: { type: 7 } },
    NO_ARGUMENTS,
  ],
];

describe('an MCP server that lists invalid tools', () => {
  it.each(TRANSPORTS)(
    'offers the valid tools, and leaves out each invalid tool with a warning (%s)',
    async (_, serve) => {
      const unusable: readonly [entry: unknown, warning: string][] = [
        ['text', 'tool number 2 in the list of the MCP server "odd": it is a string, not an object'],
        [null, 'number 3 in the list of the MCP server "odd": it is null'],
        [[good], 'number 4 in the list of the MCP server "odd": it is an array'],
        [{ inputSchema: {} }, 'number 5 in the list of the MCP server "odd": its name is undefined'],
        [{ name: 7, inputSchema: {} }, 'number 6 in the list of the MCP server "odd": its name is a number'],
        [{ name: '', inputSchema: {} }, 'number 7 in the list of the MCP server "odd": its name is empty'],
        [{ name: 'a', inputSchema: 'none' }, 'the tool "a" of the MCP server "odd": its `inputSchema` is a string'],
        [{ name: 'b', inputSchema: true }, 'the tool "b" of the MCP server "odd": its `inputSchema` is a boolean'],
        [{ name: 'c', inputSchema: { type: 'string' } }, 'tool "c" of .*its `inputSchema` is of the type "string"'],
        [{ name: 'd', inputSchema: ['a'] }, 'the tool "d" of the MCP server "odd": its `inputSchema` is an array'],
      ];
      const tools = [good, ...unusable.map(([entry]) => entry), { ...good, name: 'last' }];
      const { servers, warnings } = await connectOdd(serve, { 'tools/list': { tools } });
      expect((await servers.tools()).map(({ name }) => name)).toEqual(['good', 'last']);
      expect(warnings).toEqual(unusable.map(([, warning]) => expect.stringMatching(`^Left out .*${warning}`)));
    },
  );

  it('offers tools with unusual or missing fields without a warning', async () => {
    const tools = USABLE.map(([tool], index) => ({ name: `tool${index}`, ...tool }));
    const { servers, warnings } = await connectOdd(overHttpJson, {
      'tools/list': { tools, nextCursor: null, _meta: null },
    });
    expect((await servers.tools()).map(({ inputSchema }) => inputSchema)).toEqual(USABLE.map(([, read]) => read));
    expect(warnings).toEqual([]);
  });

  it('leaves out invalid descriptions, and offers the last of two tools with the same name', async () => {
    const tools = [
      { ...good, name: 'a', description: 7 },
      { ...good, name: 'b', description: null },
      { ...good, name: 'c', description: ['x'] },
      { ...good, name: 'd', description: 'first' },
      { ...good, name: 'd', description: 'second' },
    ];
    const { servers, warnings } = await connectOdd(overHttpJson, { 'tools/list': { tools } });
    const descriptions = (await servers.tools()).map(({ name, description }) => [name, description]);
    expect(descriptions).toEqual([
      ['a', '7'],
      ['b', undefined],
      ['c', undefined],
      ['d', 'second'],
    ]);
    expect(warnings).toEqual([
      expect.stringMatching('the description of the tool "c" of the MCP server "odd": it is an array'),
      expect.stringMatching('the tool "d" of the MCP server "odd": a later tool has the same name'),
    ]);
  });

  it.each(TRANSPORTS)('offers its other tools if one schema nests too deeply (%s)', async (_, serve) => {
    const deep = `${'{"properties":{"a":'.repeat(4000)}{}${'}}'.repeat(4000)}`;
    const $json = `{"tools":[{"name":"deep","inputSchema":${deep}},${JSON.stringify(good)}]}`;
    const { servers, warnings } = await connectOdd(serve, { 'tools/list': { $json } });
    expect((await servers.tools()).map(({ name }) => name)).toEqual(['good']);
    expect(warnings.join()).toMatch(/the tool "deep" of the MCP server "odd": its `inputSchema` nests too deeply/);
  });

  it('gives its valid tools to sessions', async () => {
    const config = await inChild({
      'tools/list': { tools: [good, { name: 'odd', inputSchema: {}, title: 7 }, { name: 9 }] },
      'tools/call': { content: [textContent('called')] },
    });
    const log: string[] = [];
    const agent = await startAgent({ mcpServers: [config], logger: (_, line) => log.push(line) });
    const session = await agent.createSession();
    const { toolResults } = await session.send('Hello', { toolChoice: { name: 'odd' }, maxSteps: 1, maxTokens: 200 });
    expect(toolResults[0]).toMatchObject({ toolName: 'odd', output: 'called', isError: false });
    expect(log.join()).toMatch(/Left out tool number 3 .*"odd": its name is a number/);
  });

  it('may have schemas with integers beyond 2^53', async () => {
    const schema = '{"type":"object","properties":{"id":{"type":"integer","maximum":9223372036854775807}}}';
    const { servers, warnings } = await connectOdd(overHttpJson, {
      'tools/list': { $json: `{"tools":[{"name":"good","inputSchema":${schema}}]}` },
    });
    expect(await servers.tools()).toMatchObject([{ inputSchema: { properties: { id: { maximum: 2 ** 63 } } } }]);
    expect(warnings).toEqual([]);
  });

  it('may answer `tools/list` with an array', async () => {
    const { servers, warnings } = await connectOdd(overHttpJson, { 'tools/list': [good, { name: 7 }] });
    expect((await servers.tools()).map(({ name }) => name)).toEqual(['good']);
    expect(warnings).toEqual([expect.stringMatching('number 2 in the list .*its name is a number')]);
  });

  it.each([
    ['null', { tools: null }],
    ['nothing', null],
  ])('has no tools if it lists %s', async (_, listing) => {
    const { servers } = await connectOdd(overHttpJson, { 'tools/list': listing });
    expect(await servers.tools()).toEqual([]);
  });

  it.each([
    [
      'a text in place of the list',
      { 'tools/list': { tools: 'all of them' } },
      'Expected `tools` to be an array, got a string',
    ],
    ['an error', { 'tools/list': { $message: { jsonrpc: '2.0', error: 'out of order' } } }, 'out of order'],
    ['a message without a result', { 'tools/list': { $message: { jsonrpc: '2.0' } } }, 'neither a result nor an error'],
  ])('makes the start fail if its answer is %s', async (_, answers, message) => {
    await expect(connectOdd(overHttpJson, answers)).rejects.toThrow(
      failsWith('MCP_FAILED', `"odd": could not list its tools and prompts: .*${message}`),
    );
  });
});

describe('an MCP server that lists tools in invalid pages', () => {
  const named = (name: string) => ({ ...good, name });
  const tools64 = Array.from({ length: 64 }, (_, index) => `tool${index + 1}`);
  it.each<[cursor: string, answers: Answers, names: string[], warning: string]>([
    [
      'is a number',
      { 'tools/list': { tools: [named('a')], nextCursor: 2 }, 'tools/list 2': { tools: [named('b')] } },
      ['a', 'b'],
      '',
    ],
    ['is an object', { 'tools/list': { tools: [named('a')], nextCursor: {} } }, ['a'], 'is an object'],
    ['is empty, and means the first page', { 'tools/list': { tools: [named('a')], nextCursor: '' } }, ['a'], ''],
    ['is always the same', { 'tools/list': { tools: [named('a')], nextCursor: 'x' } }, ['a'], ''],
    [
      'is refused',
      {
        'tools/list': { tools: [named('a')], nextCursor: 'x' },
        'tools/list x': { $message: { jsonrpc: '2.0', error: { code: -32602, message: 'what?' } } },
      },
      ['a'],
      'page 2 of its tools could not be read.*what\\?',
    ],
    [
      'leads to no list',
      { 'tools/list': { tools: [named('a')], nextCursor: 'x' }, 'tools/list x': { tools: 7 } },
      ['a'],
      'page 2',
    ],
    [
      'leads through an empty page',
      {
        'tools/list': { tools: [named('a')], nextCursor: 'x' },
        'tools/list x': { tools: [], nextCursor: 'y' },
        'tools/list y': { tools: [named('b')] },
      },
      ['a', 'b'],
      '',
    ],
    ['leads on without end', { 'tools/list': { $endless: true } }, tools64, 'more than 64 pages'],
  ])('whose cursor %s offers the tools of all pages that could be read', async (_, answers, names, warning) => {
    const { servers, warnings } = await connectOdd(overHttpJson, answers);
    expect((await servers.tools()).map(({ name }) => name)).toEqual(names);
    expect(warnings.join()).toMatch(new RegExp(warning === '' ? '^$' : warning));
  });
});

describe('an MCP server with an unusual answer to `initialize`', () => {
  const serverInfo = { name: 'odd', version: '1' };
  it.each<[what: string, answer: object]>([
    [
      'nulls',
      {
        capabilities: { tools: { listChanged: null }, prompts: null, logging: null },
        serverInfo: { ...serverInfo, title: null },
        instructions: null,
        _meta: null,
      },
    ],
    ['no version', { capabilities: { tools: {} }, serverInfo: { name: 'odd' } }],
    ['no name', { capabilities: { tools: {} }, serverInfo: null }],
    ['arrays for objects', { capabilities: { tools: [], prompts: [], experimental: [] }, serverInfo }],
    ['booleans for objects', { capabilities: { tools: true, prompts: false }, serverInfo }],
    ['no capabilities', { capabilities: {}, serverInfo }],
    ['null as capabilities', { capabilities: null, serverInfo }],
  ])('offers its tools although the answer has %s', async (_, answer) => {
    const { servers, warnings } = await connectOdd(overHttpJson, {
      initialize: answer,
      'tools/list': { tools: [good] },
    });
    expect((await servers.tools()).map(({ name }) => name)).toEqual(['good']);
    expect(warnings).toEqual([]);
  });

  it('that announces no tools is asked for its tools anyway', async () => {
    const { servers } = await connectOdd(overHttpJson, { initialize: { capabilities: {}, serverInfo } });
    expect(await servers.tools()).toEqual([]);
  });

  it('may write log lines between its messages', async () => {
    const $lines = ['starting...', '{"level":"info","id":1,"msg":"listing"}', '[1,2]', 'null', ''];
    const { servers, warnings } = await connectOdd(inChild, {
      'tools/list': { $lines, $message: { jsonrpc: '2.0', error: null, extra: 1, result: { tools: [good] } } },
      'tools/call': { content: 'called' },
    });
    expect(await callTool(servers, 'good')).toBe('called');
    expect(warnings).toEqual([]);
  });
});

describe('an MCP server with invalid prompts', () => {
  it('offers the valid prompts, and leaves out each invalid prompt or argument with a warning', async () => {
    const prompts = [
      { name: 'good', description: null, arguments: null, title: 7, icons: null, _meta: null },
      'text',
      { name: 3 },
      { name: 'map', arguments: { city: {} } },
      {
        name: 'full',
        description: 'x',
        arguments: ['city', { name: 'day', required: 'true', description: null }, { name: 1 }],
      },
      { name: 'good', description: 'again' },
    ];
    const { servers, warnings } = await connectOdd(overHttpJson, {
      'prompts/list': { prompts },
      'tools/list': { tools: [good] },
    });
    expect(await servers.prompts()).toEqual([
      { server: 'odd', name: 'good', description: 'again' },
      { server: 'odd', name: 'map' },
      { server: 'odd', name: 'full', description: 'x', arguments: [{ name: 'city' }, { name: 'day', required: true }] },
    ]);
    expect(warnings).toEqual(
      [
        'prompt number 2 in the list of the MCP server "odd": it is a string',
        'prompt number 3 in the list of the MCP server "odd": its name is a number',
        'the arguments of the prompt "map" of the MCP server "odd": they are an object',
        'an argument of the prompt "full" of the MCP server "odd": it has no name',
        'the prompt "good" of the MCP server "odd": a later prompt has the same name',
      ].map((warning) => expect.stringMatching(warning)),
    );
    expect((await servers.tools()).map(({ name }) => name)).toEqual(['good']);
  });

  it.each<[what: string, listing: unknown]>([
    ['refuses to list prompts', { $message: { jsonrpc: '2.0', error: { code: -32601, message: 'Method not found' } } }],
    ['lists a number instead of prompts', { prompts: 7 }],
  ])('offers its tools if it %s', async (_, listing) => {
    const { servers, warnings } = await connectOdd(overHttpJson, {
      'prompts/list': listing,
      'tools/list': { tools: [good] },
    });
    expect(await servers.prompts()).toEqual([]);
    expect((await servers.tools()).map(({ name }) => name)).toEqual(['good']);
    expect(warnings).toEqual([expect.stringMatching(/^MCP server "odd": it could not list its prompts: /)]);
  });

  it.each<[what: string, result: unknown, messages: object[]]>([
    ['content that is a text', { messages: [{ role: 'user', content: 'a' }] }, [{ role: 'user', content: 'a' }]],
    [
      'content in parts',
      { messages: [{ role: 'assistant', content: [textContent('a'), textContent('b')] }] },
      [{ role: 'assistant', content: 'a\nb' }],
    ],
    [
      'another role',
      { description: null, messages: [{ role: 'system', content: textContent('a') }] },
      [{ role: 'user', content: 'a' }],
    ],
    [
      'texts',
      { messages: ['a', textContent('b')] },
      [
        { role: 'user', content: 'a' },
        { role: 'user', content: 'b' },
      ],
    ],
    ['one message', { messages: { role: 'user', content: textContent('a') } }, [{ role: 'user', content: 'a' }]],
    [
      'nulls',
      { _meta: null, messages: [{ role: null, content: null }] },
      [{ role: 'user', content: '[content missing]' }],
    ],
  ])('may answer `prompts/get` with %s', async (_, result, messages) => {
    const { servers } = await connectOdd(overHttpJson, {
      'prompts/list': { prompts: [{ name: 'p' }] },
      'tools/list': {},
      'prompts/get': result,
    });
    expect(await servers.getPrompt({ server: 'odd', name: 'p' })).toEqual(messages);
  });

  it('gives an error if it answers `prompts/get` without messages', async () => {
    const { servers } = await connectOdd(overHttpJson, { 'tools/list': {}, 'prompts/get': { messages: null } });
    await expect(servers.getPrompt({ server: 'odd', name: 'p' })).rejects.toThrow(
      failsWith('MCP_FAILED', '"odd": its prompt "p" failed: Expected `messages` to be an array, got null'),
    );
  });
});
