// If a signal fires after a call has created its result, the call closes the result at once. It does not leave the
// result to the garbage collector.
import {
  addon,
  type RawAddon,
  type RawContext,
  type RawLora,
  type RawModel,
  type RawSampler,
  type RawState,
} from 'llama-headstart/internal';
import { type AppliedLora, type Context, Model } from 'llama-headstart/native';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { codeOf, prefill, someTokens, temporaryDirectory } from '../helpers/native.js';

const directory = await temporaryDirectory();
let model: Model;
let context: Context;
let adapter: string;
const tokens = someTokens(20, 200);

beforeAll(async () => {
  model = await Model.load({ path: microModel('dense') });
  context = await model.createContext({ kvCells: 256 });
  adapter = await writeLora(directory, 'adapter', {}, model.info.embeddingSize);
});
afterAll(() => model?.close());

/** Wraps `create` as `creating`, so that `signal` fires just after the result exists. `made` collects the results. */
function firesAfter<Made>(create: (...args: never[]) => Promise<Made>) {
  const abort = new AbortController();
  const made: Made[] = [];
  const creating = async (...args: never[]) => {
    made.push(await create(...args));
    abort.abort();
    return made[0] as Made;
  };
  return { signal: abort.signal, made, creating };
}

/** Replaces `addon()[name]` while `work` runs. */
async function replaced(name: keyof RawAddon, value: object, work: () => Promise<void>): Promise<void> {
  const raw = addon() as unknown as Record<string, unknown>;
  const before = raw[name];
  raw[name] = value;
  try {
    await work();
  } finally {
    raw[name] = before;
  }
}

it('a context is closed if the signal fires just after the creation', async () => {
  const { signal, made, creating } = firesAfter<RawContext>(addon().Context.create as never);
  await replaced('Context', { create: creating }, async () => {
    expect(await codeOf(() => model.createContext({ kvCells: 256, signal }))).toBe('ABORTED');
  });
  expect(made).toHaveLength(1);
  expect(await codeOf(() => made[0]?.info())).toBe('CLOSED');
});

it('a sampler is closed if the signal fires just after the creation', async () => {
  const { signal, made, creating } = firesAfter<RawSampler>(addon().Sampler.create as never);
  await replaced('Sampler', { create: creating }, async () => {
    expect(await codeOf(() => model.createSampler({ temperature: 1 }, { signal }))).toBe('ABORTED');
  });
  expect(made).toHaveLength(1);
  expect(await codeOf(() => made[0]?.reset())).toBe('CLOSED');
});

it('a LoRA adapter is closed if the signal fires just after the load', async () => {
  const { signal, made, creating } = firesAfter<RawLora>(addon().Lora.load as never);
  await replaced('Lora', { load: creating }, async () => {
    expect(await codeOf(() => model.loadLora(adapter, { signal }))).toBe('ABORTED');
  });
  expect(made).toHaveLength(1);
  const applied = [{ adapter: { raw: made[0] } }] as unknown as AppliedLora[];
  expect(await codeOf(() => context.setLoras(applied))).toBe('CLOSED');
});

it('a model is closed if the signal fires just after the load', async () => {
  const { signal, made, creating } = firesAfter<RawModel>(addon().Model.load as never);
  await replaced('Model', { load: creating }, async () => {
    expect(await codeOf(() => Model.load({ path: microModel('dense'), signal }))).toBe('ABORTED');
  });
  expect(made).toHaveLength(1);
  expect(await codeOf(() => made[0]?.info())).toBe('CLOSED');
});

it('a state is closed if the signal fires just after the read from a file', async () => {
  const path = `${directory}/state.kv`;
  await prefill(context, 0, tokens);
  const state = await context.captureSequence(0, tokens);
  await state.writeFile(path);
  state.close();
  await context.clear();
  const { SequenceState } = await import('llama-headstart/native');
  const { signal, made, creating } = firesAfter<RawState>(addon().SequenceState.readFile as never);
  await replaced('SequenceState', { readFile: creating }, async () => {
    expect(await codeOf(() => SequenceState.readFile(path, { signal }))).toBe('ABORTED');
  });
  expect(made).toHaveLength(1);
  expect(await codeOf(() => made[0]?.byteLength())).toBe('CLOSED');
});

it('a state is closed if the signal fires just after the capture', async () => {
  const raws: RawContext[] = [];
  const create = addon().Context.create;
  let watched: Context | undefined;
  const remembering = async (...args: Parameters<typeof create>) => {
    const raw = await create(...args);
    raws.push(raw);
    return raw;
  };
  await replaced('Context', { create: remembering }, async () => {
    watched = await model.createContext({ kvCells: 256 });
  });
  const [raw] = raws;
  if (raw === undefined || watched === undefined) throw new Error('no context was created');
  await prefill(watched, 0, tokens);
  const { signal, made, creating } = firesAfter<RawState>(raw.captureSequence.bind(raw) as never);
  vi.spyOn(raw, 'captureSequence').mockImplementation(creating as never);
  const capturing = watched.captureSequence(0, tokens, { signal });
  expect(await codeOf(() => capturing)).toBe('ABORTED');
  vi.restoreAllMocks();
  expect(made).toHaveLength(1);
  expect(await codeOf(() => made[0]?.byteLength())).toBe('CLOSED');
  // The context still works.
  (await watched.captureSequence(0, tokens)).close();
  await watched.close();
});
