import { expect, it } from 'vitest';
import { affectedSources, includedHeaders } from '../../scripts/lib/affected-sources.mjs';

const INCLUDES = new Map([
  ['native/a.h', []],
  ['native/b.h', ['native/a.h']],
  ['native/a.cpp', ['native/a.h']],
  ['native/b.cpp', ['native/b.h']],
  ['native/c.cpp', ['native/c.h']],
  ['native/c.h', []],
]);

it('check:native checks only the C++ source that changed', () => {
  expect(affectedSources(['native/b.cpp'], INCLUDES)).toEqual(['native/b.cpp']);
});

it('check:native checks every C++ source that includes a changed header, directly or through other headers', () => {
  expect(affectedSources(['native/a.h'], INCLUDES)).toEqual(['native/a.cpp', 'native/b.cpp']);
});

it('check:native checks nothing if no C++ file has changed', () => {
  expect(affectedSources(['native/exports.map'], INCLUDES)).toEqual([]);
});

it('check:native follows includes in quotes, and ignores includes in angle brackets or comments', () => {
  expect(includedHeaders('#include "model.h"\n\n#include <llama.h>\n// #include "x.h"\n#include "chat.h"\n')).toEqual([
    'model.h',
    'chat.h',
  ]);
});
