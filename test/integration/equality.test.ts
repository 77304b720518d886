// A session that starts from the cache computes the same bits as an uncached session whose cells are at the same places
// in the KV cache.
import type { AgentServer } from 'llama-headstart';
import type { StartOptions, StateSource } from 'llama-headstart/internal';
import type { KvLayout } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { agentOptions, replies, startAgent, temporaryDirectory, uncachedReplies } from '../helpers/agents.js';
import { type Continuation, type Lab, type LabOptions, someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { openLab } from '../helpers/open-lab.js';
import { inOtherProcess } from '../helpers/processes.js';
import { numberedPrompt, TOOLS } from '../helpers/prompts.js';
import { rounds, variants } from '../helpers/soak.js';

type ModelName = (typeof MODELS)[number];
const MODELS = ['dense', 'dense-quantised', 'sliding-window', 'recurrent', 'hybrid'] as const;
const LAYOUTS: readonly KvLayout[] = ['unified', 'split'];
/** The models that `npm test` uses with each layout. */
const SOME_MODELS: Record<KvLayout, readonly ModelName[]> = {
  unified: ['dense-quantised', 'sliding-window', 'recurrent'],
  split: ['dense', 'hybrid'],
};

/** A template that is longer than the sliding window (64 tokens) and longer than two batches (128 tokens each). */
const TEMPLATE = someTokens(300, 1);
const OTHER_TEMPLATE = someTokens(290, 2);
const MESSAGE = someTokens(9, 3);
/** The number of decoding steps. The sliding window moves during these steps. */
const STEPS = rounds(40, 80);

const run = (lab: Lab, options?: StartOptions) => lab.run(TEMPLATE, MESSAGE, STEPS, options);

/** Runs the same tokens in a new context without the cache. */
async function runUncached(options: LabOptions): Promise<Continuation> {
  return run(await openLab(options), { cache: false });
}

function expectEqual(actual: Continuation, expected: Continuation, source: StateSource): void {
  expect(actual.report.source).toBe(source);
  expect(actual.tokens).toEqual(expected.tokens);
  const different = actual.logits.findIndex((row, step) => !sameBits(row, expected.logits[step] as Float32Array));
  expect(different, 'the first step whose logits differ').toBe(-1);
}

function sameBits(a: Float32Array, b: Float32Array): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));
}

describe.each(LAYOUTS)('in the %s layout', (layout) => {
  describe.each(variants(MODELS, (name) => SOME_MODELS[layout].includes(name)))('with the %s model', (name) => {
    const options: LabOptions = { path: microModel(name), layout };
    let continuation: Promise<Continuation> | undefined;
    const uncached = () => {
      continuation ??= runUncached(options);
      return continuation;
    };

    it('a miss gives the logits of an uncached session to the bit', async () => {
      const lab = await openLab(options);
      expectEqual(await run(lab), await uncached(), 'prefill');
    });

    if (layout === 'unified') {
      it('a resident template gives the logits of an uncached session to the bit', async () => {
        const lab = await openLab(options);
        await run(lab);
        expectEqual(await run(lab), await uncached(), 'resident');
      });
    }

    it('a template from memory gives the logits of an uncached session to the bit', async () => {
      const lab = await openLab({ ...options, residents: 1 });
      await run(lab);
      if (layout === 'unified') {
        await lab.start(OTHER_TEMPLATE); // takes the only resident sequence
      }
      expectEqual(await run(lab), await uncached(), 'memory');
    });

    it('a template from disk gives the logits of an uncached session to the bit', async () => {
      const directory = await temporaryDirectory();
      const first = await openLab({ ...options, directory });
      await run(first);
      await first.cache.flush();
      expectEqual(await run(await openLab({ ...options, directory })), await uncached(), 'disk');
    });

    if (!variants([layout], () => ['dense', 'sliding-window'].includes(name)).includes(layout)) {
      return;
    }
    it('a template that another process saved gives the logits of an uncached session to the bit', async () => {
      const directory = await temporaryDirectory();
      const input = {
        options: { ...options, directory },
        template: [...TEMPLATE],
        message: [...MESSAGE],
        steps: STEPS,
      };
      const { report } = await inOtherProcess('continuation', input);
      expect(report.source).toBe('prefill');
      expectEqual(await run(await openLab({ ...options, directory })), await uncached(), 'disk');
    });
  });
});

describe.each(variants(MODELS, (name) => ['dense-quantised', 'sliding-window', 'hybrid'].includes(name)))(
  'an agent with the %s model',
  (name) => {
    const turns = ['Hello', '\n42', 'And now?'];

    it('gives the same replies if a template is prefilled, resident, in memory, or on disk', async () => {
      const expected = await uncachedReplies({ name, tools: TOOLS }, turns, 10);
      const directory = await temporaryDirectory();
      const settings = { name, tools: TOOLS, cacheDir: directory, maxResidentTemplates: 1 };
      const sources: StateSource[] = [];
      const startAndCompare = async (agent: AgentServer) => {
        const session = await agent.createSession();
        sources.push(session.report.source);
        expect(await replies(session, turns, 10), session.report.source).toEqual(expected);
        await session.close();
      };

      const first = await startAgent(settings);
      await startAndCompare(first);
      await startAndCompare(first);
      await (await first.createSession({ systemPrompt: numberedPrompt(1) })).close(); // takes the only resident sequence
      await startAndCompare(first);
      await first.close();
      await startAndCompare(await startAgent(settings));
      expect(sources).toEqual(['prefill', 'resident', 'memory', 'disk']);

      const other = await inOtherProcess('agent', { options: agentOptions(settings), messages: turns, maxTokens: 10 });
      expect(other.report.source).toBe('disk');
      expect(other.texts).toEqual(expected);
    });
  },
);
