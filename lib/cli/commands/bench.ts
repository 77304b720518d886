import { chooseModel } from '../choose-model.js';
import { command } from '../command.js';
import type { Measurements, WarmSource } from '../measure-starts.js';
import { openAgent } from '../open-agent.js';
import { SILENT_STEP } from '../progress.js';
import { MODEL_OPTIONS } from '../shared-options.js';
import { bytesText, countText, durationText } from '../words.js';

/** The length of the head of a coding agent, in tokens. */
const AGENT_TOKENS = 20_000;

export const bench = command({
  name: 'bench',
  summary: 'measures prefill, decode and starts from each source on this machine, in about two minutes',
  details: [
    '`bench` uses a temporary cache directory, and deletes it afterwards. The times for a long head are extrapolated.',
  ],
  arguments: {},
  options: MODEL_OPTIONS,
  examples: [{ line: 'bench --model model.gguf', about: 'Measure one model.' }],
  json: {
    model: 'the name of the model',
    tokensPerSecond: 'tokens per second: `prefill`, `decode`',
    starts:
      'starts with a short and with a long template: `tokens`, `bytes`, `prefill` in ms, and `warm` in ms by source',
    breakEvenTokens:
      'templates of more tokens start faster from a file than by a prefill; null if there is no such length',
    agent: 'extrapolated ms of a start with a head of `tokens` tokens: `prefill`, `resident`, `memory`, `disk`',
  },
  async run(call) {
    const { breakEven, lineThrough, measure, timeAt, WARM_SOURCES } = await import('../measure-starts.js');
    const source = await chooseModel(call, undefined);
    let model = '';
    const measured = await call.step('measurements', (progress) =>
      measure(
        async (cache) => {
          const agent = await openAgent({ ...call, step: (_, work) => work(SILENT_STEP) }, source, { cache });
          model = agent.id;
          return agent;
        },
        call.signal,
        (state) => progress.update(state),
      ),
    );
    const prefill = lineThrough(measured, (times) => times.prefill);
    const disk = lineThrough(measured, (times) => times.warm.disk);
    const warmAt = (source: WarmSource) =>
      timeAt(
        lineThrough(measured, ({ warm }) => warm[source]),
        AGENT_TOKENS,
      );
    const result = {
      model,
      tokensPerSecond: {
        prefill: (1000 * measured.long.tokens) / measured.long.prefill,
        decode: measured.decodeTokensPerSecond,
      },
      starts: [measured.short, measured.long],
      breakEvenTokens: breakEven(prefill, disk),
      agent: {
        tokens: AGENT_TOKENS,
        prefill: timeAt(prefill, AGENT_TOKENS),
        ...(Object.fromEntries(WARM_SOURCES.map((source) => [source, warmAt(source)])) as Record<WarmSource, number>),
      },
    };
    call.output.result(result, () => linesOf(result, measured));
  },
});

interface Result {
  model: string;
  tokensPerSecond: { prefill: number; decode: number };
  breakEvenTokens: number | null;
  agent: { tokens: number; prefill: number } & Record<WarmSource, number>;
}

function linesOf({ model, tokensPerSecond, breakEvenTokens, agent }: Result, { long }: Measurements): string[] {
  const { warm } = long;
  return [
    model,
    `  prefill  ${tokensPerSecond.prefill.toFixed(1)} tokens per second`,
    `  decode   ${tokensPerSecond.decode.toFixed(1)} tokens per second`,
    '',
    `A template of ${countText(long.tokens)} tokens, ${bytesText(long.bytes)}, starts`,
    `  by a prefill   in ${durationText(long.prefill)}`,
    `  from a file    in ${durationText(warm.disk)}`,
    `  from memory    in ${durationText(warm.memory)}`,
    `  from resident  in ${durationText(warm.resident)}`,
    '',
    breakEvenTokens === null
      ? 'On this machine, a prefill is faster than a file at every length.'
      : `Templates of more than ${countText(breakEvenTokens)} tokens start faster from a file than by a prefill.`,
    `An agent with a head of ${countText(agent.tokens)} tokens waits ${durationText(agent.prefill)} or more for its first word without a cache,`,
    `${durationText(agent.disk)} from a file, and ${durationText(agent.memory)} from memory.`,
  ];
}
