// Tests the contents of the package's tarball, and the libraries that its binaries need.
import { execFileSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { megabytes, prebuilds, prebuildsName, report, root, runProgram, tarball } from '../helpers/package.js';

const MEGABYTE = 1e6;

/** Everything that may be in the tarball, with the maximum total size of each part. */
const PARTS: { name: string; pattern: RegExp; maxBytes: number }[] = [
  { name: 'documents', pattern: /^(README|CHANGELOG|LICENSE|package)\.?(md|json)?$/, maxBytes: 0.2 * MEGABYTE },
  { name: 'JavaScript, types and maps', pattern: /^dist\/.*\.(js|d\.ts|map)$/, maxBytes: 6 * MEGABYTE },
  { name: 'TypeScript', pattern: /^lib\/.*\.ts$/, maxBytes: 3 * MEGABYTE },
  {
    name: "the addon's sources and build",
    pattern: /^(native\/.*\.(cpp|h|map)|cmake\/.*\.(cmake|cpp)|CMakeLists\.txt|binding\.gyp|bin\/.*\.mjs)$/,
    maxBytes: 1 * MEGABYTE,
  },
  {
    name: "llama.cpp's sources",
    pattern:
      /^vendor\/llama\.cpp\/(CMakeLists\.txt|LICENSE|AUTHORS|licenses\/|cmake\/|common\/|include\/|src\/|vendor\/(CMakeLists\.txt|cpp-httplib\/|hash\/|nlohmann\/|sheredom\/|(miniaudio|stb)\/CMakeLists\.txt)|ggml\/(CMakeLists\.txt|cmake|include|src\/([^/]*$|ggml-(cpu|cuda|metal|vulkan)\/)))/,
    maxBytes: 25 * MEGABYTE,
  },
  {
    name: 'prebuilt binaries',
    pattern: /^prebuilds\/[a-z0-9]+-[a-z0-9]+\/[^/]*\.(node|so|dylib|dll|json)$/,
    maxBytes: 160 * MEGABYTE,
  },
];

describe('the tarball', () => {
  it('contains prebuilt binaries, dist, the sources that a build needs, and nothing else', () => {
    const unexpected = tarball().files.filter(({ path }) => !PARTS.some(({ pattern }) => pattern.test(path)));
    expect(unexpected.map(({ path }) => path)).toEqual([]);
  });

  it('stays below the size limits of each part and of the whole tarball', () => {
    const { files, bytes } = tarball();
    for (const { name, pattern, maxBytes } of PARTS) {
      const size = files.filter(({ path }) => pattern.test(path)).reduce((sum, file) => sum + file.size, 0);
      report(`  ${name}: ${megabytes(size)}`);
      expect(size, name).toBeGreaterThan(0);
      expect(size, name).toBeLessThan(maxBytes);
    }
    expect(bytes).toBeLessThan(150 * MEGABYTE);
  });

  it('contains every binary as a regular file, because npm leaves out symbolic links', () => {
    const sizes = readdirSync(prebuilds).map((name) => statSync(join(prebuilds, name)).size);
    expect(sizes.length).toBeGreaterThan(3);
    const packed = tarball().files.filter(({ path }) => path.startsWith(`prebuilds/${prebuildsName}/`));
    expect(packed.map(({ size }) => size).sort()).toEqual(sizes.sort());
  });

  it('passes publint in strict mode', async () => {
    const { code, stdout, stderr } = await runProgram(
      process.execPath,
      [join(root, 'node_modules/publint/src/cli.js'), 'run', tarball().path, '--strict'],
      { cwd: root },
    );
    expect(`${stdout}${stderr}`, 'publint').toMatch(/All good/i);
    expect(code).toBe(0);
  });

  it('has types that TypeScript finds when an ES module imports the package', async () => {
    const { code, stdout } = await runProgram(
      process.execPath,
      [
        join(root, 'node_modules/@arethetypeswrong/cli/dist/index.js'),
        tarball().path,
        '--profile',
        'esm-only',
        '--no-color',
      ],
      { cwd: root },
    );
    expect(code, stdout).toBe(0);
  });
});

const linux = process.platform === 'linux';

describe.skipIf(!linux)('the prebuilt binaries for Linux', () => {
  const folder = join(root, 'prebuilds');
  const readelf = (args: string[], file: string) =>
    execFileSync('readelf', [...args, join(folder, file)], { encoding: 'utf8' });
  // Paths such as "linux-x64/headstart-ggml-0.1.0.so". The list contains only platforms that were built.
  const binaries = readdirSync(folder)
    .filter((name) => name.startsWith('linux-'))
    .flatMap((name) => readdirSync(join(folder, name)).map((file) => `${name}/${file}`))
    .filter((file) => /\.(node|so)$/.test(file));
  const forGlibc = binaries.filter((file) => !file.includes('musl'));
  const addons = binaries.filter((file) => file.endsWith('.node'));

  it.each(binaries)('%s needs only libc and libraries of this package', (file) => {
    const needed = [...readelf(['-d', '-W'], file).matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name = '']) => name);
    const unexpected = needed.filter(
      (name) =>
        !/^(lib(c|m|dl|pthread|rt)\.so\.\d|ld-linux-[a-z0-9-]+\.so\.\d|libc\.musl-\w+\.so\.1|headstart-(musl-)?ggml(-base)?-[\d.]+\.so)$/.test(
          name,
        ),
    );
    expect(unexpected).toEqual([]);
  });

  it.each(forGlibc)('%s runs with glibc 2.28', (file) => {
    const versions = [...readelf(['-V', '-W'], file).matchAll(/Name: GLIBC_(\d+)\.(\d+)/g)];
    const tooNew = versions.filter(([, major, minor]) => Number(major) * 1000 + Number(minor) > 2028);
    expect(versions.length).toBeGreaterThan(0);
    expect(tooNew.map(([version]) => version)).toEqual([]);
  });

  it.each(addons)('%s exports only the two functions that Node-API requires', (file) => {
    const exported = readelf(['--dyn-syms', '-W'], file)
      .split('\n')
      .filter((line) => /\b(GLOBAL|WEAK)\b/.test(line) && !/\bUND\b/.test(line))
      .map((line) => line.trim().split(/\s+/).at(-1));
    expect(exported.sort()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
  });

  it.each(binaries)('%s looks for its libraries only in its own directory', (file) => {
    const dynamic = readelf(['-d', '-W'], file);
    const paths = [...dynamic.matchAll(/\((?:RPATH|RUNPATH)\).*\[(.*)\]/g)].map(([, path]) => path);
    expect(paths.every((path) => path === '$ORIGIN')).toBe(true);
    if (/NEEDED.*headstart-/.test(dynamic)) {
      expect(paths).toEqual(['$ORIGIN']);
    }
  });

  it('give their ggml libraries unique names, so that a process can load another copy of ggml too', () => {
    const headers = binaries
      .filter((file) => /ggml(-base)?-[\d.]+\.so$/.test(file))
      .map((file) => readelf(['-d', '-W'], file));
    expect(headers.length).toBe(2 * addons.length);
    for (const dynamic of headers) {
      expect(dynamic).toMatch(/\(SONAME\).*\[headstart-(musl-)?ggml(-base)?-\d+\.\d+\.\d+[^\]]*\.so\]/);
    }
  });
});
