// MCP servers whose answers break the protocol, in child processes and over loopback HTTP.
import { afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { McpServers } from '../../lib/tools/mcp.js';
import type { McpServerConfig } from '../../lib/tools/mcp-config.js';
import { startAgent } from '../helpers/agents.js';
import { serveOddHttp } from '../helpers/mcp-http.js';
import type { Answers } from '../helpers/odd-mcp-server.js';
import { compileHelper } from '../helpers/processes.js';

let program = '';
const log: string[] = [];
const logger = (level: string, line: string) => void (level === 'warn' && log.push(line));

beforeAll(async () => {
  program = await compileHelper('odd-mcp-server');
});
afterEach(() => {
  log.length = 0;
});

type Serve = (answers: Answers) => Promise<McpServerConfig>;

const inChild: Serve = async (answers) => ({
  name: 'odd',
  command: process.execPath,
  args: [program, JSON.stringify(answers)],
  connectTimeoutMs: 20_000,
});
const overHttp =
  (type: Parameters<typeof serveOddHttp>[1]): Serve =>
  async (answers) => ({ type: 'http', name: 'odd', url: (await serveOddHttp(answers, type)).url });

/** The quickest to start. */
const atAddress = overHttp('application/json');

const WAYS: readonly [where: string, serve: Serve][] = [
  ['in a child process', inChild],
  ['over HTTP with JSON', atAddress],
  ['over HTTP with event streams', overHttp('text/event-stream')],
];

async function connect(serve: Serve, answers: Answers): Promise<McpServers> {
  const servers = await McpServers.connect([await serve(answers)], { logger });
  onTestFinished(() => servers.close());
  return servers;
}

async function call(servers: McpServers, name: string): Promise<string> {
  const tool = (await servers.tools()).find((each) => each.name === name);
  expect(tool, name).toBeDefined();
  return (tool as NonNullable<typeof tool>).execute({}, new AbortController());
}

const failsWith = (message: RegExp | string) =>
  expect.objectContaining({ name: 'HeadstartError', code: 'MCP_FAILED', message: expect.stringMatching(message) });

const NO_ARGUMENTS = { type: 'object', properties: {} };
const good = { name: 'good', inputSchema: NO_ARGUMENTS };
const text = (content: string) => ({ type: 'text', text: content });

/** Tools that can be used, and the parameters that they are read with. */
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

describe('an MCP server that lists odd tools', () => {
  it.each(WAYS)('%s offers those that can be read, and leaves the others out with a warning each', async (_, serve) => {
    const unusable: readonly [entry: unknown, warning: string][] = [
      ['text', 'the tool at place 2 of its list of the MCP server "odd": it is a string, not an object'],
      [null, 'place 3 of its list of the MCP server "odd": it is null'],
      [[good], 'place 4 of its list of the MCP server "odd": it is an array'],
      [{ inputSchema: {} }, 'place 5 of its list of the MCP server "odd": its name is undefined'],
      [{ name: 7, inputSchema: {} }, 'place 6 of its list of the MCP server "odd": its name is a number'],
      [{ name: '', inputSchema: {} }, 'place 7 of its list of the MCP server "odd": its name is empty'],
      [{ name: 'a', inputSchema: 'none' }, 'the tool "a" of the MCP server "odd": its `inputSchema` is a string'],
      [{ name: 'b', inputSchema: true }, 'the tool "b" of the MCP server "odd": its `inputSchema` is a boolean'],
      [{ name: 'c', inputSchema: { type: 'string' } }, 'tool "c" of .*its `inputSchema` is of the type "string"'],
      [{ name: 'd', inputSchema: ['a'] }, 'the tool "d" of the MCP server "odd": its `inputSchema` is an array'],
    ];
    const tools = [good, ...unusable.map(([entry]) => entry), { ...good, name: 'last' }];
    const servers = await connect(serve, { 'tools/list': { tools } });
    expect((await servers.tools()).map(({ name }) => name)).toEqual(['good', 'last']);
    expect(log).toEqual(unusable.map(([, warning]) => expect.stringMatching(`^Left out .*${warning}`)));
  });

  it('offers tools with odd or missing fields as far as they can be read, without a warning', async () => {
    const tools = USABLE.map(([tool], index) => ({ name: `tool${index}`, ...tool }));
    const servers = await connect(atAddress, { 'tools/list': { tools, nextCursor: null, _meta: null } });
    expect((await servers.tools()).map(({ parameters }) => parameters)).toEqual(USABLE.map(([, read]) => read));
    expect(log).toEqual([]);
  });

  it('offers a tool with an odd description without it, and of two with one name the last', async () => {
    const tools = [
      { ...good, name: 'a', description: 7 },
      { ...good, name: 'b', description: null },
      { ...good, name: 'c', description: ['x'] },
      { ...good, name: 'd', description: 'first' },
      { ...good, name: 'd', description: 'second' },
    ];
    const servers = await connect(atAddress, { 'tools/list': { tools } });
    const descriptions = (await servers.tools()).map(({ name, description }) => [name, description]);
    expect(descriptions).toEqual([
      ['a', '7'],
      ['b', undefined],
      ['c', undefined],
      ['d', 'second'],
    ]);
    expect(log).toEqual([
      expect.stringMatching('the description of the tool "c" of the MCP server "odd": it is an array'),
      expect.stringMatching('the tool "d" of the MCP server "odd": a later one has the same name'),
    ]);
  });

  it('leaves out a tool whose schema nests without measure', async () => {
    const deep = `${'{"properties":{"a":'.repeat(4000)}{}${'}}'.repeat(4000)}`;
    const list = (id: number) =>
      `{"jsonrpc":"2.0","id":${id},"result":{"tools":[{"name":"deep","inputSchema":${deep}},${JSON.stringify(good)}]}}`;
    const servers = await connect(inChild, { 'tools/list': { $lines: [list(1)], $message: {} } });
    expect((await servers.tools()).map(({ name }) => name)).toEqual(['good']);
    expect(log.join()).toMatch(/the tool "deep" of the MCP server "odd": its `inputSchema` nests too deeply/);
  });

  it("gives an agent's sessions the tools that can be used", async () => {
    const config = await inChild({
      'tools/list': { tools: [good, { name: 'odd', inputSchema: {}, title: 7 }, { name: 9 }] },
      'tools/call': { content: [text('called')] },
    });
    const agent = await startAgent({ mcpServers: [config], logger });
    const session = await agent.createSession();
    const { toolResults } = await session.send('Hello', { toolChoice: { name: 'odd' }, maxSteps: 1, maxTokens: 200 });
    expect(toolResults[0]).toMatchObject({ toolName: 'odd', output: 'called', isError: false });
    expect(log.join()).toMatch(/Left out the tool at place 3 .*"odd": its name is a number/);
  });

  it.each([
    ['null', { tools: null }],
    ['nothing', null],
  ])('has none if it lists %s', async (_, listing) => {
    const servers = await connect(atAddress, { 'tools/list': listing });
    expect(await servers.tools()).toEqual([]);
  });

  it.each([
    [
      'a list that is none',
      { 'tools/list': { tools: 'all of them' } },
      'Expected `tools` to be an array, got a string',
    ],
    ['an error', { 'tools/list': { $message: { jsonrpc: '2.0', error: 'out of order' } } }, 'out of order'],
    ['a message without a result', { 'tools/list': { $message: { jsonrpc: '2.0' } } }, 'neither a result nor an error'],
  ])('is a failure at the start if its answer is %s', async (_, answers, message) => {
    await expect(connect(atAddress, answers)).rejects.toThrow(
      failsWith(`"odd": could not list what it offers: .*${message}`),
    );
  });
});

describe('an MCP server that lists tools in odd pages', () => {
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
  ])('whose cursor %s offers what it has listed', async (_, answers, names, warning) => {
    const servers = await connect(atAddress, answers);
    expect((await servers.tools()).map(({ name }) => name)).toEqual(names);
    expect(log.join()).toMatch(new RegExp(warning === '' ? '^$' : warning));
  });
});

describe('an MCP server that greets oddly', () => {
  const serverInfo = { name: 'odd', version: '1' };
  it.each<[what: string, greeting: object]>([
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
    ['switches', { capabilities: { tools: true, prompts: false }, serverInfo }],
    ['no capabilities', { capabilities: {}, serverInfo }],
    ['null as capabilities', { capabilities: null, serverInfo }],
  ])('with %s offers its tools', async (_, greeting) => {
    const servers = await connect(atAddress, { initialize: greeting, 'tools/list': { tools: [good] } });
    expect((await servers.tools()).map(({ name }) => name)).toEqual(['good']);
    expect(log).toEqual([]);
  });

  it('and says of no tools is asked for tools, and need not know what that is', async () => {
    const servers = await connect(atAddress, { initialize: { capabilities: {}, serverInfo } });
    expect(await servers.tools()).toEqual([]);
  });

  it('and writes a log between its messages is understood', async () => {
    const $lines = ['starting...', '{"level":"info","id":1,"msg":"listing"}', '[1,2]', 'null', ''];
    const servers = await connect(inChild, {
      'tools/list': { $lines, $message: { jsonrpc: '2.0', error: null, extra: 1, result: { tools: [good] } } },
      'tools/call': { content: 'called' },
    });
    expect(await call(servers, 'good')).toBe('called');
    expect(log).toEqual([]);
  });
});

const missing = '[content missing]';
/** What a tool answers, and what reaches the model. */
const RESULTS: Readonly<Record<string, readonly [result: unknown, text: string]>> = {
  'an unknown type with text': [{ content: [{ type: 'markdown', text: '# hello' }] }, '# hello'],
  'an unknown type with data': [{ content: [{ type: 'json', json: { a: 1 } }] }, '{"type":"json","json":{"a":1}}'],
  'an unknown type with bytes': [
    { content: [{ type: 'model', data: 'AAAA', mimeType: 'x/y' }] },
    '[model, x/y, 3 bytes]',
  ],
  'no type': [{ content: [{ text: 'hello' }] }, 'hello'],
  'a text that is a number': [{ content: [{ type: 'text', text: 7 }] }, '7'],
  'a text that is data': [{ content: [{ type: 'text', text: { a: [1] } }] }, '{"a":[1]}'],
  'a text that is null': [{ content: [text('a'), { type: 'text', text: null }] }, 'a\n'],
  'content that is a text': [{ content: 'hello' }, 'hello'],
  'content that is one piece': [{ content: text('hello') }, 'hello'],
  'content in content': [{ content: [[text('a')], text('b')] }, 'a\nb'],
  'texts as content': [{ content: ['a', 1, false] }, 'a\n1\nfalse'],
  'null among content': [{ content: [text('a'), null, text('b')] }, `a\n${missing}\nb`],
  'nulls everywhere': [
    {
      _meta: null,
      structuredContent: null,
      isError: null,
      content: [{ ...text('a'), annotations: null, _meta: null }],
    },
    'a',
  ],
  'an image without data': [{ content: [text('a'), { type: 'image', data: null }] }, 'a\n[image]'],
  'a resource without contents': [{ content: [{ type: 'resource', resource: null }] }, '[resource]'],
  'a resource whose text is a number': [{ content: [{ type: 'resource', resource: { text: 7 } }] }, '7'],
  'a link that is a whole file': [
    { content: [{ type: 'resource_link', uri: `data:${'a'.repeat(10_000)}` }] },
    `[resource_link, data:${'a'.repeat(195)}...]`,
  ],
  'no content': [{}, ''],
  'null as content': [{ content: null }, ''],
  'null as result': [null, ''],
  'a text as result': ['hello', 'hello'],
  'a list as result': [[text('a'), text('b')], 'a\nb'],
  'other fields alone': [{ temperature: 21 }, '{"temperature":21}'],
  'the field of the first protocol version': [{ toolResult: 'hello' }, 'hello'],
  'structured content alone': [{ structuredContent: { a: 1 } }, '{"a":1}'],
  'structured content that is no object': [{ content: [], structuredContent: [1, 2] }, '[1,2]'],
  'structured content beside an empty text': [{ content: [text('')], structuredContent: { a: 1 } }, '\n{"a":1}'],
  'structured content beside an image': [
    { content: [{ type: 'image', data: 'AAAA', mimeType: 'image/png' }], structuredContent: { a: 1 } },
    '[image, image/png, 3 bytes]\n{"a":1}',
  ],
  'structured content beside a text': [{ content: [text('one')], structuredContent: { a: 1 } }, 'one'],
  'not an error, as a text': [{ isError: 'false', content: [text('fine')] }, 'fine'],
};

describe('a tool of an MCP server that answers oddly', () => {
  const names = Object.keys(RESULTS).map((_, index) => `tool${index}`);
  const outputSchema = { type: 'object', properties: { b: { type: 'string' } }, required: ['b'] };
  const answers = {
    'tools/list': { tools: names.map((name) => ({ ...good, name, outputSchema })) },
    ...Object.fromEntries(Object.values(RESULTS).map(([result], index) => [`tools/call tool${index}`, result])),
  };

  it.each(WAYS)('%s gives the model what can be read, whatever its outputSchema says', async (_, serve) => {
    const servers = await connect(serve, answers);
    const outputs = await Promise.all(names.map((name) => call(servers, name)));
    expect(Object.fromEntries(Object.keys(RESULTS).map((what, index) => [what, outputs[index]]))).toEqual(
      Object.fromEntries(Object.entries(RESULTS).map(([what, [, output]]) => [what, output])),
    );
  });

  it.each<[what: string, answer: object, message: RegExp]>([
    ['isError as a text', { isError: 'true', content: [text('no such file')] }, /^no such file$/],
    ['isError as a number', { isError: 1, content: 'no such file' }, /^no such file$/],
    ['an error without content', { isError: true }, /^The tool "good" failed and did not say why$/],
    [
      'an error that is a text',
      { $message: { jsonrpc: '2.0', error: 'broken' } },
      /"odd": its tool "good" failed: .*broken/,
    ],
    ['an odd error', { $message: { error: { code: 'E1', message: null } } }, /its tool "good" failed: .*E1/],
    [
      'neither result nor error',
      { $message: { jsonrpc: '2.0' } },
      /its tool "good" failed: .*neither a result nor an error/,
    ],
  ])('with %s has failed, and says why', async (_, answer, message) => {
    const servers = await connect(atAddress, { 'tools/list': { tools: [good] }, 'tools/call': answer });
    await expect(call(servers, 'good')).rejects.toThrow(failsWith(message));
    await expect(call(servers, 'good')).rejects.toThrow(failsWith(message));
    expect(log).toEqual([]);
  });
});

describe('an MCP server with odd prompts', () => {
  it('offers those that can be read, and leaves out the others with a warning each', async () => {
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
    const servers = await connect(atAddress, { 'prompts/list': { prompts }, 'tools/list': { tools: [good] } });
    expect(await servers.prompts()).toEqual([
      { server: 'odd', name: 'good', description: 'again' },
      { server: 'odd', name: 'map' },
      { server: 'odd', name: 'full', description: 'x', arguments: [{ name: 'city' }, { name: 'day', required: true }] },
    ]);
    expect(log).toEqual(
      [
        'the prompt at place 2 of its list of the MCP server "odd": it is a string',
        'the prompt at place 3 of its list of the MCP server "odd": its name is a number',
        'the arguments of the prompt "map" of the MCP server "odd": they are an object',
        'an argument of the prompt "full" of the MCP server "odd": it has no name',
        'the prompt "good" of the MCP server "odd": a later one has the same name',
      ].map((warning) => expect.stringMatching(warning)),
    );
    expect((await servers.tools()).map(({ name }) => name)).toEqual(['good']);
  });

  it.each<[what: string, listing: unknown]>([
    ['refuses to list them', { $message: { jsonrpc: '2.0', error: { code: -32601, message: 'Method not found' } } }],
    ['lists something else', { prompts: 7 }],
  ])('offers its tools if it %s', async (_, listing) => {
    const servers = await connect(atAddress, { 'prompts/list': listing, 'tools/list': { tools: [good] } });
    expect(await servers.prompts()).toEqual([]);
    expect((await servers.tools()).map(({ name }) => name)).toEqual(['good']);
    expect(log).toEqual([expect.stringMatching(/^MCP server "odd": it could not list its prompts: /)]);
  });

  it.each<[what: string, result: unknown, messages: object[]]>([
    ['content that is a text', { messages: [{ role: 'user', content: 'a' }] }, [{ role: 'user', content: 'a' }]],
    [
      'content in parts',
      { messages: [{ role: 'assistant', content: [text('a'), text('b')] }] },
      [{ role: 'assistant', content: 'a\nb' }],
    ],
    [
      'another role',
      { description: null, messages: [{ role: 'system', content: text('a') }] },
      [{ role: 'user', content: 'a' }],
    ],
    [
      'texts',
      { messages: ['a', text('b')] },
      [
        { role: 'user', content: 'a' },
        { role: 'user', content: 'b' },
      ],
    ],
    ['one message', { messages: { role: 'user', content: text('a') } }, [{ role: 'user', content: 'a' }]],
    ['nulls', { _meta: null, messages: [{ role: null, content: null }] }, [{ role: 'user', content: missing }]],
  ])('that answers with %s is read', async (_, result, messages) => {
    const servers = await connect(atAddress, {
      'prompts/list': { prompts: [{ name: 'p' }] },
      'tools/list': {},
      'prompts/get': result,
    });
    expect(await servers.getPrompt({ server: 'odd', name: 'p' })).toEqual(messages);
  });

  it('that answers without messages is an error', async () => {
    const servers = await connect(atAddress, { 'tools/list': {}, 'prompts/get': { messages: null } });
    await expect(servers.getPrompt({ server: 'odd', name: 'p' })).rejects.toThrow(
      failsWith('"odd": its prompt "p" failed: Expected `messages` to be an array, got null'),
    );
  });
});

describe('a message of an MCP server', () => {
  const sizes = (long: number) => ({
    'tools/list': { tools: [good, { ...good, name: 'long' }, { ...good, name: 'pid' }] },
    'tools/call long': { $text: long },
    'tools/call pid': { $pid: true },
  });

  it('may be of 31 MiB', async () => {
    const servers = await connect(inChild, sizes(31 * 1024 ** 2));
    expect((await call(servers, 'long')).length).toBe(31 * 1024 ** 2);
  });

  it.each(WAYS)('%s that is longer than 32 MiB is an error of its tool, and the server lives on', async (_, serve) => {
    const servers = await connect(serve, sizes(33 * 1024 ** 2));
    const pid = await call(servers, 'pid');
    const [long, others] = await Promise.allSettled([call(servers, 'long'), call(servers, 'pid')]);
    expect(long).toMatchObject({ reason: failsWith(/"odd": its tool "long" failed: .*more than 32 MiB/) });
    expect(others).toMatchObject({ value: pid });
    expect(await call(servers, 'pid')).toBe(pid);
  });
});
