// Tests results of MCP tools that break the protocol, and very long messages.
import { describe, expect, it } from 'vitest';
import { failsWith } from '../helpers/errors.js';
import { callTool, connectOdd, good, inChild, overHttpJson, TRANSPORTS, textContent } from '../helpers/odd-mcp.js';

const missing = '[content missing]';
/** Unusual results of tools, and the text that the model gets for each. */
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
  'a text that is null': [{ content: [textContent('a'), { type: 'text', text: null }] }, 'a\n'],
  'content that is a text': [{ content: 'hello' }, 'hello'],
  'content that is one piece': [{ content: textContent('hello') }, 'hello'],
  'content that nests deeply': [
    { $json: `{"content":[{"text":"a"},${'['.repeat(50_000)}${']'.repeat(50_000)}]}` },
    'a\n[data that nests too deeply]',
  ],
  'content in content': [{ content: [[textContent('a')], textContent('b')] }, 'a\nb'],
  'texts as content': [{ content: ['a', 1, false] }, 'a\n1\nfalse'],
  'null among content': [{ content: [textContent('a'), null, textContent('b')] }, `a\n${missing}\nb`],
  'nulls everywhere': [
    {
      _meta: null,
      structuredContent: null,
      isError: null,
      content: [{ ...textContent('a'), annotations: null, _meta: null }],
    },
    'a',
  ],
  'an image without data': [{ content: [textContent('a'), { type: 'image', data: null }] }, 'a\n[image]'],
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
  'a list as result': [[textContent('a'), textContent('b')], 'a\nb'],
  'other fields alone': [{ temperature: 21 }, '{"temperature":21}'],
  'the field of the first protocol version': [{ toolResult: 'hello' }, 'hello'],
  'structured content alone': [{ structuredContent: { a: 1 } }, '{"a":1}'],
  'structured content that is no object': [{ content: [], structuredContent: [1, 2] }, '[1,2]'],
  'structured content beside an empty text': [{ content: [textContent('')], structuredContent: { a: 1 } }, '\n{"a":1}'],
  'structured content beside an image': [
    { content: [{ type: 'image', data: 'AAAA', mimeType: 'image/png' }], structuredContent: { a: 1 } },
    '[image, image/png, 3 bytes]\n{"a":1}',
  ],
  'structured content with integers beyond 2^53': [
    { $json: '{"structuredContent":{"ids":[12345678901234567890,-9007199254740993],"1":"a \\"12345678901234567890"}}' },
    '{"1":"a \\"12345678901234567890","ids":[12345678901234567890,-9007199254740993]}',
  ],
  'a text that is an integer beyond 2^53': [
    { $json: '{"content":[{"type":"text","text":12345678901234567890}]}' },
    '12345678901234567890',
  ],
  'data of an unknown type with an integer beyond 2^53': [
    { $json: '{"content":[{"type":"row","id":12345678901234567890}]}' },
    '{"type":"row","id":12345678901234567890}',
  ],
  'structured content beside a text': [{ content: [textContent('one')], structuredContent: { a: 1 } }, 'one'],
  'not an error, as a text': [{ isError: 'false', content: [textContent('fine')] }, 'fine'],
};

describe('an MCP tool with an invalid result', () => {
  const names = Object.keys(RESULTS).map((_, index) => `tool${index}`);
  const outputSchema = { type: 'object', properties: { b: { type: 'string' } }, required: ['b'] };
  const answers = {
    'tools/list': { tools: names.map((name) => ({ ...good, name, outputSchema })) },
    ...Object.fromEntries(Object.values(RESULTS).map(([result], index) => [`tools/call tool${index}`, result])),
  };

  it.each(TRANSPORTS)(
    'gives the model the readable part of the result, even if it does not fit the `outputSchema` (%s)',
    async (_, serve) => {
      const { servers } = await connectOdd(serve, answers);
      const outputs = await Promise.all(names.map((name) => callTool(servers, name)));
      expect(Object.fromEntries(Object.keys(RESULTS).map((what, index) => [what, outputs[index]]))).toEqual(
        Object.fromEntries(Object.entries(RESULTS).map(([what, [, output]]) => [what, output])),
      );
    },
  );

  it.each<[what: string, answer: object, message: RegExp]>([
    ['isError as a text', { isError: 'true', content: [textContent('no such file')] }, /^no such file$/],
    ['isError as a number', { isError: 1, content: 'no such file' }, /^no such file$/],
    ['an error without content', { isError: true }, /^The tool "good" failed and did not say why$/],
    [
      'an error that is a text',
      { $message: { jsonrpc: '2.0', error: 'broken' } },
      /"odd": its tool "good" failed: .*broken/,
    ],
    [
      'an error with an integer beyond 2^53',
      { $errorJson: '{"code":1,"message":{"id":12345678901234567890}}' },
      /\{"id":12345678901234567890\}$/,
    ],
    ['an invalid error', { $message: { error: { code: 'E1', message: null } } }, /its tool "good" failed: .*E1/],
    [
      'neither result nor error',
      { $message: { jsonrpc: '2.0' } },
      /its tool "good" failed: .*neither a result nor an error/,
    ],
  ])('fails with the reason: %s', async (_, answer, message) => {
    const { servers, warnings } = await connectOdd(overHttpJson, {
      'tools/list': { tools: [good] },
      'tools/call': answer,
    });
    await expect(callTool(servers, 'good')).rejects.toThrow(failsWith('MCP_FAILED', message));
    await expect(callTool(servers, 'good')).rejects.toThrow(failsWith('MCP_FAILED', message));
    expect(warnings).toEqual([]);
  });
});

describe('a message of an MCP server', () => {
  const sizes = (long: number) => ({
    'tools/list': { tools: [good, { ...good, name: 'long' }, { ...good, name: 'pid' }] },
    'tools/call long': { $text: long },
    'tools/call pid': { $pid: true },
  });

  it('may be 31 MiB long', async () => {
    const { servers } = await connectOdd(inChild, sizes(31 * 1024 ** 2));
    expect((await callTool(servers, 'long')).length).toBe(31 * 1024 ** 2);
  });

  it.each(TRANSPORTS.slice(0, 3))(
    'that is longer than 32 MiB gives an error, and the server stays connected (%s)',
    async (_, serve) => {
      const { servers } = await connectOdd(serve, sizes(33 * 1024 ** 2));
      const pid = await callTool(servers, 'pid');
      const [long, others] = await Promise.allSettled([callTool(servers, 'long'), callTool(servers, 'pid')]);
      expect(long).toMatchObject({
        reason: failsWith('MCP_FAILED', /"odd": its tool "long" failed: .*more than 32 MiB/),
      });
      expect(others).toMatchObject({ value: pid });
      expect(await callTool(servers, 'pid')).toBe(pid);
    },
  );
});
