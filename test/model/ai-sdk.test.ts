// AI SDK 6 on a real model. `npm run test:package` runs the same programs with AI SDK 7.
import * as ai from 'ai';
import { describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { modelOf } from '../helpers/ai-sdk.js';
import { expectGrowingPrompts, expectScenarios } from '../helpers/ai-sdk-scenarios.js';
import { testModel } from '../helpers/models.js';
// @ts-expect-error: the programs of package tests are plain JavaScript
import { runFiveSteps, runScenarios } from '../package/children/ai-sdk.mjs';

describe('AI SDK 6', () => {
  it.skipIf(testModel() === undefined)(
    'generates and streams text, runs tool loops and agents, and makes structured output, also after calls of tools',
    async () => {
      const agent = await startAgent({ source: testModel() as string, contextSize: 2048, systemPrompt: 'Be brief.' });
      expectScenarios(await runScenarios(ai, modelOf(agent)));
    },
  );

  it('prefills only what is new in each of the five steps of a tool loop', async () => {
    const agent = await startAgent({ contextSize: 4096 });
    const steps = await runFiveSteps(ai, modelOf(agent));
    expect(steps).toHaveLength(5);
    expectGrowingPrompts(steps);
  });
});
