import fc from 'fast-check';
import { idInEdges, type Line, LineReader } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

describe('the lines of an MCP server', () => {
  it('are the same for every division into chunks', () => {
    const line = fc.string({ unit: 'grapheme' }).filter((text) => !/[\r\n]/.test(text));
    fc.assert(
      fc.property(fc.array(line), line, fc.infiniteStream(fc.nat(7)), fc.boolean(), (lines, rest, sizes, isCrLf) => {
        const bytes = Buffer.from([...lines, rest].join(isCrLf ? '\r\n' : '\n'));
        const reader = new LineReader();
        const read: Line[] = [];
        for (let from = 0, to = 0; from < bytes.length; from = to) {
          to = from + (sizes.next().value ?? 0);
          read.push(...reader.push(bytes.subarray(from, to)));
        }
        expect([...read, reader.end()].map(({ text }) => text)).toEqual([...lines, rest]);
      }),
    );
  });

  it.each([
    ['{"jsonrpc":"2.0","id":7,"result":{"content":[{"text":"', '"id":8}]}}'],
    ['{ "id": 7, "result": {"content":[{"text":"', '"}]}, "jsonrpc": "2.0" }'],
    ['{"id":7,"jsonrpc":"2.0","result":{"content":[{"text":"', '"}]}}'],
    ['{"result":{"content":[{"text":"', '"}]},"jsonrpc":"2.0","id":7}'],
    ['{"result":{"id":8,"content":[{"text":"', '"}]},"id":7,"jsonrpc":"2.0"}'],
    ['{"jsonrpc":"2.0","result":{"content":[{"text":"', '"}]},"id":7}'],
  ])('contain the id of a message whose middle is missing: %s...%s', (beginning, end) => {
    expect(idInEdges(`${beginning}xxx${end}`)).toBe(7);
  });

  it('contain no id if the id is in the missing middle', () => {
    expect(idInEdges('{"a":1,"id":7,"result":{"id":8}}')).toBeUndefined();
  });
});
