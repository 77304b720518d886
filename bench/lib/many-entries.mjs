// Makes a cache directory that has thousands of entries but uses the disk space of one entry.
import { appendFile, link, mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Copies the cache directory `source` to `target` and adds `count` entries. Each added entry consists of a hard link to
 * an existing file, under a new name, and an index line with other token hashes.
 *
 * @param {string} source
 * @param {string} target
 * @param {number} count
 */
export async function manyEntries(source, target, count) {
  await mkdir(target, { mode: 0o700 });
  const names = (await readdir(source)).filter((name) => /\.(kv|json|jsonl)$/.test(name));
  for (const name of names) {
    if (name.endsWith('.jsonl')) await appendFile(join(target, name), await readFile(join(source, name)));
    else await link(join(source, name), join(target, name));
  }
  const index = names.find((name) => name.endsWith('.jsonl'));
  const original = JSON.parse((await readFile(join(source, index), 'utf8')).split('\n')[0]);
  const lines = [];
  for (let number = 0; number < count; number++) {
    const key = number.toString(16).padStart(64, '0');
    const name = `template_${number.toString(16).padStart(16, '0')}.kv`;
    await link(join(source, original.name), join(target, name));
    const hashes = original.hashes.map((hash) => (hash ^ (number + 1)) >>> 0);
    lines.push(`${JSON.stringify({ ...original, name, key, hashes, whole: (original.whole ^ (number + 1)) >>> 0 })}\n`);
  }
  await appendFile(join(target, index), lines.join(''));
}
