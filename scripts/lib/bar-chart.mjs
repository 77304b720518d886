// Draws bar charts as SVG, in the colors of the other drawings in docs/, for light and dark pages.

const WIDTH = 610;
const LABELS = 190;
const VALUES = 80;
const BAR = 18;
const GAP = 14;
const TOP = 62;

/**
 * Draws groups of horizontal bars.
 *
 * @param {object} chart
 * @param {string} chart.title
 * @param {string[]} chart.series the names of the bars in each group; at most four
 * @param {{ label: string, values: number[], texts: string[] }[]} chart.groups one value and one text for each series
 * @param {boolean} [chart.ownScales] whether the longest bar of each group has the full length; default: one scale
 * @returns {string} the SVG file
 */
export function barChart({ title, series, groups, ownScales = false }) {
  const groupHeight = series.length * BAR + GAP;
  const height = TOP + groups.length * groupHeight;
  const largest = Math.max(...groups.flatMap(({ values }) => values));
  const lines = groups.flatMap((group, index) =>
    drawGroup(group, TOP + index * groupHeight, ownScales ? Math.max(...group.values) : largest),
  );
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="Helvetica, Arial, sans-serif" font-size="13">`,
    `  <title>${escaped(title)}</title>`,
    STYLE,
    `  <rect class="page" width="${WIDTH}" height="${height}"/>`,
    `  <text x="20" y="26" class="name">${escaped(title)}</text>`,
    ...series.flatMap((name, index) => [
      `  <rect class="bar${index}" x="${20 + index * 145}" y="38" width="12" height="12"/>`,
      `  <text x="${38 + index * 145}" y="49" class="text">${escaped(name)}</text>`,
    ]),
    ...lines,
    '</svg>',
  ].join('\n')}\n`;
}

const STYLE = `  <style>
    .page { fill: #ffffff }
    .name { fill: #1f2328; font-weight: bold }
    .text { fill: #57606a }
    .bar0 { fill: #8c959f }
    .bar1 { fill: #3b62b5 }
    .bar2 { fill: #1a7f37 }
    .bar3 { fill: #9a6700 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 }
      .name { fill: #e6edf3 }
      .text { fill: #9da7b3 }
      .bar0 { fill: #6e7681 }
      .bar1 { fill: #6b9bf2 }
      .bar2 { fill: #3fb950 }
      .bar3 { fill: #d29922 }
    }
  </style>`;

/** @param {{ label: string, values: number[], texts: string[] }} group @param {number} y @param {number} largest */
function drawGroup({ label, values, texts }, y, largest) {
  const middle = y + (values.length * BAR) / 2 + 4;
  const space = WIDTH - LABELS - VALUES;
  return [
    `  <text x="20" y="${middle}" class="text">${escaped(label)}</text>`,
    ...values.flatMap((value, index) => {
      const width = Math.max(1, Math.round((space * value) / largest));
      const top = y + index * BAR;
      return [
        `  <rect class="bar${index}" x="${LABELS}" y="${top}" width="${width}" height="${BAR - 4}"/>`,
        `  <text x="${LABELS + width + 6}" y="${top + 12}" class="text">${escaped(texts[index])}</text>`,
      ];
    }),
  ];
}

const escaped = (/** @type {string} */ text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;');
