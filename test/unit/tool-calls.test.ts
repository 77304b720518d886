import { describe, expect, it } from 'vitest';
import { runCalls, type ToolRun } from '../../lib/tools/execute.js';
import { type Tool, ToolSet } from '../../lib/tools/tool.js';

const calls = (count: number) =>
  Array.from({ length: count }, (_, index) => ({ toolCallId: `call0000${index}`, toolName: 'wait', input: { index } }));

async function runWith(execute: Tool['execute'], options: Partial<ToolRun> = {}): Promise<ToolRun> {
  const tools = await ToolSet.prepare([{ name: 'wait', parameters: {}, ...(execute && { execute }) }]);
  return {
    tools,
    turnId: 'turn',
    session: { id: 'session', messages: [] },
    hook: undefined,
    signal: new AbortController().signal,
    maxParallelTools: 4,
    toolTimeoutMs: 60_000,
    maxToolResultLength: 1000,
    ...options,
  };
}

describe('the calls of one reply', () => {
  it.each([1, 2, 4])('run %i at a time, and are all answered', async (maxParallelTools) => {
    let running = 0;
    let most = 0;
    const run = await runWith(
      async ({ index }) => {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setImmediate(resolve));
        running--;
        return index;
      },
      { maxParallelTools },
    );
    const outputs: unknown[] = [];
    for await (const { output } of runCalls(calls(7), run)) {
      outputs.push(output);
    }
    expect(outputs.sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(most).toBe(maxParallelTools);
  });

  it('come as they are done: a slow one does not hold up the others', async () => {
    let release = () => {};
    const slow = new Promise<void>((resolve) => {
      release = resolve;
    });
    const run = await runWith(async ({ index }) => (index === 0 ? slow : undefined));
    const order: string[] = [];
    for await (const { call } of runCalls(calls(3), run)) {
      order.push(call.toolCallId);
      if (order.length === 2) {
        release();
      }
    }
    expect(order).toEqual(['call00001', 'call00002', 'call00000']);
  });

  it('end at once when the turn is aborted, also between two of them', async () => {
    const controller = new AbortController();
    const run = await runWith(async ({ index }) => (index === 0 ? 'quick' : new Promise(() => undefined)), {
      signal: controller.signal,
    });
    const reading = (async () => {
      for await (const _ of runCalls(calls(2), run)) {
        controller.abort();
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('that still run when nobody waits for them any more are told so by their signal', async () => {
    let left: AbortSignal | undefined;
    const run = await runWith(async ({ index }, { signal }) => {
      if (index === 0) {
        return 'quick';
      }
      left = signal;
      return new Promise(() => undefined);
    });
    for await (const { output } of runCalls(calls(2), run)) {
      expect([output, left?.aborted]).toEqual(['quick', false]);
      break;
    }
    expect(left?.aborted).toBe(true);
  });

  it('of a tool that is not there are told so', async () => {
    const run = await runWith(() => 1);
    const outcomes = runCalls([{ toolCallId: 'a', toolName: 'nobody', input: {} }], run);
    expect((await outcomes.next()).value).toMatchObject({ isError: true, output: 'There is no tool "nobody"' });
  });
});
