// `node scripts/terminal-picture.mjs`: runs commands of llama-headstart in a pseudo-terminal, and writes what they print
// to docs/guide/cli.svg. Needs Python 3, and SmolLM2, which `npm run setup` downloads.

import { execFile } from 'node:child_process';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isMain, root, runMain } from '../bin/lib/run.mjs';
import { fetchSmolLM2 } from './fetch-model.mjs';

const COLUMNS = 90;
const MODEL = 'SmolLM2-135M-Instruct.Q4_1.gguf';
/** The command lines of the picture. */
const LINES = [
  `run ${MODEL} "Name two rivers." --system "You are terse." --temperature 0`,
  'cache list',
  `models inspect ${MODEL}`,
];
const OUTPUT = join(root, 'docs', 'guide', 'cli.svg');

const CHARACTER_WIDTH = 8.4;
const LINE_HEIGHT = 19;
const MARGIN = 16;
/** The classes of SGR codes (https://en.wikipedia.org/wiki/ANSI_escape_code#SGR). */
const CLASSES = {
  1: 'bold',
  2: 'dim',
  31: 'red',
  32: 'green',
  33: 'yellow',
  34: 'blue',
  35: 'magenta',
  36: 'cyan',
  90: 'dim',
};

/** A style, another escape sequence, or a character. */
const PIECES = new RegExp(`${'\\x1b'}\\[([\\d;]*)m|${'\\x1b'}\\[\\??[\\d;]*[A-Za-z]|([^])`, 'gu');

/** Runs all command lines in an empty directory. @returns {Promise<string>} what the terminal shows */
async function record() {
  const model = await fetchSmolLM2({});
  if (!model) throw new Error('SmolLM2 could not be downloaded.');
  const directory = await mkdtemp(join(tmpdir(), 'llama-headstart-picture-'));
  try {
    await symlink(model.path, join(directory, MODEL));
    const env = { ...process.env, XDG_CACHE_HOME: join(directory, '.cache'), HOME: directory, TERM: 'xterm-256color' };
    let text = '';
    for (const line of LINES) {
      const args = [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, word]) => quoted ?? word);
      const program = [process.execPath, join(root, 'bin', 'llama-headstart.mjs'), ...args];
      const terminal = join(root, 'test', 'helpers', 'pseudo-terminal.py');
      const { stdout } = await promisify(execFile)('python3', [terminal, String(COLUMNS), ...program], {
        cwd: directory,
        env,
      });
      text += `\x1b[32m$\x1b[0m llama-headstart ${line}\n${stdout.trimEnd()}\n\n`;
    }
    return text.replaceAll(directory, '~').trimEnd();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The lines that stay on the screen. A carriage return lets later text replace a line. @param {string} text */
function screenLines(text) {
  return text
    .replaceAll('\r\n', '\n')
    .split('\n')
    .map((line) =>
      line.slice(line.lastIndexOf('\x1b[2K') === -1 ? 0 : line.lastIndexOf('\x1b[2K') + 4).replaceAll('\r', ''),
    )
    .flatMap((line) => wrapped(line));
}

/** Splits a line into styled pieces, and breaks it at the right edge. @param {string} line */
function wrapped(line) {
  const rows = [[]];
  let classes = new Set();
  let column = 0;
  for (const [, codes, character] of line.matchAll(PIECES)) {
    if (codes !== undefined) classes = applied(classes, codes.split(';').map(Number));
    if (character === undefined) continue;
    if (column === COLUMNS) {
      rows.push([]);
      column = 0;
    }
    rows.at(-1).push({ character, classes: [...classes].join(' ') });
    column++;
  }
  return rows;
}

function applied(classes, codes) {
  const next = new Set(classes);
  for (const code of codes) {
    if (code === 0) next.clear();
    else if (code === 22) for (const name of ['bold', 'dim']) next.delete(name);
    else if (code === 39)
      for (const [number, name] of Object.entries(CLASSES)) if (Number(number) > 29) next.delete(name);
    if (CLASSES[code] !== undefined) next.add(CLASSES[code]);
  }
  return next;
}

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** @param {{ character: string, classes: string }[]} row */
function spans(row) {
  const pieces = [];
  for (const { character, classes } of row) {
    const last = pieces.at(-1);
    if (last?.classes === classes) last.text += character;
    else pieces.push({ classes, text: character });
  }
  return pieces
    .map(({ classes, text }) => (classes === '' ? escaped(text) : `<tspan class="${classes}">${escaped(text)}</tspan>`))
    .join('');
}

/** @param {string} text */
function picture(text) {
  const rows = screenLines(text);
  const width = Math.ceil(2 * MARGIN + COLUMNS * CHARACTER_WIDTH);
  const height = 2 * MARGIN + rows.length * LINE_HEIGHT;
  const lines = rows.map(
    (row, index) => `  <text x="${MARGIN}" y="${MARGIN + (index + 0.75) * LINE_HEIGHT}">${spans(row)}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">
  <title>llama-headstart in a terminal</title>
  <style>
    .page { fill: #0d1117 }
    text { fill: #e6edf3; white-space: pre }
    .bold { font-weight: bold }
    .dim { fill: #8b949e }
    .red { fill: #ff7b72 }
    .green { fill: #7ee787 }
    .yellow { fill: #f2cc60 }
    .blue { fill: #79c0ff }
    .magenta { fill: #d2a8ff }
    .cyan { fill: #a5d6ff }
  </style>
  <rect class="page" width="${width}" height="${height}" rx="8"/>
${lines.join('\n')}
</svg>
`;
}

if (isMain(import.meta)) {
  await runMain(async () => writeFile(OUTPUT, picture(await record())));
}
