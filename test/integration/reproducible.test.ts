// With `reproducible`, the bits of a reply do not depend on other sessions, on the source of its template, or on a loss
// of its KV cells. `npm run test:reproducible` runs this file with the models that you name, or else with micro models,
// SmolLM2 and TinyLlama.
import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import { AgentServer, subscribeDiagnostics } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
// @ts-expect-error: scripts are plain JavaScript
import { REPRODUCIBLE_MODELS } from '../fixtures/micro-models/models.mjs';
import { type AgentSettings, agentOptions, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { writeLora } from '../helpers/loras.js';
import { type MicroModelName, microModel } from '../helpers/models.js';
import { inOtherProcess } from '../helpers/processes.js';
import { numberedPrompt } from '../helpers/prompts.js';
import { type ExactReply, exactReply, runConcurrently, runSequentially } from '../helpers/reproducible.js';
import { rounds, Tally, variants } from '../helpers/soak.js';

const namedModels = process.env.LLAMA_HEADSTART_REPRODUCIBLE_MODELS?.split(',');
/** `npm test` runs only these models: quantized weights, a sliding window, and a hybrid of attention and recurrence. */
const REPRESENTATIVES: readonly MicroModelName[] = ['wide-q4_k', 'sliding-window', 'hybrid'];
const microModels = variants(REPRODUCIBLE_MODELS as MicroModelName[], (name) => REPRESENTATIVES.includes(name));
const MODELS = (namedModels ?? microModels.map(microModel)).map(
  (source) => [basename(source, '.gguf'), source] as const,
);
const SESSIONS = Number(process.env.LLAMA_HEADSTART_REPRODUCIBLE_SESSIONS ?? rounds(10, 12));
const TURNS = 2;

const settings = (more: AgentSettings): AgentSettings => ({
  reproducible: true,
  contextSize: 512,
  nSeqMax: 8,
  batchSize: 128,
  keyType: 'f16',
  valueType: 'f16',
  ...(namedModels && { nThreads: availableParallelism() }),
  ...more,
});

// The self-test does not check the kernels of adapters. So adapters forbid shared batches.
it('in reproducible mode with an adapter, sessions never share a batch', async () => {
  const directory = await temporaryDirectory();
  const agent = await startAgent(settings({ name: 'dense-quantised' }));
  const lora = await writeLora(directory, 'one', { rank: 64 }, agent.model.info.embeddingSize);
  const widths = new Set<number>();
  const unsubscribe = subscribeDiagnostics('decode', ({ sequences }) => widths.add(sequences));
  await runConcurrently(agent, 4, 1, 1);
  expect(Math.max(...widths)).toBeGreaterThan(1);
  widths.clear();
  await agent.setLoras([{ source: lora, scale: 2 }]);
  const expected = await runSequentially(agent, 8, 1);
  expect((await runConcurrently(agent, 8, 1, 1)).replies).toEqual(expected);
  expect([...widths]).toEqual([1]);
  unsubscribe();
});

describe.each(MODELS)('in reproducible mode, with %s', (name, source) => {
  it(`${SESSIONS} sessions on 8 sequences reply with the same bits as alone, prefilled or from the cache`, async () => {
    const tally = new Tally(`replies of ${name}`);
    const agent = await startAgent(settings({ source, cacheDir: null }));
    const expected = await runSequentially(agent, SESSIONS, TURNS, progress(name, 'alone', SESSIONS));
    await agent.close();
    const cacheDir = await temporaryDirectory();

    const first = await startAgent(settings({ source, cacheDir }));
    const turns = SESSIONS * TURNS;
    const saved = await runConcurrently(first, SESSIONS, TURNS, 1, progress(name, 'at once, with saved states', turns));
    await first.close();
    // Without memory for saved states, a session that lost its cells decodes its tokens again.
    const second = await startAgent(settings({ source, cacheDir, maxMemoryBytes: 0 }));
    const replayed = await runConcurrently(
      second,
      SESSIONS,
      TURNS,
      2,
      progress(name, 'at once, from disk, replayed', turns),
    );
    await compare(tally, saved.replies, expected, 'saved states');
    await compare(tally, replayed.replies, expected, 'replayed, from disk');
    expect([...saved.sources].sort()).toEqual(SESSIONS > 3 ? ['memory', 'prefill'] : ['prefill']);
    expect([...replayed.sources]).toEqual(['disk']);
    // With a sliding window, the tokens of an evicted session are always decoded again.
    const hasNoSavedStates = SESSIONS <= 8 || first.model.info.slidingWindow > 0;
    expect(saved.savedBytes > 0).toBe(!hasNoSavedStates);
    expect(replayed.savedBytes).toBe(0);
    expect(tally.done()).toEqual([]);
    expect(tally.tried).toBe(2 * turns);
  });

  it('another process replies with the same bits from disk', async () => {
    const cacheDir = await temporaryDirectory();
    const messages = ['Hello there', 'And then?'];
    const agent = await startAgent(settings({ source, cacheDir, systemPrompt: numberedPrompt(9) }));
    const session = await agent.createSession();
    const expected: ExactReply[] = [];
    for (const message of messages) {
      expected.push(await exactReply(() => session.send(message, { maxTokens: 24 })));
    }
    await agent.close();
    const options = agentOptions(settings({ source, cacheDir, systemPrompt: numberedPrompt(9) }));
    const other = await inOtherProcess('agent', { options, messages });
    expect(other.report.source).toBe('disk');
    expect(other.texts).toEqual(expected.map(({ text }) => text));
    expect(other.logits).toEqual(expected.flatMap(({ logits }) => logits));
  });
});

describe.skipIf(namedModels)('a model whose replies cannot be reproduced', () => {
  it('is refused at load, with NOT_REPRODUCIBLE and the reason', async () => {
    // With `fullSlidingWindow`, the cache keeps all cells, but a saved state holds only the window. A restored sequence
    // would differ.
    const options = agentOptions(settings({ name: 'sliding-window', fullSlidingWindow: true }));
    await expect(AgentServer.initialize(options)).rejects.toMatchObject({
      code: 'NOT_REPRODUCIBLE',
      message: expect.stringContaining('fullSlidingWindow'),
    });
    // Without a sliding window the option has no effect.
    await startAgent(settings({ name: 'dense', fullSlidingWindow: true }));
  });
});

async function compare(tally: Tally, actual: ExactReply[][], expected: ExactReply[][], how: string): Promise<void> {
  for (const [number, replies] of expected.entries()) {
    for (const [turn, reply] of replies.entries()) {
      await tally.try(`session ${number}, turn ${turn}, ${how}`, () => expect(actual[number]?.[turn]).toEqual(reply));
    }
  }
}

/** Prints the progress of tests with named models, one line for each tenth. */
function progress(name: string, what: string, all: number): (done: number) => void {
  return (done) => {
    if (namedModels && (done === all || Math.floor((10 * done) / all) > Math.floor((10 * (done - 1)) / all))) {
      process.stderr.write(`… ${name}, ${what}: ${done} of ${all}\n`);
    }
  };
}
