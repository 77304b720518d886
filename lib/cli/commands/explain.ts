import type { PromptPlace } from '../../cache/cache-report.js';
import type { PromptComparison, RequestExplanation } from '../../chat/explain.js';
import { command } from '../command.js';
import { openAgent } from '../open-agent.js';
import type { Output } from '../output.js';
import { MODEL_OPTIONS } from '../shared-options.js';
import { countText } from '../words.js';

export const explain = command({
  name: 'explain',
  summary: 'shows what a recorded request would reuse, or where two recorded requests differ',
  details: [
    'A file contains the body of a chat completion, of a message or of a response, or an object with `headers` and ' +
      '`body`. Only the templates and conversations on disk count, because a new process has nothing in memory.',
  ],
  arguments: {
    request: { about: 'a JSON file; `-` is standard input', completion: 'file' },
    other: { about: 'another request to compare', optional: true, completion: 'file' },
  },
  options: MODEL_OPTIONS,
  examples: [
    { line: 'explain request.json', about: 'Show how many tokens of a request are cached, and why not more.' },
    { line: 'explain first.json second.json', about: 'Show the first difference of two prompts.' },
  ],
  json: {
    promptTokens: 'number of tokens of the prompt; of both prompts if two requests are compared',
    cachedTokens: 'number of tokens that the request would reuse',
    sharedTokens: 'number of tokens that both prompts begin with',
    reason: 'one sentence for people',
    difference: 'the first difference: the message or tool, and the text around it',
  },
  async run(call) {
    const { args, output, signal, io } = call;
    const { readRecordedRequest } = await import('../recorded-request.js');
    const agent = await openAgent(call, undefined, { cache: { conversations: true } });
    try {
      const read = async (path: string) => ({
        ...(await readRecordedRequest(path, { model: agent, io, signal })),
        signal,
      });
      const first = await read(args.request);
      if (args.other === undefined) {
        const explanation = await agent.explain(first);
        output.result(explanation, () => explanationLines(explanation, output));
      } else {
        const comparison = await agent.explain(first, await read(args.other));
        output.result(comparison, () => comparisonLines(comparison, output));
      }
    } finally {
      await agent.close();
    }
  },
});

function explanationLines(explanation: RequestExplanation, output: Output): string[] {
  const { promptTokens, cachedTokens, prefilledTokens, source, reason, difference } = explanation;
  const share = Math.round((100 * cachedTokens) / promptTokens);
  return [
    `${countText(cachedTokens)} of ${countText(promptTokens)} tokens are cached (${share} %, ${source}); ${countText(prefilledTokens)} would be prefilled.`,
    ...(reason === undefined ? [] : [`Why not more: ${reason}.`]),
    ...(difference === undefined
      ? []
      : [
          '',
          `First difference, in ${partText(difference)}:`,
          ...quoted('both', difference.before, output, 'dim'),
          ...quoted('request', difference.text, output, 'green'),
          ...quoted('stored', difference.storedText, output, 'red'),
        ]),
  ];
}

function comparisonLines(comparison: PromptComparison, output: Output): string[] {
  const { promptTokens, sharedTokens, reason, difference } = comparison;
  const [first, second] = promptTokens;
  return [
    `${countText(sharedTokens)} tokens are shared, of ${countText(first)} and ${countText(second)}: ${reason}.`,
    ...(difference === undefined
      ? []
      : [
          '',
          `First difference, in ${partText(difference.first)} of the first request and ${partText(difference.second)} of the second:`,
          ...quoted('both', difference.before, output, 'dim'),
          ...quoted('first', difference.first.text, output, 'green'),
          ...quoted('second', difference.second.text, output, 'red'),
        ]),
  ];
}

function partText({ part, message, tool, index }: PromptPlace): string {
  switch (part) {
    case 'system':
      return 'the system prompt';
    case 'tool':
      return `the tool ${tool ?? '?'}`;
    case 'message':
      return `message ${(message ?? 0) + 1}`;
    case 'opening':
      return 'the beginning of the reply';
    default:
      return `token ${countText(index)}`;
  }
}

/** A text in one line, with visible line breaks. */
function quoted(label: string, text: string, output: Output, color: 'dim' | 'green' | 'red'): string[] {
  return text === '' ? [] : [`  ${label.padEnd(7)} ${output.style(color, JSON.stringify(text))}`];
}
