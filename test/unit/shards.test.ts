import { shardPaths } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

describe('the files of a model', () => {
  it('are all parts of a split model, whichever part is named', () => {
    const all = ['m/a-00001-of-00003.gguf', 'm/a-00002-of-00003.gguf', 'm/a-00003-of-00003.gguf'];
    for (const part of all) {
      expect(shardPaths(part)).toEqual(all);
    }
  });

  it.each(['a.gguf', 'a-1-of-3.gguf', 'a-00001-of-00003.bin', 'a-00001-of-00003.gguf.part'])(
    'are only the named file if it is not a part of a split model: %s',
    (path) => {
      expect(shardPaths(path)).toEqual([path]);
    },
  );

  it('have five-digit numbers in their names, even from the tenth part on', () => {
    expect(shardPaths('a-00001-of-00012.gguf')[11]).toBe('a-00012-of-00012.gguf');
  });
});
