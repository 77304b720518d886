// Tests the commands for cached templates: warm, and list, stats, inspect, verify, prune, clear, pin and unpin of a cache.
import { chmod, mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCli, startCli } from '../../helpers/cli.js';
import { microModel } from '../../helpers/models.js';

const LIBRARIAN = { systemPrompt: 'You are a careful librarian. 書籍を大切に。' };
const COOK = {
  systemPrompt: 'You are a cook.',
  tools: [{ name: 'cook', description: 'Cooks a dish.', inputSchema: { type: 'object', properties: {} } }],
};

interface Listing {
  directory: string;
  entries: { key: string; tokens: number; bytes: number; pinned: boolean; file: string }[];
}

let root: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'llama-headstart-cli-'));
});

afterAll(() => rm(root, { recursive: true, force: true }));

/** A folder with a space and letters of other scripts in its name. Its cache directory does not exist yet. */
async function newFolder() {
  const folder = await mkdtemp(join(root, 'mein Ordner 本 '));
  const cache = ['--cache-dir', join(folder, 'templates')];
  return { folder, cache, run: (...argv: string[]) => runCli([...argv, ...cache], { cwd: folder }) };
}

/** A folder whose cache holds the templates of a librarian and of a cook. */
async function warmFolder() {
  const place = await newFolder();
  await writeFile(join(place.folder, 'both.json'), JSON.stringify([LIBRARIAN, COOK]));
  const warmed = await place.run('warm', 'both.json', '--model', microModel('dense'), '--json');
  expect(warmed.code, warmed.stderr).toBe(0);
  const list = async () => JSON.parse((await place.run('cache', 'list', '--json')).stdout) as Listing;
  return { ...place, warmed: JSON.parse(warmed.stdout) as { reports: { key: string; source: string }[] }, list };
}

describe('`llama-headstart warm` and the commands of `cache`', () => {
  let place: Awaited<ReturnType<typeof warmFolder>>;

  beforeAll(async () => {
    place = await warmFolder();
  });

  it('prefill templates, which a second run finds on disk', async () => {
    expect(place.warmed.reports.map(({ source }) => source)).toEqual(['prefill', 'prefill']);
    const second = await place.run('warm', 'both.json', '--model', microModel('dense'));
    expect(second.stdout.match(/^[0-9a-f]{16}: \d+ tokens, disk in /gm)).toHaveLength(2);
  });

  it('list, describe and count the cached templates', async () => {
    const { directory, entries } = await place.list();
    expect(directory).toBe(join(place.folder, 'templates'));
    expect(entries.map(({ key }) => key).sort()).toEqual(place.warmed.reports.map(({ key }) => key).sort());
    const [entry] = entries;
    const inspected = await place.run('cache', 'inspect', entry?.key.slice(0, 6) ?? '', '--json');
    expect(JSON.parse(inspected.stdout)).toMatchObject({ ...entry, components: { keyType: 'f16', tenant: '' } });
    const stats = JSON.parse((await place.run('cache', 'stats', '--json')).stdout);
    expect(stats).toMatchObject({ entries: 2, pinned: 0, conversations: { count: 0 }, totals: { misses: 2 } });
    expect((await place.run('cache', 'stats')).stdout).toContain('  templates      2, ');
  });

  it('print a table, and on a terminal of 40 columns a block for each template', async () => {
    const table = (await place.run('cache', 'list')).stdout;
    expect(table).toMatch(/^key +tokens +size +last used +pinned\n[0-9a-f]{16} +\d+ /);
    const narrow = await runCli(['cache', 'list', ...place.cache], { columns: 40, env: { NO_COLOR: '1' } });
    expect(narrow.stdout).toMatch(/^key: [0-9a-f]{16}\ntokens: \d+\n/);
    expect(Math.max(...narrow.stdout.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(40);
    const colored = await runCli(['cache', 'list', ...place.cache], { columns: 100 });
    expect(colored.stdout).toContain('\u001b[2mkey');
  });

  it('refuse keys that are wrong, unknown or ambiguous, and name `cache list`', async () => {
    const cases = [
      ['xyz', 2, 'Expected a key or its first digits, at least 4, got "xyz".'],
      ['abc', 2, 'Expected a key or its first digits, at least 4, got "abc".'],
      ['0123456789abcdef', 1, 'No template in '],
    ] as const;
    for (const [key, code, message] of cases) {
      const result = await place.run('cache', 'inspect', key);
      expect([result.code, result.stderr]).toEqual([code, expect.stringContaining(message)]);
      expect(result.stderr).toContain('`llama-headstart cache list`');
    }
  });

  it('pin and unpin templates', async () => {
    const keys = (await place.list()).entries.map(({ key }) => key);
    expect((await place.run('cache', 'pin', ...keys.map((key) => key.slice(0, 8)))).code).toBe(0);
    expect((await place.list()).entries.map(({ pinned }) => pinned)).toEqual([true, true]);
    const pruned = await place.run('cache', 'prune', '--max-entries', '0', '--json');
    expect(JSON.parse(pruned.stdout).entries).toBe(0);
    const unpinned = await place.run('cache', 'unpin', keys[0] ?? '', '--json');
    expect(JSON.parse(unpinned.stdout)).toEqual({ keys: [keys[0]], pinned: false });
  });
});

describe('`llama-headstart cache verify`', () => {
  it('sets damaged files aside and exits with code 1', async () => {
    const { run, list, folder } = await warmFolder();
    expect((await run('cache', 'verify')).stdout).toMatch(/^2 entries, .*: 2 intact, 0 damaged/);
    const [{ file = '' } = {}] = (await list()).entries;
    const handle = await open(join(folder, 'templates', file), 'r+');
    await handle.write(Buffer.from([1, 2, 3]), 0, 3, 200);
    await handle.close();
    const { code, stdout } = await run('cache', 'verify', '--json');
    expect([code, JSON.parse(stdout)]).toEqual([1, expect.objectContaining({ checked: 2, intact: 1, corrupt: 1 })]);
    expect(await readdir(join(folder, 'templates'))).toContain(`${file}.corrupt`);
    expect((await list()).entries).toHaveLength(1);
  });
});

describe('`llama-headstart cache prune` and `clear`', () => {
  it('delete the templates that exceed a budget', async () => {
    const { run, list } = await warmFolder();
    expect(JSON.parse((await run('cache', 'prune', '--max-age', '1d', '--json')).stdout).entries).toBe(0);
    expect(JSON.parse((await run('cache', 'prune', '--max-entries', '1', '--json')).stdout).entries).toBe(1);
    expect((await list()).entries).toHaveLength(1);
    expect(JSON.parse((await run('cache', 'prune', '--max-bytes', '0.001MB', '--json')).stdout).entries).toBe(1);
    const wrong = await run('cache', 'prune', '--max-bytes', 'much');
    expect(wrong.stderr).toContain('Expected --max-bytes to be a size such as 500MB or 20GB, got "much".');
  });

  it('delete everything only with `--yes` if nobody can answer', async () => {
    const { run, list } = await warmFolder();
    const refused = await run('cache', 'clear');
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('pass --yes')]);
    expect((await list()).entries).toHaveLength(2);
    expect(JSON.parse((await run('cache', 'clear', '--yes', '--json')).stdout)).toEqual({ deleted: 2 });
    expect((await run('cache', 'list')).stdout).toMatch(/^No templates in /);
    expect((await run('cache', 'clear')).code).toBe(0); // there is nothing to ask about
  });

  it('treat a missing directory as an empty cache', async () => {
    const { run } = await newFolder();
    for (const command of ['list', 'stats', 'verify', 'prune', 'clear']) {
      const { code, stderr } = await run('cache', command);
      expect([code, stderr], command).toEqual([0, '']);
    }
  });
});

describe('a cache directory that other users can write to', () => {
  it.skipIf(process.platform === 'win32')('is refused by every command', async () => {
    const { run, folder } = await warmFolder();
    await chmod(join(folder, 'templates'), 0o777);
    const { code, stdout, stderr } = await run('cache', 'list', '--json');
    expect([code, JSON.parse(stdout).error.code]).toEqual([1, 'CACHE_DIR_SHARED']);
    expect(stderr).toContain('chmod go-w');
  });
});

describe('`llama-headstart warm`, interrupted at any moment', () => {
  it('ends with code 130, or has finished, and leaves a cache without damage and temporary files', async () => {
    const { folder, run } = await warmFolder();
    const templates = Array.from({ length: 15 }, (_, index) => ({
      systemPrompt: `You are person number ${index}. 本`,
    }));
    await writeFile(join(folder, 'many.json'), JSON.stringify(templates));
    const directory = join(folder, 'interrupted');
    for (const delay of [0, 20, 100, 300]) {
      const warming = startCli(['warm', 'many.json', '--model', microModel('dense'), '--cache-dir', directory], {
        cwd: folder,
      });
      setTimeout(() => warming.kill('SIGINT'), delay);
      const { code, stderr } = await warming.result;
      expect([0, 130], stderr).toContain(code);
      if (code === 130) expect(stderr).not.toContain('aborted');
    }
    const verified = await runCli(['cache', 'verify', '--json', '--cache-dir', directory]);
    expect(JSON.parse(verified.stdout)).toMatchObject({ corrupt: 0, foreign: 0 });
    expect((await readdir(directory).catch(() => [])).filter((name) => /\.(tmp|lock)$/.test(name))).toEqual([]);
    expect((await run('cache', 'verify')).code).toBe(0);
  });
});
