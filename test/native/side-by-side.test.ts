// Contexts and models that work at the same time compute the same logits as each of them alone.
import { Model } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { continueGreedily, prefill, someTokens } from '../helpers/native.js';

/** Returns the logits after a prompt and some greedy steps, in a new context. */
async function answer(model: Model, seed: number): Promise<Float32Array[]> {
  const context = await model.createContext({ kvCells: 512, batchSize: 64, nThreads: 1 });
  const prompt = someTokens(150, model.info.vocabulary.size, seed);
  const first = await prefill(context, 0, prompt);
  const logits = await continueGreedily(context, 0, prompt.length, first);
  await context.close();
  return logits;
}

async function withModels<T>(paths: readonly string[], work: (models: Model[]) => Promise<T>): Promise<T> {
  const models = await Promise.all(paths.map((path) => Model.load({ path })));
  try {
    return await work(models);
  } finally {
    await Promise.all(models.map((model) => model.close()));
  }
}

const alone = (path: string, seed: number) => withModels([path], ([model]) => answer(model as Model, seed));

describe('at the same time', () => {
  it('contexts of one model compute the same logits as each context alone', async () => {
    const path = microModel('dense');
    const seeds = [1, 2, 3, 4];
    const together = await withModels([path], ([model]) =>
      Promise.all(seeds.map((seed) => answer(model as Model, seed))),
    );
    for (const [at, seed] of seeds.entries()) expect(together[at]).toEqual(await alone(path, seed));
  });

  it('models with every kind of memory compute the same logits as each model alone', async () => {
    const paths = (['dense', 'dense', 'sliding-window', 'recurrent', 'hybrid'] as const).map(microModel);
    const together = await withModels(paths, (models) => Promise.all(models.map((model) => answer(model, 7))));
    for (const [at, path] of paths.entries()) expect(together[at]).toEqual(await alone(path, 7));
  });
});
