// Writes what the agents reused as a table.

/** The least share of a head that a later session must reuse. */
export const TARGETS = { secondSession: 0.99, afterRestart: 0.99, elsewhere: 0.97 };
/** The largest number of tokens at the end of a step that the next step may prefill again. */
export const MAX_TOKENS_AGAIN = 8;

/**
 * @typedef {object} Row
 * @property {string} agent
 * @property {string} version
 * @property {import('./model.mjs').TemplateOrder} template
 * @property {boolean} otherDay whether the session elsewhere ran on another day
 * @property {import('./measure.mjs').Measurement} [measurement]
 * @property {string} [failure]
 */

/** @param {Row} row @returns {string[]} what is below the targets */
export function shortfallsOf({ agent, template, measurement, failure }) {
  const where = `${agent}, ${template}`;
  if (measurement === undefined) return [`${where}: ${failure}`];
  const low = Object.entries(TARGETS)
    .filter(([name, target]) => measurement[name].share < target)
    .map(([name, target]) => {
      const { share, difference } = measurement[name];
      return `${where}: ${name} is ${percent(share)}, expected ${percent(target)} or more. ${placeOf(difference)}`;
    });
  const again = measurement.tokensAgain;
  return again <= MAX_TOKENS_AGAIN ? low : [...low, `${where}: a step prefilled ${again} tokens again`];
}

/** @param {readonly Row[]} rows @returns {string} a table in Markdown */
export function tableOf(rows) {
  const columns = ['agent', 'chat template', 'head', 'second session', 'after a restart', 'elsewhere', 'next steps'];
  const lines = rows.map(({ agent, version, template, measurement }) => [
    `${agent} ${version}`,
    template,
    ...(measurement === undefined ? ['failed', '', '', '', ''] : cellsOf(measurement)),
  ]);
  return [columns, columns.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** @param {import('./measure.mjs').Measurement} measurement @returns {string} a line */
export function summaryOf(measurement) {
  return cellsOf(measurement).join(', ');
}

/** @param {import('./measure.mjs').Measurement} measurement */
function cellsOf({ headTokens, secondSession, afterRestart, elsewhere, tokensAgain }) {
  const shares = [secondSession, afterRestart, elsewhere].map(({ share }) => percent(share));
  const steps = tokensAgain <= MAX_TOKENS_AGAIN ? 'only new tokens' : `${tokensAgain} tokens again`;
  return [`${headTokens.toLocaleString('en')} tokens`, ...shares, steps];
}

/** Rounds down, so that a share below a target never looks like the target. @param {number} share */
function percent(share) {
  return `${(Math.floor(share * 1000) / 10).toFixed(1)} %`;
}

/** @param {any} difference */
function placeOf(difference) {
  return difference === undefined ? '' : `The prompt differs at: ${JSON.stringify(difference)}`;
}
