// A build with assertions ends the process if it copies a KV byte into the JavaScript heap. Other builds have no such
// check.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { addon } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { runChild } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';

const asserts = 'leakState' in addon();

it.runIf(process.env.LLAMA_HEADSTART_ASSERTS === '1')('the build with sanitizers has assertions', () => {
  expect(asserts).toBe(true);
});

describe.runIf(asserts)('with assertions', () => {
  it.each(['array', 'string'])('copying a KV byte into a JavaScript %s ends the process', async (as) => {
    const { stdout, stderr, code } = await runChild('native/children/kv-leak.mjs', [as, microModel('dense')]);
    expect(stdout).toBe('captured');
    expect(stderr).toContain('1 bytes of a sequence state were about to enter the JavaScript heap');
    expect(code).not.toBe(0);
  });
});

describe.runIf(!asserts)('without assertions', () => {
  it('the binary does not contain the check for copied KV bytes', () => {
    const root = fileURLToPath(new URL('../..', import.meta.url));
    const path = process.env.LLAMA_HEADSTART_ADDON ?? createRequire(import.meta.url)('node-gyp-build').path(root);
    const binary = readFileSync(path, 'latin1');
    expect(binary).toContain('captureSequence');
    for (const word of ['leakState', 'about to enter the JavaScript heap']) expect(binary).not.toContain(word);
  });
});
