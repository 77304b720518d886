// Writes measured numbers into docs/guide/cpu-speed.md and docs/design/scheduling.md, and draws the pictures of the guide:
//
//   npm run --silent bench:attention -- --json >attention.json
//   npm run --silent bench:busy -- --json >busy.json
//   node scripts/cpu-speed-page.mjs --attention attention.json --busy busy.json
//
// Each of the two files may be left out. The documents contain the tables between `<!-- attention -->` or `<!-- busy -->`
// and the closing comment.

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { root, runMain } from '../bin/lib/run.mjs';
import { barChart } from './lib/bar-chart.mjs';

/** The number of tokens of the template in the guide, if it was measured. */
const GUIDE_TOKENS = 4700;

async function writeAttention({ threads, models }) {
  const [first] = models;
  const context = first.contexts.find(({ tokens }) => tokens === GUIDE_TOKENS) ?? first.contexts[0];
  const rows = attentionRows(context);
  const columns = variantsOf(context).map(nameOf);
  await writeFile(
    join(root, 'docs', 'guide', 'cpu-speed-attention.svg'),
    barChart({
      title: `Flash attention, template of ${thousands(context.tokens)} tokens, ${threads} threads`,
      series: columns.map((name) => `flash attention ${name}`),
      groups: rows.map(({ label, values, texts }) => ({ label, values, texts })),
      ownScales: true,
    }),
  );
  const picture = '![Times with flash attention on and off](cpu-speed-attention.svg)';
  const header = ['', ...columns.map((name) => `flash attention ${name}`)];
  const guideTable = table(
    header,
    rows.map(({ label, texts }) => [label, ...texts]),
  );
  await replace('docs/guide/cpu-speed.md', 'attention', `${picture}\n\n${guideTable}`);
  const tables = models.flatMap(({ model, contexts }) => contexts.map((each) => designTable(model, threads, each)));
  await replace('docs/design/scheduling.md', 'attention', tables.join('\n\n'));
}

/** The names of the measured settings: `on`, and one or more `off`. */
const variantsOf = (context) => Object.keys(context).filter((key) => key !== 'tokens' && key !== 'auto');

const nameOf = (variant) => variant.replace(/^off(\d+)$/, 'off, micro-batches of $1');

/** The rows of a table: the values in ms, or in tokens per second. */
function attentionRows(context) {
  const variants = variantsOf(context).map((name) => context[name]);
  const row = (label, measured, textOf) => {
    const values = variants.map(measured);
    return { label, values, texts: values.map(textOf) };
  };
  const decodes = variants[0].decode.flatMap(({ sequences }, index) => {
    const rates = (words, kind) =>
      row(
        `decode, ${words}`,
        ({ decode }) => decode[index][kind],
        (value) => `${value.toFixed(1)} tokens/s`,
      );
    return sequences === 1
      ? [rates('1 sequence', 'shared')]
      : [rates(`${sequences} sequences, shared`, 'shared'), rates(`${sequences} sequences, own`, 'own')];
  });
  return [
    row('cold prefill', ({ coldMs }) => coldMs, duration),
    row('warm first token', ({ firstTokenMs }) => firstTokenMs, duration),
    row('last of 8 first tokens', ({ eight }) => eight.firstTokenMs, duration),
    row('end of 8 replies', ({ eight }) => eight.endMs, duration),
    ...decodes,
  ];
}

function designTable(model, threads, context) {
  const header = [`${model}, ${threads} threads, template of ${thousands(context.tokens)} tokens`];
  const rows = attentionRows(context).map(({ label, texts }) => [label, ...texts]);
  return table([...header, ...variantsOf(context).map(nameOf)], rows);
}

async function writeBusy({ model, cores, steady, changing, pair }) {
  const counts = Object.keys(steady[0].fixed);
  const series = [...counts.map((count) => (count === '1' ? '1 thread' : `${count} threads`)), "'auto'"];
  const decodes = steady.filter(({ work }) => work === 'decode');
  const valuesOf = ({ fixed, auto }) => [...counts.map((count) => fixed[count]), auto];
  await writeFile(
    join(root, 'docs', 'guide', 'cpu-speed-busy.svg'),
    barChart({
      title: `Tokens per second in one session, ${cores} cores`,
      series,
      groups: decodes.map((row) => ({
        label: loopsText(row.loops),
        values: valuesOf(row),
        texts: valuesOf(row).map((value) => value.toFixed(1)),
      })),
    }),
  );
  const rateRow = (label, row) => [label, ...valuesOf(row).map((value) => value.toFixed(1)), row.ratio.toFixed(2)];
  const main = table(
    [`${model}, ${cores} cores, tokens/s`, ...series, "'auto' / best"],
    steady.map((row) => rateRow(`${row.work}, ${loopsText(row.loops)}`, row)),
  );
  const phases = changing
    .filter(({ ratio }) => ratio !== undefined)
    .map(({ loops, tokensPerSecond, ratio }) => [loopsText(loops), tokensPerSecond.toFixed(1), ratio.toFixed(2)]);
  const pairs = Object.entries(pair.fixed).map(([threads, value]) => [threads.replace('+', ' and '), value.toFixed(1)]);
  const sections = [
    '![Tokens per second for each number of threads](cpu-speed-busy.svg)',
    main,
    ...(phases.length > 0
      ? [table(['load that comes and goes', "'auto', tokens/s", 'share of the best'], phases)]
      : []),
    table(
      ['threads of two processes at once', 'tokens/s together'],
      [...pairs, [`\`'auto'\` in both (${pair.ratio.toFixed(2)} of the best)`, pair.auto.toFixed(1)]],
    ),
  ];
  await replace('docs/guide/cpu-speed.md', 'busy', sections.join('\n\n'));
}

const loopsText = (loops) => (loops === 0 ? 'quiet' : loops === 1 ? '1 busy loop' : `${loops} busy loops`);

const thousands = (count) => count.toLocaleString('en-US');

const duration = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${ms.toFixed(0)} ms`);

function table(header, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}

/** Replaces the text between `<!-- name -->` and `<!-- /name -->` in a document. */
async function replace(document, name, text) {
  const path = join(root, document);
  const before = await readFile(path, 'utf8');
  const pattern = new RegExp(`(<!-- ${name} -->\n)[^]*?(<!-- /${name} -->)`);
  if (!pattern.test(before)) throw new Error(`Expected \`<!-- ${name} -->\` and \`<!-- /${name} -->\` in ${document}.`);
  await writeFile(
    path,
    before.replace(pattern, (_, begin, end) => `${begin}${text}\n${end}`),
  );
}

await runMain(async () => {
  const { values } = parseArgs({ options: { attention: { type: 'string' }, busy: { type: 'string' } } });
  if (values.attention !== undefined) await writeAttention(JSON.parse(await readFile(values.attention, 'utf8')));
  if (values.busy !== undefined) await writeBusy(JSON.parse(await readFile(values.busy, 'utf8')));
});
