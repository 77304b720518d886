import { resolve } from 'node:path';
import type { ImportOptions } from '../../cache/bundle/import-bundle.js';
import { HeadstartError } from '../../errors.js';
import { readPublicKey } from '../bundle-key.js';
import { withCache } from '../cache-access.js';
import { type Call, command } from '../command.js';
import { flag, pathOption } from '../option.js';
import { MODEL_OPTIONS } from '../shared-options.js';

const ARGUMENTS = { bundle: { about: 'a file that `cache export` wrote', completion: 'file' } } as const;

const OPTIONS = {
  // A folder from somebody else may contain a bundle, its key, and a configuration file that names the key.
  key: pathOption('file', 'require a signature by this public key (PEM, Ed25519)', { isConfigurable: false }),
  trust: flag('accept the bundle without a signature', { isConfigurable: false }),
  recompute: flag('prefill each template with the model, and refuse the bundle if a state differs'),
  ...MODEL_OPTIONS,
};

export const cacheImport = command({
  name: 'cache import',
  summary: 'adds the templates of a bundle to the cache',
  details: [
    'A bundle needs as much trust as a model file, because its author decides what the model has read. So `import` ' +
      'requires a signature by a key that you name, or --trust. Everything is verified before any template becomes ' +
      'visible. If something is wrong, the cache stays as it was.',
    '--recompute needs the model that made the bundle. The states must agree to the bit, or within the noise of another ' +
      'CPU or number of threads.',
  ],
  arguments: ARGUMENTS,
  options: OPTIONS,
  examples: [
    {
      line: 'cache import agents.bundle --key public.pem',
      about: 'Add the templates of a bundle from a known source.',
    },
    {
      line: 'cache import agents.bundle --trust --recompute --model model.gguf',
      about: 'Compare each state with a state that this machine computes.',
    },
  ],
  json: {
    imported: 'the keys of the templates that were added',
    present: 'the keys of the templates that were already in the cache',
    compared: 'with --recompute, for each new template: `key`, `equal` and `difference`',
  },
  async run(call) {
    const { args, output, io, signal, step } = call;
    const { importBundle } = await import('../../cache/bundle/import-bundle.js');
    const publicKey = await trustOf(call);
    const comparison = await openComparison(call);
    try {
      const report = await withCache(call, (cache) =>
        step('bundle', (progress) =>
          importBundle(cache.disk, resolve(io.cwd, args.bundle), {
            publicKey,
            ...(comparison && { compare: comparison.compare }),
            signal,
            onProgress: (fraction) => progress.update({ fraction }),
          }),
        ),
      );
      const result = { ...report, ...(comparison && { compared: comparison.results }) };
      output.result(result, () => [
        `Added ${report.imported.length} templates; ${report.present.length} were already in the cache.`,
      ]);
    } finally {
      await comparison?.close();
    }
  },
});

type ImportCall = Call<typeof ARGUMENTS, typeof OPTIONS>;

/** @throws HeadstartError `INVALID_ARGUMENT`. */
async function trustOf({ options, io }: ImportCall): Promise<ImportOptions['publicKey']> {
  const { key, trust } = options;
  if (trust === (key !== undefined)) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      trust
        ? 'Expected --key or --trust, got both.'
        : 'Expected --key with the public key of the sender. A bundle can change replies, as a model file can; --trust accepts it without a signature.',
    );
  }
  return key === undefined ? 'trusted' : readPublicKey(resolve(io.cwd, key));
}

async function openComparison(call: ImportCall) {
  if (!call.options.recompute) {
    return undefined;
  }
  const { StateComparison } = await import('../state-comparison.js');
  return StateComparison.open(call);
}
