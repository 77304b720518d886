// The stream contains the arguments of a call as soon as they are certain, and never changes streamed arguments.
import { CallIds, ToolInputs } from 'llama-headstart/internal';
import type { ReplyToolCall } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';

const call = (json: string, name = 'look', id = ''): ReplyToolCall => ({ id, name, arguments: json });

/**
 * Streams the calls of a reply that is parsed again and again while it grows. Each item of `readings` is the result of
 * one parse. Returns the parts streamed before the end of the reply, the calls, and the streamed text of each call.
 */
function stream(
  readings: ReplyToolCall[][],
  { hasWrittenIds = false, maxCalls = Number.POSITIVE_INFINITY }: { hasWrittenIds?: boolean; maxCalls?: number } = {},
) {
  const inputs = new ToolInputs(new CallIds([]), { hasWrittenIds, maxCalls });
  const early = readings.flatMap((calls) => inputs.read(calls));
  const finished = inputs.finish((readings.at(-1) as ReplyToolCall[]).slice(0, maxCalls));
  const parts = [...early, ...finished.flatMap((each) => each.parts)];
  const texts: Record<string, string> = {};
  for (const part of parts) {
    if (part.type === 'tool-input-start') {
      expect(texts).not.toHaveProperty(part.toolCallId);
      texts[part.toolCallId] = '';
    } else {
      expect(part.delta).not.toBe('');
      texts[part.toolCallId] += part.delta;
    }
  }
  return { early, calls: finished.map((each) => each.call), texts };
}

describe('the arguments of a call', () => {
  it('are streamed once two consecutive parses of the growing reply agree on them', () => {
    const { early, calls, texts } = stream([[call('{')], [call('{"a')], [call('{"ab":')], [call('{"ab": 1}')]]);
    expect(early).toEqual([
      { type: 'tool-input-start', toolCallId: 'call00000', toolName: 'look' },
      { type: 'tool-input-delta', toolCallId: 'call00000', delta: '{' },
      { type: 'tool-input-delta', toolCallId: 'call00000', delta: '"a' },
      { type: 'tool-input-delta', toolCallId: 'call00000', delta: 'b":' },
    ]);
    expect(calls).toEqual([{ toolCallId: 'call00000', toolName: 'look', input: { ab: 1 } }]);
    expect(texts).toEqual({ call00000: '{"ab": 1}' });
  });

  it('are streamed in one piece if only the last parse of the reply contains them', () => {
    const { early, texts } = stream([[call('{"a": 1}')]]);
    expect(early).toEqual([]);
    expect(texts).toEqual({ call00000: '{"a": 1}' });
  });

  it('are an empty object if the model wrote none', () => {
    expect(stream([[call('')], [call(' ')], [call('')]])).toMatchObject({
      calls: [{ toolCallId: 'call00000', input: {} }],
      texts: { call00000: '{}' },
    });
  });

  it('are cut between characters, never inside one', () => {
    const { early, texts } = stream([[call('{"a":"x')], [call('{"a":"x😀')], [call('{"a":"x😁"}')]]);
    expect(early.at(-1)).toEqual({ type: 'tool-input-delta', toolCallId: 'call00000', delta: '{"a":"x' });
    expect(texts).toEqual({ call00000: '{"a":"x😁"}' });
  });
});

describe('a call that a later parse of the reply changes', () => {
  it.each([
    ['in its name', [call('{"a'), call('{"a":'), call('{"a": 1}', 'look_up')]],
    ['in its arguments', [call('{"a"'), call('{"a":1'), call('{"a":1'), call('{"a":"1"}')]],
    ['and changes back', [call('{"a"'), call('{"a":1'), call('{"b"'), call('{"a":1}')]],
  ])('%s gets a new id, and streams all of its arguments under that id', (_, readings) => {
    const { calls, texts } = stream(readings.map((each) => [each]));
    const last = readings.at(-1) as ReplyToolCall;
    expect(calls).toMatchObject([{ toolCallId: 'call00001', toolName: last.name, input: JSON.parse(last.arguments) }]);
    expect(texts.call00001).toBe(last.arguments);
  });
});

describe('the id of a call', () => {
  it('is the id that the model writes after the arguments', () => {
    const readings = [[call('{')], [call('{"a": 1')], [call('{"a": 1}')], [call('{"a": 1}', 'look', 'abcdefghi')]];
    const { early, texts } = stream(readings, { hasWrittenIds: true });
    expect(early).toEqual([
      { type: 'tool-input-start', toolCallId: 'abcdefghi', toolName: 'look' },
      { type: 'tool-input-delta', toolCallId: 'abcdefghi', delta: '{"a": 1}' },
    ]);
    expect(texts).toEqual({ abcdefghi: '{"a": 1}' });
  });

  it('is a numbered id if the model could write an id and did not', () => {
    const { early, texts } = stream([[call('{')], [call('{"a": 1}')]], { hasWrittenIds: true });
    expect(early).toEqual([]);
    expect(texts).toEqual({ call00000: '{"a": 1}' });
  });
});

it('the calls of a reply are streamed in their order, and calls beyond the limit are not streamed', () => {
  const all = [call('{"a": 1}'), call('{"b": 2}'), call('{"c": 3}')];
  const readings = [[call('{')], ...[1, 1, 2, 2, 3, 3].map((count) => all.slice(0, count))];
  const { calls, texts } = stream(readings, { maxCalls: 2 });
  expect(calls.map(({ toolCallId }) => toolCallId)).toEqual(['call00000', 'call00001']);
  expect(texts).toEqual({ call00000: '{"a": 1}', call00001: '{"b": 2}' });
});
