import { subscribeDiagnostics, type Tool } from 'llama-headstart';
import { resolveToolOptions, runCalls, type ToolOutcome, type ToolRun, ToolSet } from 'llama-headstart/internal';
import { describe, expect, it, onTestFinished } from 'vitest';

const calls = (count: number) =>
  Array.from({ length: count }, (_, index) => ({ toolCallId: `call0000${index}`, toolName: 'wait', input: { index } }));

async function runWith(execute: Tool['execute'], options: Partial<ToolRun> = {}): Promise<ToolRun> {
  const tools = await ToolSet.prepare([{ name: 'wait', inputSchema: {}, ...(execute && { execute }) }]);
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

/** Runs a single call and returns its outcome. */
async function outcomeOf(run: ToolRun): Promise<ToolOutcome> {
  const { value } = await runCalls(calls(1), run).next();
  return value as ToolOutcome;
}

const later = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

describe('the calls of one reply', () => {
  it.each([1, 2, 4])('run %i at a time, and each has an outcome', async (maxParallelTools) => {
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

  it('have their outcomes as soon as they end: a slow call does not delay the outcomes of others', async () => {
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

  it('end at once when the turn is aborted, even between two outcomes', async () => {
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

  it('are aborted when their reader leaves', async () => {
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

  it('give an error for an unknown tool', async () => {
    const run = await runWith(() => 1);
    const outcomes = runCalls([{ toolCallId: 'a', toolName: 'unknown', input: {} }], run);
    expect((await outcomes.next()).value).toMatchObject({ isError: true, output: 'There is no tool "unknown"' });
  });

  it('publish their end even after their reader has left', async () => {
    const ends: string[] = [];
    onTestFinished(subscribeDiagnostics('tool-call', (event) => event.event === 'end' && ends.push(event.toolCallId)));
    const run = await runWith(async ({ index }) => (index === 0 ? 'quick' : new Promise(() => undefined)));
    for await (const { output } of runCalls(calls(2), run)) {
      expect(output).toBe('quick');
      break;
    }
    await later(0);
    expect(ends.sort()).toEqual(['call00000', 'call00001']);
  });

  it('have long results cut off between two characters, never inside one', async () => {
    const { content } = await outcomeOf(await runWith(() => '\u{1F6B2}'.repeat(4), { maxToolResultLength: 3 }));
    expect(content).toBe('\u{1F6B2}\n[cut: 6 more characters]');
  });
});

describe('the result of `onToolCall`', () => {
  it.each([0, '', 'no', 1, {}, { allow: false }, { refused: 'It is noon' }])(
    'makes the call fail if the result is invalid: %j',
    async (decision) => {
      let ran = false;
      const run = await runWith(() => (ran = true), { hook: (() => decision) as never });
      expect(await outcomeOf(run)).toMatchObject({
        isError: true,
        output: expect.stringMatching(/^Expected `onToolCall` to return/),
      });
      expect(ran).toBe(false);
    },
  );

  it('is ignored after the end of the turn: the tool does not run', async () => {
    const controller = new AbortController();
    let ran = false;
    let decide: (decision: boolean) => void = () => {};
    const decision = new Promise<boolean>((resolve) => {
      decide = resolve;
    });
    const hook = () => {
      setImmediate(() => controller.abort());
      return decision;
    };
    const run = await runWith(() => (ran = true), { hook, signal: controller.signal });
    await expect(outcomeOf(run)).rejects.toMatchObject({ code: 'ABORTED' });
    decide(true);
    await later(0);
    expect(ran).toBe(false);
  });

  it('may come after the time limit of a tool', async () => {
    const hook = () => later(50).then(() => true);
    const run = await runWith(() => 'ran', { hook, toolTimeoutMs: 5 });
    expect(await outcomeOf(run)).toMatchObject({ output: 'ran', isError: false });
  });

  it('may replace the arguments by JSON data, which is copied', async () => {
    const input = { index: 7 };
    const run = await runWith((args) => args.index, { hook: () => ({ input }) });
    const { call, output } = await outcomeOf(run);
    input.index = 8;
    expect({ input: call.input, output }).toEqual({ input: { index: 7 }, output: 7 });
    for (const wrong of [{ index: 7n }, undefined]) {
      const refused = await outcomeOf(await runWith(() => 1, { hook: () => ({ input: wrong }) }));
      expect(refused).toMatchObject({ isError: true, output: expect.stringMatching(/JSON data/) });
    }
  });
});

it('a tool does not run if the check of its arguments exceeds the time limit', async () => {
  let ran = false;
  const validate = async (value: unknown) => {
    await later(30);
    return { value };
  };
  const parameters = { '~standard': { version: 1, vendor: 'x', validate, jsonSchema: { input: () => ({}) } } } as const;
  const tools = await ToolSet.prepare([{ name: 'wait', parameters, execute: () => (ran = true) }]);
  const run = { ...(await runWith(undefined)), tools, toolTimeoutMs: 5 };
  expect(await outcomeOf(run)).toMatchObject({ isError: true, output: 'The tool did not answer within 5 ms' });
  await later(40);
  expect(ran).toBe(false);
});

it('the options of tools have the documented defaults', () => {
  const { maxSteps, maxParallelTools, toolTimeoutMs, toolChoice } = resolveToolOptions(8192, {});
  expect({ maxSteps, maxParallelTools, toolTimeoutMs, toolChoice }).toEqual({
    maxSteps: 16,
    maxParallelTools: 4,
    toolTimeoutMs: 60_000,
    toolChoice: 'auto',
  });
});
