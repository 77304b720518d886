import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FileHash } from 'llama-headstart/internal';
import { type Context, Model } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { LORA_METADATA, type LoraFile, writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { batchOf, codeOf, someTokens, temporaryDirectory } from '../helpers/native.js';

let model: Model;
let context: Context;
let directory: string;
let prompt: Int32Array;

beforeAll(async () => {
  directory = await temporaryDirectory();
  model = await Model.load({ path: microModel('dense') });
  context = await model.createContext({ kvCells: 256, batchSize: 64, nThreads: 1 });
  prompt = someTokens(24, model.info.vocabulary.size);
});
afterAll(() => model.close());

const write = (name: string, file: LoraFile = {}) => writeLora(directory, name, file, model.info.embeddingSize);

/** Decodes the prompt again and returns the logits of its last token. */
async function logits(target: Context = context): Promise<Float32Array> {
  await target.removeSequence(0);
  await target.decode(batchOf(0, 0, prompt));
  return target.logits(prompt.length - 1);
}

describe('a LoRA adapter', () => {
  test('changes the logits while it is applied, and not afterwards', async () => {
    const plain = await logits();
    const adapter = await model.loadLora(await write('plain'));
    await context.setLoras([{ adapter, scale: 1 }]);
    const adapted = await logits();
    expect(adapted).not.toEqual(plain);
    await context.setLoras([]);
    expect(await logits()).toEqual(plain);
    await context.setLoras([{ adapter }]);
    expect(await logits()).toEqual(adapted);
    await context.setLoras([]);
    adapter.close();
  });

  test('with NaN weights makes decodes fail with LOGITS_INVALID, and the context still works', async () => {
    const plain = await logits();
    const adapter = await model.loadLora(await write('none', { value: Number.NaN }));
    const sampler = await model.createSampler({ temperature: 1 });
    await context.setLoras([{ adapter }]);
    for (const samplers of [undefined, [null], [sampler]]) {
      await context.removeSequence(0);
      const failure = await context.decode({ ...batchOf(0, 0, prompt), samplers }).catch((error) => error);
      expect([failure.code, ...failure.picks]).toEqual(['LOGITS_INVALID', -1]);
    }
    await context.setLoras([]);
    // The removed cells are still in the memory of the KV cache, with NaN values.
    await context.clear();
    expect(await logits()).toEqual(plain);
    adapter.close();
    sampler.close();
  });

  test('has no effect at scale 0, and a stronger effect at a higher scale', async () => {
    const plain = await logits();
    const adapter = await model.loadLora(await write('scaled'));
    const distances: number[] = [];
    for (const scale of [0, 0.1, 1, -1]) {
      await context.setLoras([{ adapter, scale }]);
      const adapted = await logits();
      distances.push(Math.max(...adapted.map((logit, index) => Math.abs(logit - (plain[index] as number)))));
    }
    await context.setLoras([]);
    expect(distances[0]).toBe(0);
    expect(distances[1]).toBeGreaterThan(0);
    expect(distances[2]).toBeGreaterThan(distances[1] as number);
    expect(distances[3]).toBeGreaterThan(0);
  });

  test('can be combined with another adapter, and affects only the context that applies it', async () => {
    const other = await model.createContext({ kvCells: 256, batchSize: 64, nThreads: 1 });
    const plain = await logits();
    const first = await model.loadLora(await write('first', { seed: 1 }));
    const second = await model.loadLora(await write('second', { seed: 2, weight: 'blk.1.attn_output.weight' }));
    await context.setLoras([{ adapter: first }]);
    const one = await logits();
    await context.setLoras([{ adapter: first }, { adapter: second, scale: 0.5 }]);
    expect(await logits()).not.toEqual(one);
    expect(await logits(other)).toEqual(plain);
    await context.setLoras([]);
    expect(await logits()).toEqual(plain);
    await other.close();
  });

  test('has metadata and a content hash', async () => {
    const path = await write('described');
    const adapter = await model.loadLora(path);
    expect(adapter.metadata).toMatchObject({ 'general.name': 'a micro adapter', 'adapter.type': 'lora' });
    expect([...adapter.invocationTokens]).toEqual([]);
    const content = createHash('sha256').update(await readFile(path));
    expect(await adapter.contentHash()).toBe(content.digest('hex'));
    const other = await model.loadLora(await write('described-other', { seed: 9 }));
    expect(await other.contentHash()).not.toBe(await adapter.contentHash());
  });

  test('is read once for concurrent calls of contentHash, and each call can be aborted alone', async () => {
    const adapter = await model.loadLora(await write('shared-hash'));
    const reads = vi.spyOn(FileHash.prototype, 'add');
    const abort = new AbortController();
    const aborted = codeOf(() => adapter.contentHash({ signal: abort.signal }));
    const hashes = Promise.all([adapter.contentHash(), adapter.contentHash({ signal: new AbortController().signal })]);
    abort.abort();
    expect(await aborted).toBe('ABORTED');
    const [first, second] = await hashes;
    expect(first).toBe(second);
    expect(await adapter.contentHash()).toBe(first);
    expect(reads).toHaveBeenCalledTimes(1);
    reads.mockRestore();
  });

  test('is hashed again after all earlier calls of contentHash were aborted', async () => {
    const adapter = await model.loadLora(await write('abandoned-hash', { rank: 512 }));
    const abort = new AbortController();
    const aborted = [1, 2].map(() => codeOf(() => adapter.contentHash({ signal: abort.signal })));
    abort.abort();
    expect(await Promise.all(aborted)).toEqual(['ABORTED', 'ABORTED']);
    const content = createHash('sha256').update(await readFile(adapter.path));
    expect(await adapter.contentHash()).toBe(content.digest('hex'));
  });

  test('has no content hash if its file was replaced', async () => {
    const path = await write('replaced');
    const adapter = await model.loadLora(path);
    await copyFile(await write('replacement', { seed: 9 }), path);
    expect(await codeOf(() => adapter.contentHash())).toBe('LORA_INVALID');
    await rm(path);
    expect(await codeOf(() => adapter.contentHash())).toBe('LORA_NOT_FOUND');
  });

  test('stays applied after it is closed, but cannot be applied again', async () => {
    const adapter = await model.loadLora(await write('closed'));
    await context.setLoras([{ adapter }]);
    const adapted = await logits();
    adapter.close();
    adapter.close();
    expect(await logits()).toEqual(adapted);
    expect(await codeOf(() => context.setLoras([{ adapter }]))).toBe('CLOSED');
    await context.setLoras([]);
    expect(await logits()).not.toEqual(adapted);
  });

  test('is closed with its model', async () => {
    const own = await Model.load({ path: microModel('dense') });
    const path = await write('owned');
    const adapters = await Promise.all([own.loadLora(path), own.loadLora(path)]);
    const used = await own.createContext({ kvCells: 256 });
    await used.setLoras([{ adapter: adapters[0] as never }]);
    await used.decode(batchOf(0, 0, prompt));
    await own.close();
    expect(await codeOf(() => used.setLoras([]))).toBe('CLOSED');
    expect(await codeOf(() => own.loadLora(path))).toBe('CLOSED');
    for (const adapter of adapters) adapter.close();
  });

  test('can be loaded and closed while contexts decode', async () => {
    const path = await write('busy');
    await Promise.all([
      (async () => {
        for (let round = 0; round < 20; round++) (await model.loadLora(path)).close();
      })(),
      (async () => {
        for (let round = 0; round < 20; round++) await logits();
      })(),
      (async () => {
        for (let round = 0; round < 10; round++) {
          const other = await model.createContext({ kvCells: 256 });
          await other.close();
        }
      })(),
    ]);
  });
});

describe('the addon refuses, with an error code,', () => {
  test('a missing file, a directory, a file that is not an adapter, and a truncated adapter', async () => {
    expect(await codeOf(() => model.loadLora(join(directory, 'missing.gguf')))).toBe('LORA_NOT_FOUND');
    await mkdir(join(directory, 'folder'));
    expect(await codeOf(() => model.loadLora(join(directory, 'folder')))).toBe('LORA_INVALID');
    await writeFile(join(directory, 'text'), 'not an adapter');
    expect(await codeOf(() => model.loadLora(join(directory, 'text')))).toBe('LORA_INVALID');
    expect(await codeOf(() => model.loadLora(microModel('dense')))).toBe('LORA_INVALID');
    const whole = await write('whole');
    const { length } = await readFile(whole);
    for (let size = 0; size < length; size += 61) {
      const path = await write(`cut`);
      await truncate(path, size);
      expect(await codeOf(() => model.loadLora(path))).toBe('LORA_INVALID');
    }
  });

  test.each<[string, LoraFile]>([
    ['rows of a wrong length', { inputs: 32 }],
    ['columns of a wrong length', { outputs: 32 }],
    ['two different ranks', { rankB: 4 }],
    ['only its second tensor', { without: 'a' }],
    ['only its first tensor', { without: 'b' }],
    ['an unknown weight', { weight: 'blk.99.attn_q.weight' }],
    ['a third dimension', { extra: [2] }],
    ['no metadata', { metadata: [] }],
    ['another architecture', { metadata: changed('general.architecture', 'string', 'llama') }],
    ['an architecture that is a number', { metadata: changed('general.architecture', 'uint32', 1) }],
    ['another general.type', { metadata: changed('general.type', 'string', 'model') }],
    ['an adapter.type that is a number', { metadata: changed('adapter.type', 'uint32', 1) }],
    ['an alpha that is text', { metadata: changed('adapter.lora.alpha', 'string', '4') }],
    ['an alpha of NaN', { metadata: changed('adapter.lora.alpha', 'float32', Number.NaN) }],
  ])('an adapter with %s', async (name, file) => {
    const path = await write(name.replaceAll(' ', '-'), file);
    expect(await codeOf(() => model.loadLora(path))).toBe('LORA_INVALID');
  });

  test('an adapter for another model', async () => {
    const path = await write('foreign');
    const other = await Model.load({ path: microModel('sliding-window') });
    expect(await codeOf(() => other.loadLora(path))).toBe('LORA_INVALID');
    const twin = await Model.load({ path: microModel('dense') });
    const adapter = await twin.loadLora(path);
    expect(await codeOf(() => context.setLoras([{ adapter }]))).toBe('INVALID_ARGUMENT');
    await twin.close();
    await other.close();
  });

  test('wrong arguments of loadLora() and setLoras(), and the logits stay the same', async () => {
    const plain = await logits();
    const adapter = await model.loadLora(await write('arguments'));
    const bad = [
      undefined,
      {},
      [{}],
      [5],
      [{ adapter: {} }],
      [{ adapter, scale: Number.NaN }],
      [{ adapter, scale: 1e9 }],
      [{ adapter, scale: '1' }],
      [{ adapter }, { adapter }],
    ];
    for (const loras of bad) {
      expect(await codeOf(() => context.setLoras(loras as never))).toBe('INVALID_ARGUMENT');
    }
    for (const path of [undefined, '', 'a\0b', 5]) {
      expect(await codeOf(() => model.loadLora(path as never))).toBe('INVALID_ARGUMENT');
    }
    expect(await logits()).toEqual(plain);
  });

  test('an adapter for a model that was loaded with vocabularyOnly', async () => {
    const path = await write('vocabulary');
    const vocabulary = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
    expect(await codeOf(() => vocabulary.loadLora(path))).toBe('UNSUPPORTED_MODEL');
    await vocabulary.close();
  });
});

function changed(key: string, type: string, value: unknown): LoraFile['metadata'] & object {
  return LORA_METADATA.map((entry) => (entry[0] === key ? [key, type, value] : entry));
}
