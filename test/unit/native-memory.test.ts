// native/to-js.h is the one way of native memory into JavaScript: there a build with assertions looks for KV bytes.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const native = fileURLToPath(new URL('../../native', import.meta.url));
const FUNNEL = 'to-js.h';

/** What makes memory JavaScript's: typed arrays, buffers, and Node-API's own calls for these and strings. */
const WAYS = [
  /\b(?:Int|Uint|Float|BigInt|BigUint)\d+(?:Clamped)?Array::New/,
  /\bTypedArrayOf\b/,
  /\b(?:ArrayBuffer|DataView)\b/,
  /\bNapi::Buffer\b/,
  /\bnapi_create_(?:string|buffer|external_|arraybuffer|typedarray|dataview)/,
];

it('native memory becomes an array or a buffer of JavaScript in one file alone', () => {
  const sources = readdirSync(native).filter((name) => /\.(?:cpp|h)$/.test(name));
  expect(sources).toContain(FUNNEL);
  for (const name of sources) {
    const lines = readFileSync(join(native, name), 'utf8').split('\n');
    const found = lines.filter((line) => WAYS.some((way) => way.test(line)));
    if (name === FUNNEL) expect(found.length).toBeGreaterThan(0);
    else expect(found, name).toEqual([]);
  }
});

it('napi.h is included behind the watched string call', () => {
  const including = readdirSync(native).filter((name) =>
    /#include\s*<n(?:ode_)?api\.h>/.test(readFileSync(join(native, name), 'utf8')),
  );
  expect(including).toEqual([FUNNEL]);
});
