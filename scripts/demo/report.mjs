// Formats the demo's result as text: the specification's table with this machine's numbers, and a small bar chart.

const PLOT_WIDTH = 50;

const formatMs = (ms) => (ms < 10 ? `${ms.toFixed(2)} ms` : `${Math.round(ms).toLocaleString('en-US')} ms`);
const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;

/** Counts the sessions per source: "1 prefill, 9 resident". */
function sourcesOf(sessions) {
  const counts = new Map();
  for (const { source } of sessions) counts.set(source, (counts.get(source) ?? 0) + 1);
  return [...counts].map(([source, count]) => `${count} ${source}`).join(', ');
}

/** Formats rows as a table. The first two columns are aligned to the left, the numbers after them to the right. */
function table(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows
    .map((row) =>
      row.map((cell, column) => (column < 2 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]))).join('   '),
    )
    .join('\n');
}

/** Draws one bar per row. The longest bar has PLOT_WIDTH characters. */
function plot(rows) {
  const longest = Math.max(...rows.map(([, value]) => value));
  const labelWidth = Math.max(...rows.map(([label]) => label.length));
  return rows
    .map(
      ([label, value]) =>
        `${label.padEnd(labelWidth)}  ${'█'.repeat(Math.max(1, Math.round((value / longest) * PLOT_WIDTH)))} ${formatMs(value)}`,
    )
    .join('\n');
}

export function reportText({ model, machine, template, uncached, cached, totals }) {
  const [first, second] = cached;
  const row = (name, sessions, startedFrom) => {
    const times = sessions.map(({ ms }) => ms);
    return [
      name,
      startedFrom,
      formatMs(times[0]),
      formatMs(median(times.slice(1))),
      formatMs(times.reduce((sum, ms) => sum + ms, 0)),
    ];
  };
  return `
${model.name} on ${machine.cpu}, ${machine.threads} threads
One template for all sessions: a system prompt and ten tools, ${template.tokens.toLocaleString('en-US')} tokens, ${(template.stateBytes / 1e6).toFixed(1)} MB of KV state

${table([
  ['ten sessions', 'started from', 'first', 'later (median)', 'all ten'],
  row('without the cache', uncached.sessions, 'prefill'),
  row('with the cache', first.sessions, sourcesOf(first.sessions)),
  row('in a second process', second.sessions, sourcesOf(second.sessions)),
])}

${plot([
  ['without the cache', totals.uncachedMs],
  ['with the cache', totals.cachedMs],
  ['second process', totals.secondProcessMs],
])}

With the cache, sessions start ${totals.speedup.toFixed(1)} times faster, and ${(totals.uncachedMs / totals.secondProcessMs).toFixed(0)} times faster in the second process.
All ${uncached.sessions.length + first.sessions.length + second.sessions.length} replies are equal: ${JSON.stringify(first.sessions[0].reply.split('\n')[0])}
`;
}
