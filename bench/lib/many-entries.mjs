// A cache directory of thousands of entries that takes the room of one.
import { appendFile, link, mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Makes `target` a copy of the cache directory `source`, with `count` entries more: links to one file under names of their own,
 * and lines of the index with tokens of their own.
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
  const facts = JSON.parse((await readFile(join(source, index), 'utf8')).split('\n')[0]);
  const lines = [];
  for (let number = 0; number < count; number++) {
    const key = number.toString(16).padStart(64, '0');
    const name = `template_${number.toString(16).padStart(16, '0')}.kv`;
    await link(join(source, facts.name), join(target, name));
    const hashes = facts.hashes.map((hash) => (hash ^ (number + 1)) >>> 0);
    lines.push(`${JSON.stringify({ ...facts, name, key, hashes, whole: (facts.whole ^ (number + 1)) >>> 0 })}\n`);
  }
  await appendFile(join(target, index), lines.join(''));
}
