import type { StreamPart } from 'llama-headstart';
import { collectReply } from 'llama-headstart/internal';
import { expect, it } from 'vitest';

const text = (of: string): StreamPart => ({ type: 'text-delta', text: of });
const call = (toolCallId: string): StreamPart => ({ type: 'tool-call', toolCallId, toolName: 'look', input: {} });
const result = (toolCallId: string): StreamPart => ({
  type: 'tool-result',
  toolCallId,
  toolName: 'look',
  output: 1,
  isError: false,
});

async function textOf(steps: number, ...parts: StreamPart[]): Promise<string> {
  const usage = {
    inputTokens: 1,
    cachedInputTokens: 0,
    outputTokens: 1,
    reasoningTokens: 0,
    firstTokenMs: 1,
    tokensPerSecond: 1,
    steps,
  };
  async function* stream() {
    yield* parts;
    yield { type: 'finish', finishReason: 'stop', usage } as StreamPart;
  }
  return (await collectReply(stream())).text;
}

const start = (toolCallId: string): StreamPart => ({ type: 'tool-input-start', toolCallId, toolName: 'look' });
const delta = (toolCallId: string): StreamPart => ({ type: 'tool-input-delta', toolCallId, delta: '{}' });

it('the text of a reply is the text of its last step, even if that is empty', async () => {
  expect(await textOf(1, text('It '), text('is.'))).toBe('It is.');
  expect(await textOf(1, text('Look:'), call('a'), call('b'), result('b'), result('a'))).toBe('Look:');
  expect(await textOf(2, text('Look:'), call('a'), result('a'), text('Lit.'))).toBe('Lit.');
  expect(await textOf(2, text('Look:'), call('a'), result('a'))).toBe('');
  expect(await textOf(2, text('Look:'), call('a'), result('a'), call('b'), result('b'))).toBe('');
  expect(await textOf(2, call('a'), result('a'), text('Again:'), call('b'))).toBe('Again:');
  expect(await textOf(1, text('Look'), start('a'), delta('a'), text(':'), start('b'), delta('b'), call('a'))).toBe(
    'Look:',
  );
  expect(await textOf(2, text('Look:'), call('a'), result('a'), start('b'), delta('b'), call('b'))).toBe('');
});
