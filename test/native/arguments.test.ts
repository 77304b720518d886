// Every wrong argument causes an error with a code, and open objects still work afterwards.
import { cpus } from 'node:os';
import { type Context, type ContextOptions, type DecodeBatch, Model, SequenceState } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { batchOf, captureOf, codeOf, prefill, someTokens } from '../helpers/native.js';

let model: Model;
let context: Context;
let size: number;

beforeAll(async () => {
  model = await Model.load({ path: microModel('dense') });
  size = model.info.vocabulary.size;
  context = await model.createContext({ kvCells: 512, batchSize: 32, maxSequences: 4, maxOutputs: 8 });
});
afterAll(() => model?.close());

// biome-ignore lint/suspicious/noExplicitAny: the tests pass wrong types
type Anything = any;

const NOT_STRINGS: Anything[] = [undefined, null, 5, true, {}, [], () => {}, Symbol('s'), 5n];
const NOT_INTEGERS: Anything[] = [null, '5', true, {}, [], Number.NaN, Infinity, -Infinity, 1.5, 5n, Symbol('s')];

describe('Model.load', () => {
  const load = (options: Anything) => codeOf(() => Model.load(options));

  it('refuses options that are not an object, and invalid paths', async () => {
    for (const options of [undefined, null, 5, 'path', () => {}, ...NOT_STRINGS.map((path) => ({ path }))]) {
      expect(await load(options), String(options)).toBe('INVALID_ARGUMENT');
    }
    expect(await load({ path: '' })).toBe('INVALID_ARGUMENT');
    expect(await load({ path: `${microModel('dense')}\0.txt` })).toBe('INVALID_ARGUMENT');
  });

  it('refuses every option of a wrong type', async () => {
    const path = microModel('dense');
    for (const flag of ['useMmap', 'useMlock', 'repackWeights', 'checkTensors', 'vocabularyOnly']) {
      for (const value of [null, 0, 1, 'true', {}]) {
        expect(await load({ path, [flag]: value }), `${flag}: ${value}`).toBe('INVALID_ARGUMENT');
      }
    }
    for (const value of [...NOT_INTEGERS, -2, 2 ** 31]) {
      expect(await load({ path, nGpuLayers: value }), `nGpuLayers: ${String(value)}`).toBe('INVALID_ARGUMENT');
    }
    for (const value of [null, 5, 'f', {}]) {
      expect(await load({ path, onProgress: value }), `onProgress: ${value}`).toBe('INVALID_ARGUMENT');
      expect(await load({ path, signal: value }), `signal: ${value}`).toBe('INVALID_ARGUMENT');
    }
  });

  it('reports a missing model as MODEL_NOT_FOUND', async () => {
    expect(await load({ path: '/nowhere/model.gguf' })).toBe('MODEL_NOT_FOUND');
  });
});

describe('createContext', () => {
  const create = (options: Anything) =>
    codeOf(async () => (await model.createContext(options as ContextOptions)).close());

  it('refuses every option of a wrong type', async () => {
    for (const options of [undefined, null, 5, 'abc']) {
      expect(await create(options), String(options)).toBe('INVALID_ARGUMENT');
    }
    const sizes = ['kvCells', 'batchSize', 'microBatchSize', 'maxSequences', 'maxOutputs', 'nThreads', 'nThreadsBatch'];
    for (const name of sizes) {
      for (const value of [...NOT_INTEGERS, 0, -1, 2 ** 31, 2 ** 53, Number.MAX_VALUE]) {
        expect(await create({ [name]: value }), `${name}: ${String(value)}`).toBe('INVALID_ARGUMENT');
      }
    }
    for (const name of ['flashAttention', 'fullSlidingWindow', 'offloadKv']) {
      for (const value of [null, 0, 'true', {}]) {
        expect(await create({ [name]: value }), `${name}: ${value}`).toBe('INVALID_ARGUMENT');
      }
    }
    for (const name of ['keyType', 'valueType', 'kvLayout']) {
      for (const value of [null, 0, 'F16', 'q3_k', '', {}]) {
        expect(await create({ [name]: value }), `${name}: ${value}`).toBe('INVALID_ARGUMENT');
      }
    }
    for (const value of [null, 1, '', 'YARN', 'longrope']) {
      expect(await create({ ropeScaling: value }), `ropeScaling: ${value}`).toBe('INVALID_ARGUMENT');
    }
    for (const name of ['ropeFrequencyBase', 'ropeFrequencyScale']) {
      for (const value of [null, '1', Number.NaN, Infinity, -1, 1e300]) {
        expect(await create({ [name]: value }), `${name}: ${value}`).toBe('INVALID_ARGUMENT');
      }
    }
  });

  it('refuses sizes that contradict each other', async () => {
    expect(await create({ maxSequences: 257, kvCells: 1024, batchSize: 512 })).toBe('INVALID_ARGUMENT');
    expect(await create({ maxSequences: 33, batchSize: 32 })).toBe('INVALID_ARGUMENT');
    expect(await create({ maxSequences: 33, kvCells: 32, batchSize: 64 })).toBe('INVALID_ARGUMENT');
    expect(await create({ microBatchSize: 65, batchSize: 64 })).toBe('INVALID_ARGUMENT');
    expect(await create({ maxOutputs: 65, batchSize: 64 })).toBe('INVALID_ARGUMENT');
    expect(await create({ maxOutputs: 5, maxSequences: 6, batchSize: 64 })).toBe('INVALID_ARGUMENT');
  });

  it('uses at most one thread per core', async () => {
    const greedy = await model.createContext({ kvCells: 256, nThreads: 512, nThreadsBatch: 512 });
    expect(greedy.info.nThreads).toBeLessThanOrEqual(cpus().length);
    expect(greedy.info.nThreadsBatch).toBeLessThanOrEqual(cpus().length);
    await prefill(greedy, 0, someTokens(10, size));
    await greedy.close();
  });

  it('refuses a quantized V cache without flash attention', async () => {
    expect(await create({ valueType: 'q8_0', flashAttention: false })).toBe('INVALID_ARGUMENT');
    expect(await create({ valueType: 'q8_0', kvCells: 256 })).toBe('none');
  });

  it('refuses a KV cache that needs more than twice the memory of the machine, for hybrid models too', async () => {
    expect(await create({ kvCells: 2 ** 28 })).toBe('OUT_OF_MEMORY');
    const hybrid = await Model.load({ path: microModel('hybrid') });
    expect(await codeOf(() => hybrid.createContext({ kvCells: 2 ** 28 }))).toBe('OUT_OF_MEMORY');
    await hybrid.close();
  });

  it('refuses a model that was loaded for its vocabulary only', async () => {
    const vocabulary = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
    expect(await codeOf(() => vocabulary.createContext({}))).toBe('UNSUPPORTED_MODEL');
    expect((await vocabulary.tokenize('hello')).length).toBeGreaterThan(0);
    await vocabulary.close();
  });
});

describe('decode', () => {
  const decode = (change: Partial<Record<keyof DecodeBatch, Anything>>) =>
    codeOf(() => context.decode({ ...batchOf(0, 0, Int32Array.of(1, 2)), ...change }));

  it('refuses batches of wrong types and lengths', async () => {
    for (const batch of [undefined, null, 5, 'abc', {}] as Anything[]) {
      expect(await codeOf(() => context.decode(batch)), String(batch)).toBe('INVALID_ARGUMENT');
    }
    for (const name of ['tokens', 'positions', 'sequences', 'outputs'] as const) {
      for (const value of [
        undefined,
        null,
        [1, 2],
        new Float32Array(2),
        new Int16Array(2),
        new DataView(new ArrayBuffer(8)),
      ]) {
        expect(await decode({ [name]: value }), `${name}: ${value}`).toBe('INVALID_ARGUMENT');
      }
    }
    expect(await decode({ outputs: new Uint8Array(1) })).toBe('INVALID_ARGUMENT');
    expect(await decode({ positions: Int32Array.of(0, 1, 2) })).toBe('INVALID_ARGUMENT');
    expect(await decode({ signal: {} })).toBe('INVALID_ARGUMENT');
    const detached = Int32Array.of(1, 2);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    expect(await decode({ tokens: detached })).toBe('INVALID_ARGUMENT');
  });

  it('refuses batches that are empty, too large, or have too many rows with output', async () => {
    expect(await codeOf(() => context.decode(batchOf(0, 0, new Int32Array(0))))).toBe('BATCH_SIZE');
    expect(await codeOf(() => context.decode(batchOf(0, 0, new Int32Array(33))))).toBe('BATCH_SIZE');
    const batch = batchOf(0, 0, new Int32Array(9));
    expect(await codeOf(() => context.decode({ ...batch, outputs: new Uint8Array(9).fill(1) }))).toBe('BATCH_SIZE');
  });

  it('refuses tokens, sequences and positions out of range', async () => {
    for (const token of [-1, size, 2 ** 31 - 1, -(2 ** 31)]) {
      expect(await decode({ tokens: Int32Array.of(1, token) }), String(token)).toBe('TOKEN_OUT_OF_RANGE');
    }
    for (const sequence of [-1, 4, 256, 2 ** 31 - 1]) {
      expect(await decode({ sequences: Int32Array.of(0, sequence) })).toBe('SEQUENCE_OUT_OF_RANGE');
    }
    for (const positions of [
      [1, 2],
      [0, 2],
      [0, 0],
      [1, 0],
      [-1, 0],
      [2 ** 31 - 1, 0],
      [5, 6],
    ]) {
      expect(await decode({ positions: Int32Array.from(positions) }), String(positions)).toBe('POSITION_INVALID');
    }
  });

  it('leaves logits only for the rows of the newest batch that have output', async () => {
    expect((await context.decode({ ...batchOf(0, 0, Int32Array.of(1, 2)), outputs: Uint8Array.of(0, 1) })).length).toBe(
      1,
    );
    expect((await context.logits(1)).length).toBe(size);
    expect(await codeOf(() => context.logits(0))).toBe('ROW_HAS_NO_OUTPUT');
    expect(await codeOf(() => context.logits(2))).toBe('ROW_HAS_NO_OUTPUT');
    for (const row of [-1, 32, 2 ** 31, ...NOT_INTEGERS]) {
      expect(await codeOf(() => context.logits(row)), String(row)).toBe('INVALID_ARGUMENT');
    }
    expect(await context.decode({ ...batchOf(0, 2, Int32Array.of(3)), outputs: Uint8Array.of(0) })).toEqual(
      new Int32Array(0),
    );
    expect(await codeOf(() => context.logits(0))).toBe('ROW_HAS_NO_OUTPUT');
    await context.removeSequence(0);
  });
});

describe('sequence ids', () => {
  it('are checked by every method that takes a sequence id', async () => {
    const state = await captureOf(context, someTokens(4, size));
    const methods: Record<string, (id: Anything) => Promise<unknown>> = {
      removeSequence: (id) => context.removeSequence(id),
      'copySequence from': (id) => context.copySequence(id, 1),
      'copySequence to': (id) => context.copySequence(0, id),
      keepSequence: (id) => context.keepSequence(id),
      positionRange: (id) => context.positionRange(id),
      captureSequence: (id) => context.captureSequence(id, Int32Array.of(1)),
      stateBytes: (id) => context.stateBytes(id),
      restoreSequence: (id) => context.restoreSequence(id, state),
      loadFile: (id) => context.loadFile(id, '/nowhere'),
    };
    for (const [name, method] of Object.entries(methods)) {
      for (const id of [-1, 4, 1.5, Number.NaN, 2 ** 40]) {
        expect(await codeOf(() => method(id)), `${name}(${id})`).toBe('SEQUENCE_OUT_OF_RANGE');
      }
      for (const id of [undefined, null, '0', {}]) {
        expect(await codeOf(() => method(id)), `${name}(${id})`).toBe('INVALID_ARGUMENT');
      }
    }
    state.close();
  });
});

describe('arguments', () => {
  it('of the tokenizer are checked', async () => {
    for (const value of NOT_STRINGS) {
      expect(await codeOf(() => model.tokenize(value)), String(value)).toBe('INVALID_ARGUMENT');
    }
    const wrong = { addSpecial: 1 } as Anything;
    expect(await codeOf(() => model.tokenize('a', wrong))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(() => model.tokenize('a', 5 as Anything))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(() => model.detokenize([1] as Anything))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(() => model.detokenize(Int32Array.of(size)))).toBe('TOKEN_OUT_OF_RANGE');
    for (const token of [-1, size, ...NOT_INTEGERS]) {
      expect(await codeOf(() => model.tokenToBytes(token)), String(token)).toBe('INVALID_ARGUMENT');
      expect(await codeOf(() => model.isEndOfGeneration(token)), String(token)).toBe('INVALID_ARGUMENT');
    }
  });

  it('of captures, restores, removals and files are checked', async () => {
    for (const value of [undefined, null, [1], new Float32Array(1)] as Anything[]) {
      expect(await codeOf(() => context.captureSequence(0, value))).toBe('INVALID_ARGUMENT');
    }
    for (const value of [null, 1, 'true', {}] as Anything[]) {
      const options = { partial: value };
      expect(await codeOf(() => context.captureSequence(0, Int32Array.of(1), options))).toBe('INVALID_ARGUMENT');
      expect(await codeOf(() => context.stateBytes(0, options))).toBe('INVALID_ARGUMENT');
    }
    for (const maxBytes of [null, -1, 1.5, '1', Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53] as Anything[]) {
      const options = { maxBytes };
      expect(await codeOf(() => context.captureSequence(0, Int32Array.of(1), options))).toBe('INVALID_ARGUMENT');
    }
    for (const value of [undefined, null, {}, 5, model, context] as Anything[]) {
      expect(await codeOf(() => context.restoreSequence(0, value))).toBe('INVALID_ARGUMENT');
    }
    for (const value of [-1, 1.5, '1', Number.NaN] as Anything[]) {
      expect(await codeOf(() => context.removeSequence(0, value))).toBe('INVALID_ARGUMENT');
      expect(await codeOf(() => context.removeSequence(0, 0, value))).toBe('INVALID_ARGUMENT');
    }
    const state = await captureOf(context, someTokens(4, size));
    for (const value of [...NOT_STRINGS, '', 'a\0b']) {
      expect(await codeOf(() => context.loadFile(0, value)), String(value)).toBe('INVALID_ARGUMENT');
      expect(await codeOf(() => SequenceState.readFile(value)), String(value)).toBe('INVALID_ARGUMENT');
      expect(await codeOf(() => SequenceState.readMetadata(value)), String(value)).toBe('INVALID_ARGUMENT');
      expect(await codeOf(() => state.writeFile(value)), String(value)).toBe('INVALID_ARGUMENT');
    }
    const circular: Anything = {};
    circular.self = circular;
    for (const value of [null, [], 'text', 5, 5n, circular, () => {}] as Anything[]) {
      expect(await codeOf(() => state.writeFile('/nowhere/x', value)), typeof value).toBe('INVALID_ARGUMENT');
    }
    expect(await codeOf(() => SequenceState.readFile('/nowhere', { unverified: 1 } as Anything))).toBe(
      'INVALID_ARGUMENT',
    );
    expect(await codeOf(() => SequenceState.readFile('/nowhere', { signal: 1 } as Anything))).toBe('INVALID_ARGUMENT');
    for (const bytes of [0, -1, 1.5, 2 ** 28 + 1, Number.NaN, '8', undefined] as Anything[]) {
      expect(await codeOf(() => SequenceState.reserve(bytes)), String(bytes)).toBe('INVALID_ARGUMENT');
    }
    state.close();
  });

  it('with a getter that throws make the call fail with the error of the getter', async () => {
    const surprise = new Error('from a getter');
    const options = {
      get kvCells(): number {
        throw surprise;
      },
    };
    await expect(model.createContext(options)).rejects.toBe(surprise);
  });
});

it('a context still decodes correctly after many refused calls', async () => {
  await context.clear();
  const fresh = await model.createContext({ kvCells: 512, batchSize: 32, maxSequences: 4, maxOutputs: 8 });
  const tokens = someTokens(50, size);
  expect(await prefill(context, 0, tokens)).toBe(await prefill(fresh, 0, tokens));
  expect(await context.logits(17)).toEqual(await fresh.logits(17));
});
