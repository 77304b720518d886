import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { prebuildInputs } from '../../scripts/lib/prebuild-inputs.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));

it('prebuilt binaries are used again only if their sources have not changed', async () => {
  const copy = await mkdtemp(join(tmpdir(), 'llama-headstart-inputs-'));
  try {
    for (const part of ['CMakeLists.txt', 'cmake', 'native', 'bin', 'scripts', 'package.json']) {
      await cp(join(root, part), join(copy, part), { recursive: true });
    }
    const key = await prebuildInputs('linux-x64', root);
    expect(await prebuildInputs('linux-x64', copy)).toBe(key);
    expect(await prebuildInputs('linux-arm64', copy)).not.toBe(key);
    await writeFile(join(copy, 'native', 'one-more.cpp'), '');
    expect(await prebuildInputs('linux-x64', copy)).not.toBe(key);
    await rm(join(copy, 'native', 'one-more.cpp'));
    expect(await prebuildInputs('linux-x64', copy)).toBe(key);
    await cp(join(root, 'LICENSE'), join(copy, 'scripts', 'llama-pin.json'));
    expect(await prebuildInputs('linux-x64', copy)).not.toBe(key);
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
});
