// A build with assertions ends the process that copies a KV byte into the JavaScript heap; others have no such call.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { addon } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { runChild } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';

const asserts = 'leakState' in addon();

it('the sanitized build is one with assertions', () => {
  if (process.env.LLAMA_HEADSTART_ASSERTS === '1') expect(asserts).toBe(true);
});

describe.runIf(asserts)('with assertions', () => {
  it.each(['array', 'string'])('a KV byte on its way into JavaScript ends the process: %s', async (as) => {
    const { stdout, stderr, code } = await runChild('native/children/kv-leak.mjs', [as, microModel('dense')]);
    expect(stdout).toBe('captured');
    expect(stderr).toContain('1 bytes of a sequence state were about to enter the JavaScript heap');
    expect(code).not.toBe(0);
  });
});

describe.runIf(!asserts)('without assertions', () => {
  it('nothing of it is in the binary', () => {
    const root = fileURLToPath(new URL('../..', import.meta.url));
    const path = process.env.LLAMA_HEADSTART_ADDON ?? createRequire(import.meta.url)('node-gyp-build').path(root);
    const binary = readFileSync(path, 'latin1');
    expect(binary).toContain('captureSequence');
    for (const word of ['leakState', 'about to enter the JavaScript heap']) expect(binary).not.toContain(word);
  });
});
