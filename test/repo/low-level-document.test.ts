// docs/guide/low-level.md names everything that llama-headstart/native exports.
import { readFileSync } from 'node:fs';
import * as native from 'llama-headstart/native';
import { expect, it } from 'vitest';

const document = readFileSync(new URL('../../docs/guide/low-level.md', import.meta.url), 'utf8');

it('docs/guide/low-level.md names every class, method and function of the low-level API', () => {
  const names = Object.entries(native).flatMap(([name, value]) => {
    const members = Object.getOwnPropertyNames(value.prototype ?? {}).filter((each) => each !== 'constructor');
    return [name, ...members];
  });
  expect(names.length).toBeGreaterThan(30);
  const missing = names.filter((name) => !new RegExp(`\\b${name}\\b`).test(document));
  expect(missing).toEqual([]);
});
