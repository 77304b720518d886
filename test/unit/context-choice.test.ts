import { chooseContext, kvBytesPerToken } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

/** The metadata of an 8B model: 36 layers, 8 KV heads of 128 values. */
const QWEN = {
  'general.architecture': 'qwen3',
  'qwen3.context_length': '40960',
  'qwen3.block_count': '36',
  'qwen3.embedding_length': '4096',
  'qwen3.attention.head_count': '32',
  'qwen3.attention.head_count_kv': '8',
  'qwen3.attention.key_length': '128',
  'qwen3.attention.value_length': '128',
};
const GIBIBYTE = 1024 ** 3;

/** A machine with this much free memory, whose model needs 5 GiB. */
const memory = (gibibytes: number) => ({
  freeBytes: gibibytes * GIBIBYTE,
  modelBytes: 5 * GIBIBYTE,
  reservedBytes: GIBIBYTE,
});

describe('the KV cache per token', () => {
  it('follows from the layers, the KV heads and the length of keys and values', () => {
    expect(kvBytesPerToken(QWEN)).toBe(144 * 1024);
  });

  it('is an upper bound if the metadata has no numbers of KV heads and lengths', () => {
    const { 'qwen3.attention.head_count_kv': _, 'qwen3.attention.key_length': __, ...rest } = QWEN;
    expect(kvBytesPerToken(rest)).toBe(4 * 144 * 1024);
  });

  it('is zero for a model without attention', () => {
    expect(kvBytesPerToken({ 'general.architecture': 'mamba', 'mamba.block_count': '24' })).toBe(0);
  });
});

describe('the choice of a context', () => {
  it('takes the training length, and cells for two conversations, if the memory allows that', () => {
    expect(chooseContext(QWEN, memory(64))).toEqual({
      contextSize: 40_960,
      kvCells: 81_920,
      kvBytes: 81_920 * 144 * 1024,
      trainContextSize: 40_960,
    });
  });

  it('reduces first the cells, and then the context, to what the memory allows', () => {
    const little = chooseContext(QWEN, memory(16));
    expect(little.contextSize).toBe(40_960);
    expect(little.kvCells).toBeLessThan(2 * little.contextSize);
    const less = chooseContext(QWEN, memory(10));
    expect(less.contextSize).toBe(less.kvCells);
    expect(less.kvBytes).toBeLessThanOrEqual(2 * GIBIBYTE);
    expect(less.contextSize % 256).toBe(0);
    expect(less.reason).toBe('10.0 GiB of memory are free, and the model needs 5.0 GiB');
  });

  it('keeps a context that is usable, even if too little memory seems to be free', () => {
    expect(chooseContext(QWEN, memory(1)).contextSize).toBe(2048);
    expect(chooseContext({ ...QWEN, 'qwen3.context_length': '512' }, memory(1)).contextSize).toBe(512);
  });

  it('takes the requested size, and refuses one that does not fit', () => {
    expect(chooseContext(QWEN, memory(64), 100_000)).toMatchObject({ contextSize: 100_000 });
    expect(() => chooseContext(QWEN, memory(10), 40_000)).toThrow(/The largest context that fits has 14\d\d\d tokens/);
  });

  it('takes a usual size if the training length is unknown, and any size if the memory does not grow', () => {
    const { 'qwen3.context_length': _, ...unknown } = QWEN;
    expect(chooseContext(unknown, memory(64))).toMatchObject({ contextSize: 8192, trainContextSize: 0 });
    const recurrent = { 'general.architecture': 'mamba', 'mamba.context_length': '1000000' };
    expect(chooseContext(recurrent, memory(10)).contextSize).toBe(1_000_000);
  });
});
