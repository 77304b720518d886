// The expected results of test/package/children/ai-sdk.mjs, with every version of the AI SDK.
import { expect } from 'vitest';

interface Step {
  text: string;
  calls: { toolName: string; input: unknown }[];
  results: unknown[];
  finishReason: string;
  usage: {
    inputTokens: number;
    outputTokens: number;
    inputTokenDetails: { cacheReadTokens: number; noCacheTokens: number };
  };
  cache: { cachedTokens: number; prefilledTokens: number };
}

/** A part of a message in a user interface. */
interface UiPart {
  type: string;
  state?: string;
  input?: unknown;
  output?: unknown;
}

export interface Scenarios {
  text: Step & { modelId: string; warnings: unknown[] };
  toolLoop: { types: string[]; uiParts: UiPart[]; steps: Step[] };
  structured: { output: unknown; steps: Step[] };
  structuredWithTools: { output: unknown; steps: Step[] };
  agent: Step[];
  middleware: Step;
}

const CALL = { finishReason: 'tool-calls', calls: [{ toolName: 'stock' }], results: [{ count: expect.any(Number) }] };
const COUNT = { count: expect.any(Number) };

export function expectScenarios(results: Scenarios): void {
  const { text, toolLoop, structured, structuredWithTools, agent, middleware } = results;
  expect(text).toMatchObject({
    text: expect.stringMatching(/\w/),
    warnings: [],
    usage: { outputTokens: expect.any(Number) },
  });
  expect(text.modelId).toContain('SmolLM2');
  expect(toolLoop.types).toEqual(
    expect.arrayContaining(['tool-input-delta', 'tool-call', 'tool-result', 'text-delta']),
  );
  const call = toolLoop.uiParts.find(({ type }) => type === 'tool-stock');
  expect(call).toMatchObject({ state: 'output-available', output: COUNT });
  expect(toolLoop.uiParts.at(-1)).toMatchObject({ type: 'text', state: 'done' });
  expect(toolLoop.steps).toMatchObject([CALL, { calls: [], text: expect.stringMatching(/\w/) }]);
  expect(structured).toMatchObject({ output: COUNT, steps: [{ finishReason: 'stop' }] });
  expect(structuredWithTools.output).toEqual(COUNT);
  expect(structuredWithTools.steps[0]).toMatchObject(CALL);
  expect(structuredWithTools.steps.at(-1)).toMatchObject({ finishReason: 'stop', calls: [] });
  expect(agent).toMatchObject([CALL, { calls: [] }]);
  expect(middleware.usage.outputTokens).toBeLessThanOrEqual(4);
  expect(middleware.text).toBe(middleware.text.toUpperCase());
  expectGrowingPrompts(toolLoop.steps);
}

/** Each step prefills only what the step before did not have: the end of its reply, and the results of its calls. */
export function expectGrowingPrompts(steps: readonly Step[]): void {
  for (const [index, { usage, cache }] of steps.entries()) {
    const { cacheReadTokens, noCacheTokens } = usage.inputTokenDetails;
    expect([cacheReadTokens, noCacheTokens]).toEqual([cache.cachedTokens, cache.prefilledTokens]);
    expect(usage.inputTokens).toBe(cache.cachedTokens + cache.prefilledTokens);
    const before = steps[index - 1]?.usage;
    if (before !== undefined) {
      // The last sampled token of a reply ends the reply, or has not been decoded yet.
      expect(cache.cachedTokens).toBeGreaterThanOrEqual(before.inputTokens + before.outputTokens - 1);
    }
  }
}
