// Opens an engine without a cache and without the chat layer, and closes it when the test ends.
import { Engine, type Sequence, type StateStore } from 'llama-headstart/internal';
import { type ContextOptions, Model } from 'llama-headstart/native';
import { expect, onTestFinished } from 'vitest';
import { EXACT } from './agents.js';
import { someTokens } from './lab.js';
import { type MicroModelName, microModel } from './models.js';

export interface OpenEngine {
  model: Model;
  engine: Engine;
  /** Leases a sequence that cannot be evicted. */
  lease(): Promise<Sequence>;
}

/** Opens an engine. The default model is the micro model `dense`. */
export async function openEngine(
  options: ContextOptions & { name?: MicroModelName; states?: StateStore } = {},
): Promise<OpenEngine> {
  const { name = 'dense', states, ...context } = options;
  const model = await Model.load({ path: microModel(name) });
  const engine = new Engine(
    await model.createContext({ kvCells: 2048, batchSize: 128, maxSequences: 8, ...EXACT, ...context }),
    { states },
  );
  onTestFinished(async () => {
    await engine.close();
    await model.close();
  });
  return { model, engine, lease: () => leaseBusy(engine) };
}

/** Leases a sequence that cannot be evicted. */
export async function leaseBusy(engine: Engine): Promise<Sequence> {
  const sequence = engine.createSequence();
  await engine.sessions.lease(sequence);
  return sequence;
}

/** Leases sequences that cannot be evicted. */
export function leaseMany(engine: Engine, count: number): Promise<Sequence[]> {
  return Promise.all(Array.from({ length: count }, () => leaseBusy(engine)));
}

/** Decodes `prompt` and generates `steps` greedy tokens in the empty sequence `target`. Default: a new sequence. */
export async function generate(
  engine: Engine,
  prompt: Int32Array,
  steps: number,
  target?: Sequence,
): Promise<number[]> {
  const sequence = target ?? (await leaseBusy(engine));
  const tokens: number[] = [];
  let { token } = await engine.decode({ sequence, tokens: prompt });
  for (let step = 0; step < steps; step++) {
    tokens.push(token);
    ({ token } = await engine.decode({ sequence, tokens: Int32Array.of(token) }));
  }
  if (target === undefined) {
    engine.sessions.release(sequence);
  }
  return tokens;
}

/**
 * Resolves when a decode or a restore has failed because of too few free cells, and the caller has handled the failure.
 */
export function noFreeCells({ context }: Engine, method: 'decode' | 'restoreSequence'): Promise<void> {
  return new Promise((resolve) => {
    const call = context[method].bind(context) as (...args: unknown[]) => Promise<never>;
    context[method] = (...args: unknown[]) => {
      const calling = call(...args);
      calling.catch(({ code }) => code === 'NO_KV_SLOT' && setImmediate(resolve));
      return calling;
    };
  });
}

/** Expects that the engine is idle and that one sequence can use all cells of the engine. */
export async function expectAllFree(engine: Engine): Promise<void> {
  expect(engine.status()).toMatchObject({ queueLength: 0, heldSequences: 0, kvCells: { used: 0 } });
  const sequence = await leaseBusy(engine);
  await engine.prefill(sequence, someTokens(engine.context.info.kvCellsPerSequence, 99));
  engine.sessions.release(sequence);
}
