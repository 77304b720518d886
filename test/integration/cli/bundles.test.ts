// Tests `llama-headstart cache export` and `cache import`, also with damaged, truncated, foreign and malicious bundles.
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Model, SequenceState } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCli } from '../../helpers/cli.js';
import { microModel } from '../../helpers/models.js';

const TEMPLATES = ['librarian', 'cook', 'gardener'].map((who) => ({ systemPrompt: `You are a careful ${who}.` }));

let root: string;
/** A cache directory with three templates. */
let source: string[];
/** The path and bytes of a signed bundle with these templates. */
let bundle: { path: string; bytes: Buffer };

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'llama-headstart cli '));
  source = ['--cache-dir', join(root, 'source')];
  await writeFile(join(root, 'templates.json'), JSON.stringify(TEMPLATES));
  for (const name of ['own', 'foreign']) {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    await writeFile(join(root, `${name}.pem`), privateKey.export({ type: 'pkcs8', format: 'pem' }));
    await writeFile(join(root, `${name}.pub.pem`), publicKey.export({ type: 'spki', format: 'pem' }));
  }
  await run('warm', 'templates.json', '--model', microModel('dense'), ...source);
  const path = join(root, 'signed.bundle');
  const exported = await run('cache', 'export', path, '--all', '--key', 'own.pem', ...source);
  expect(exported.code, exported.stderr).toBe(0);
  bundle = { path, bytes: await readFile(path) };
});

afterAll(() => rm(root, { recursive: true, force: true }));

const run = (...argv: string[]) => runCli(argv, { cwd: root });

/** An empty directory, and a function that imports into it. */
async function target() {
  const directory = join(await mkdtemp(join(root, 'target-')), 'templates');
  const importBundle = (path: string, ...argv: string[]) =>
    run('cache', 'import', path, '--cache-dir', directory, '--json', ...argv);
  const files = async () => (await readdir(directory).catch(() => [])).filter((name) => name !== 'CACHEDIR.TAG').sort();
  return { directory, importBundle, files };
}

/** Writes bytes as a bundle, and expects that its import is refused with this code and leaves no file. */
async function expectRefused(bytes: Buffer, code: string, message: string, ...trust: string[]): Promise<void> {
  const path = join(root, 'wrong.bundle');
  await writeFile(path, bytes);
  const { importBundle, files } = await target();
  const result = await importBundle(path, ...(trust.length > 0 ? trust : ['--trust']));
  expect(result.code).toBe(1);
  expect(JSON.parse(result.stdout).error).toEqual({ code, message: expect.stringContaining(message) });
  expect(await files()).toEqual([]);
}

/** The manifest of the bundle, and the bytes of its files. */
function parts(): { manifest: { entries: Record<string, unknown>[] }; files: Buffer } {
  const end = (from: number) => bundle.bytes.indexOf(0x0a, from);
  const second = end(end(0) + 1);
  const [length] = bundle.bytes.toString('latin1', end(0) + 1, second).split(' ');
  const start = second + 1;
  const json = bundle.bytes.toString('utf8', start, start + Number(length));
  return { manifest: JSON.parse(json), files: bundle.bytes.subarray(start + Number(length)) };
}

/** A bundle with this manifest, without a signature. */
function withManifest(manifest: object | string, files: Buffer): Buffer {
  const json = typeof manifest === 'string' ? manifest : JSON.stringify(manifest);
  return Buffer.concat([Buffer.from(`LLAMA-HEADSTART-BUNDLE 1\n${Buffer.byteLength(json)} -\n${json}`), files]);
}

describe('`llama-headstart cache export` and `import`', () => {
  it('copy templates into another directory, where they start warm', async () => {
    const { importBundle, directory } = await target();
    const { code, stdout } = await importBundle(bundle.path, '--key', 'own.pub.pem');
    expect([code, JSON.parse(stdout)]).toEqual([0, { imported: expect.any(Array), present: [] }]);
    expect(JSON.parse(stdout).imported).toHaveLength(3);
    const warmed = await run(
      'warm',
      'templates.json',
      '--model',
      microModel('dense'),
      '--cache-dir',
      directory,
      '--json',
    );
    const sources = JSON.parse(warmed.stdout).reports.map((report: { source: string }) => report.source);
    expect(sources).toEqual(['disk', 'disk', 'disk']);
  });

  it('do not change templates that are already in the cache', async () => {
    const { importBundle } = await target();
    await importBundle(bundle.path, '--trust');
    const { stdout } = await importBundle(bundle.path, '--trust');
    expect(JSON.parse(stdout)).toEqual({ imported: [], present: expect.any(Array) });
  });

  it('copy only the chosen templates', async () => {
    const { entries } = JSON.parse((await run('cache', 'list', '--json', ...source)).stdout);
    const { key } = entries[1];
    const path = join(root, 'one.bundle');
    await run('cache', 'export', path, key.slice(0, 10), ...source);
    const { importBundle } = await target();
    expect(JSON.parse((await importBundle(path, '--trust')).stdout).imported).toEqual([key]);
  });

  it('refuse a command line that names no templates, or both keys and `--all`', async () => {
    for (const argv of [[], ['1234', '--all']]) {
      const { code, stderr } = await run('cache', 'export', 'x.bundle', ...argv, ...source);
      expect([code, stderr]).toEqual([2, expect.stringContaining('Expected keys of templates or --all')]);
    }
    expect(await readdir(root)).not.toContain('x.bundle');
  });

  it('leave no file if the export fails', async () => {
    const { code } = await run('cache', 'export', join(root, 'missing', 'x.bundle'), '--all', ...source);
    expect(code).toBe(1);
    const empty = await run('cache', 'export', 'x.bundle', '--all', '--cache-dir', join(root, 'nothing'));
    expect(empty.stderr).toContain('There are no templates in');
    expect((await readdir(root)).filter((name) => name.startsWith('x.bundle'))).toEqual([]);
  });
});

describe('the import of a bundle', () => {
  it('requires a signature by the given key, or `--trust`', async () => {
    const { importBundle } = await target();
    const undecided = await importBundle(bundle.path);
    expect(JSON.parse(undecided.stdout).error).toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expectRefused(bundle.bytes, 'BUNDLE_UNTRUSTED', 'another key signed it', '--key', 'foreign.pub.pem');
    const { manifest, files } = parts();
    await expectRefused(
      withManifest(manifest, files),
      'BUNDLE_UNTRUSTED',
      'it has no signature',
      '--key',
      'own.pub.pem',
    );
  });

  it('accepts no signature of another manifest, and no key of another kind', async () => {
    const { manifest, files } = parts();
    const foreign = sign(null, Buffer.from('another text'), await readFile(join(root, 'own.pem'), 'utf8'));
    const signed = withManifest(manifest, files)
      .toString('latin1')
      .replace(' -\n', ` ${foreign.toString('base64')}\n`);
    await expectRefused(Buffer.from(signed, 'latin1'), 'BUNDLE_UNTRUSTED', 'was altered', '--key', 'own.pub.pem');
    await writeFile(
      join(root, 'rsa.pem'),
      generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ type: 'spki', format: 'pem' }),
    );
    const { stderr } = await run('cache', 'import', bundle.path, '--key', 'rsa.pem', ...source);
    expect(stderr).toContain('Expected a public Ed25519 key in PEM form');
  });

  it('refuses truncated and extended bundles', async () => {
    const { bytes } = bundle;
    for (const length of [0, 10, 25, 60, 200, Math.floor(bytes.length / 2), bytes.length - 1]) {
      await expectRefused(bytes.subarray(0, length), 'BUNDLE_INVALID', 'wrong.bundle');
    }
    await expectRefused(Buffer.concat([bytes, Buffer.from('x')]), 'BUNDLE_INVALID', 'but the file has');
  });

  it('refuses a bundle with a single changed byte, wherever it is', async () => {
    const { manifest, files } = parts();
    const start = bundle.bytes.length - files.length;
    const last = Number((manifest.entries[2] as { bytes: number }).bytes);
    for (const offset of [start + 3, start + 5000, bundle.bytes.length - last + 40, bundle.bytes.length - 2]) {
      const bytes = Buffer.from(bundle.bytes);
      bytes[offset] = (bytes[offset] as number) ^ 0x40;
      await expectRefused(bytes, 'BUNDLE_INVALID', 'differ from its SHA-256');
    }
  });

  it('refuses files that are not bundles, and bundles of later versions', async () => {
    await expectRefused(await readFile(microModel('dense')), 'BUNDLE_INVALID', 'it does not begin like one');
    const later = Buffer.from(bundle.bytes.toString('latin1').replace('BUNDLE 1\n', 'BUNDLE 2\n'), 'latin1');
    await expectRefused(later, 'BUNDLE_INVALID', 'its version is 2, and this program reads version 1');
    const { importBundle } = await target();
    expect(JSON.parse((await importBundle(root, '--trust')).stdout).error.code).toMatch(/BUNDLE_INVALID|READ_FAILED/);
    expect(JSON.parse((await importBundle(join(root, 'none'), '--trust')).stdout).error.code).toBe('READ_FAILED');
  });

  it('refuses manifests that lie about sizes, keys and tokens, name files, or name an entry twice', async () => {
    const { manifest, files } = parts();
    const [first, second, third] = manifest.entries as [Record<string, number>, Record<string, number>, object];
    const changed = (change: object) =>
      withManifest({ ...manifest, entries: [{ ...first, ...change }, second, third] }, files);
    const { bytes: size = 0 } = first;
    await expectRefused(changed({ bytes: size + 1 }), 'BUNDLE_INVALID', 'its manifest describes');
    await expectRefused(changed({ bytes: Number.MAX_SAFE_INTEGER }), 'BUNDLE_INVALID', 'its manifest describes');
    await expectRefused(changed({ bytes: -1 }), 'BUNDLE_INVALID', 'its manifest is wrong at entries.0.bytes');
    await expectRefused(changed({ bytes: 1e300 }), 'BUNDLE_INVALID', 'its manifest is wrong at entries.0.bytes');
    await expectRefused(changed({ tokens: 7 }), 'BUNDLE_INVALID', 'the manifest says 7');
    await expectRefused(changed({ key: 'f'.repeat(64) }), 'BUNDLE_INVALID', 'its key does not match its tokens');
    await expectRefused(
      changed({ key: `../${'f'.repeat(61)}` }),
      'BUNDLE_INVALID',
      'its manifest is wrong at entries.0.key',
    );
    await expectRefused(changed({ name: '../../evil.kv' }), 'BUNDLE_INVALID', 'its manifest is wrong at entries.0');
    await expectRefused(
      withManifest({ ...manifest, entries: [first, first, third] }, files),
      'BUNDLE_INVALID',
      'twice',
    );
    await expectRefused(
      withManifest({ ...manifest, entries: [] }, Buffer.alloc(0)),
      'BUNDLE_INVALID',
      'its manifest is wrong at entries',
    );
    await expectRefused(withManifest('{"entries":', files), 'BUNDLE_INVALID', 'its manifest is damaged');
    // The sizes of two entries are swapped, so that their sum stays the same.
    const swapped = { ...manifest, entries: [{ ...first, bytes: second.bytes }, { ...second, bytes: size }, third] };
    if (size !== second.bytes) await expectRefused(withManifest(swapped, files), 'BUNDLE_INVALID', 'SHA-256');
  });

  it('refuses an entry with a correct SHA-256 whose contents are no entry', async () => {
    const { manifest, files } = parts();
    const [first, ...others] = manifest.entries as { bytes: number }[];
    const garbage = Buffer.alloc(first?.bytes ?? 0, 'garbage');
    const sha256 = createHash('sha256').update(garbage).digest('hex');
    const wrong = withManifest(
      { ...manifest, entries: [...others, { ...first, sha256 }] },
      Buffer.concat([files.subarray(garbage.length), garbage]),
    );
    // The two entries in front are intact, and must not become visible either.
    await expectRefused(wrong, 'BUNDLE_INVALID', 'Expected an intact sequence-state file');
  });

  it('writes no entry through a symbolic link', async () => {
    const { importBundle, directory, files } = await target();
    await importBundle(bundle.path, '--trust');
    const [name = ''] = (await files()).filter((file) => file.endsWith('.kv'));
    const victim = join(root, 'victim');
    await writeFile(victim, 'precious');
    await rm(join(directory, name));
    await rm(join(directory, 'index-1.jsonl'));
    await symlink(victim, join(directory, name));
    const { code } = await importBundle(bundle.path, '--trust');
    expect(code).toBe(0);
    expect(await readFile(victim, 'utf8')).toBe('precious');
    expect((await run('cache', 'verify', '--cache-dir', directory)).stdout).toContain('3 intact');
  });
});

describe('`llama-headstart cache import --recompute`', () => {
  it('accepts states that this machine computes in the same way, and reports the difference', async () => {
    const { importBundle } = await target();
    const { stdout, stderr } = await importBundle(
      bundle.path,
      '--trust',
      '--recompute',
      '--model',
      microModel('dense'),
    );
    const { compared, imported } = JSON.parse(stdout);
    expect(imported, stderr).toHaveLength(3);
    expect(compared).toEqual(
      imported.map((key: string) => ({ key, equal: expect.any(Boolean), difference: expect.any(Number) })),
    );
    for (const { difference } of compared) expect(difference).toBeLessThan(0.01);
  });

  it('needs the model that made the templates', async () => {
    const { importBundle, files } = await target();
    const { stdout } = await importBundle(bundle.path, '--trust', '--recompute', '--model', microModel('dense-other'));
    expect(JSON.parse(stdout).error.message).toContain('Expected the model that made the template');
    expect(await files()).toEqual([]);
  });

  it('refuses a state that was made from other tokens than those it claims', async () => {
    const directory = join(root, 'lying');
    await writeFile(
      join(root, 'pair.json'),
      JSON.stringify([{ systemPrompt: 'You always say yes.' }, { systemPrompt: 'You always say no!' }]),
    );
    const cache = ['--cache-dir', directory];
    await run('warm', 'pair.json', '--model', microModel('dense'), ...cache);
    const { entries } = JSON.parse((await run('cache', 'list', '--json', ...cache)).stdout) as {
      entries: { file: string; key: string }[];
    };
    const [first, second] = entries as [{ file: string; key: string }, { file: string; key: string }];
    await replaceState(join(directory, first.file), join(directory, second.file));
    await run('cache', 'export', 'lying.bundle', first.key, ...cache);
    const { importBundle, files } = await target();
    expect(JSON.parse((await importBundle('lying.bundle', '--trust')).stdout).imported).toEqual([first.key]);
    const checked = await target();
    const argv = ['--trust', '--recompute', '--model', microModel('dense')];
    const { stdout } = await checked.importBundle('lying.bundle', ...argv);
    expect(JSON.parse(stdout).error).toEqual({
      code: 'BUNDLE_INVALID',
      message: expect.stringContaining('differs from the one that this machine computes'),
    });
    expect(await checked.files()).toEqual([]);
    expect(await files()).not.toEqual([]);
  });
});

/** Writes the KV state of `other` into an entry that keeps its tokens, key and a correct checksum. */
async function replaceState(path: string, other: string): Promise<void> {
  const model = await Model.load({ path: microModel('dense') });
  const { tokens, metadata } = await SequenceState.readFile(path);
  const { flashAttention } = metadata.components as { flashAttention: boolean };
  const context = await model.createContext({ kvCells: 512, maxSequences: 1, flashAttention });
  const foreign = (await SequenceState.readFile(other)).tokens;
  const length = tokens.length;
  await context.decode({
    tokens: Int32Array.from({ length }, (_, index) => foreign[(index + 3) % foreign.length] as number),
    positions: Int32Array.from({ length }, (_, index) => index),
    sequences: new Int32Array(length),
    outputs: new Uint8Array(length),
  });
  const lying = await context.captureSequence(0, tokens);
  await rm(path);
  await lying.writeFile(path, metadata);
  await model.close();
}
