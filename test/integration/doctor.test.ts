// Tests the report of `npx llama-headstart doctor MODEL` about a model.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { requireFreshDist } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';

const program = fileURLToPath(new URL('../../bin/llama-headstart.mjs', import.meta.url));

beforeAll(requireFreshDist);

async function doctor(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [program, 'doctor', ...args]);
  return stdout;
}

describe('`llama-headstart doctor`', () => {
  it('reports the training length of a model, and the options for longer contexts', async () => {
    const path = microModel('dense');
    const { model } = JSON.parse(await doctor('--json', path));
    const advice = "ropeScaling: 'yarn', ropeFrequencyScale: 8192 / contextSize";
    expect(model).toMatchObject({ path, architecture: 'qwen2', trainContextSize: 8192, advice, problem: null });
    const text = await doctor(path);
    expect(text).toContain('  qwen2, trained with 8192 tokens\n');
    expect(text).toContain(`  for a longer \`contextSize\`: set { ${advice} }\n`);
  });

  it('reports that the positions of a model without RoPE cannot be scaled', async () => {
    expect(await doctor(microModel('recurrent'))).toMatch(/longer `contextSize`: not possible/);
  });

  it('reports the directories of commands, the default port, and what is slow', async () => {
    const report = JSON.parse(await doctor('--json'));
    expect(report).toMatchObject({
      cacheDirectory: { path: expect.stringMatching(/templates$/), exists: expect.any(Boolean) },
      modelsDirectory: { path: expect.any(String) },
      models: expect.any(Array),
      ports: [{ port: 8080, free: expect.any(Boolean) }],
      slow: expect.any(Array),
    });
    for (const slowness of report.slow) expect(slowness).toEqual({ what: expect.any(String), fix: expect.any(String) });
  });

  it('reports a missing model file, and works without a model', async () => {
    expect(await doctor('/nowhere/model.gguf')).toMatch(/^Model: ✗ Expected a GGUF file at "\/nowhere\/model.gguf"/m);
    expect(JSON.parse(await doctor('--json')).model).toBeNull();
  });
});
