// Native memory is copied into JavaScript only in native/to-js.h, where a build with assertions checks for KV bytes.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const native = fileURLToPath(new URL('../../native', import.meta.url));
const COPYING_FILE = 'to-js.h';

/**
 * Patterns of code that copies memory into JavaScript: typed arrays, buffers, and the functions of Node-API for arrays,
 * buffers and strings.
 */
const COPYING = [
  /\b(?:Int|Uint|Float|BigInt|BigUint)\d+(?:Clamped)?Array::New/,
  /\bTypedArrayOf\b/,
  /\b(?:ArrayBuffer|DataView)\b/,
  /\bNapi::Buffer\b/,
  /\bnapi_create_(?:string|buffer|external_|arraybuffer|typedarray|dataview)/,
];

it('native memory is copied into arrays and buffers only in one file', () => {
  const sources = readdirSync(native).filter((name) => /\.(?:cpp|h)$/.test(name));
  expect(sources).toContain(COPYING_FILE);
  for (const name of sources) {
    const lines = readFileSync(join(native, name), 'utf8').split('\n');
    const copying = lines.filter((line) => COPYING.some((pattern) => pattern.test(line)));
    if (name === COPYING_FILE) expect(copying.length).toBeGreaterThan(0);
    else expect(copying, name).toEqual([]);
  }
});

it('napi.h is included only by the file that checks all strings that the addon creates', () => {
  const including = readdirSync(native).filter((name) =>
    /#include\s*<n(?:ode_)?api\.h>/.test(readFileSync(join(native, name), 'utf8')),
  );
  expect(including).toEqual([COPYING_FILE]);
});
