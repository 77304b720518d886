import { resolve } from 'node:path';
import { HeadstartError } from '../../errors.js';
import { readPrivateKey } from '../bundle-key.js';
import { CACHE_OPTIONS, entryOf, KEY, withCache } from '../cache-access.js';
import { command } from '../command.js';
import { flag, pathOption } from '../option.js';
import { bytesText } from '../words.js';

export const cacheExport = command({
  name: 'cache export',
  summary: 'writes cached templates into one file, a bundle, for another machine',
  details: [
    'The bundle contains the token ids and the KV states of the templates. Anyone who has the bundle can read the ' +
      'system prompts. Sign the bundle with an Ed25519 key, so that the receiver can check who made it. ' +
      '`openssl genpkey -algorithm ed25519 -out private.pem` makes a key, and ' +
      '`openssl pkey -in private.pem -pubout -out public.pem` writes its public key.',
  ],
  arguments: {
    bundle: { about: 'the file to write', completion: 'file' },
    keys: { ...KEY, optional: true, variadic: true },
  },
  options: {
    all: flag('export all templates'),
    key: pathOption('file', 'sign the bundle with this private key (PEM, Ed25519)'),
    ...CACHE_OPTIONS,
  },
  examples: [
    { line: 'cache export agents.bundle 3f2a91 77c0be --key private.pem', about: 'Write two templates and sign them.' },
    { line: 'cache export all.bundle --all', about: 'Write all templates without a signature.' },
  ],
  json: {
    bundle: 'the path of the bundle',
    keys: 'the keys of its templates',
    bytes: 'its size',
    signed: 'whether it is signed',
  },
  async run(call) {
    const { args, options, output, signal, io, step } = call;
    const { exportBundle } = await import('../../cache/bundle/export-bundle.js');
    const path = resolve(io.cwd, args.bundle);
    if (options.all === args.keys.length > 0) {
      throw new HeadstartError('INVALID_ARGUMENT', 'Expected keys of templates or --all, and not both.');
    }
    const privateKey = options.key === undefined ? undefined : await readPrivateKey(resolve(io.cwd, options.key));
    await withCache(call, async (cache) => {
      const listed = options.all
        ? await cache.list()
        : await Promise.all(args.keys.map((digits) => entryOf(cache, digits)));
      const entries = listed.filter((entry, index) => listed.findIndex(({ key }) => key === entry.key) === index);
      if (entries.length === 0) {
        throw new HeadstartError('ENTRY_MISSING', `There are no templates in ${cache.disk.directory.path}.`);
      }
      const bytes = await step('bundle', (progress) =>
        exportBundle(cache.disk, entries, path, {
          privateKey,
          signal,
          onProgress: (fraction) => progress.update({ fraction }),
        }),
      );
      const keys = entries.map(({ key }) => key);
      output.result({ bundle: path, keys, bytes, signed: privateKey !== undefined }, () => [
        `${path}: ${keys.length} templates, ${bytesText(bytes)}${privateKey === undefined ? ', not signed' : ', signed'}`,
      ]);
    });
  },
});
