// Compares the turns of this checkout with the turns of another one.
//
//   npm run bench:turns -- --other DIRECTORY [--json] [--model FILE] [--rounds N] [--system N] [--tokens N]
//     [--threads N]
//
// DIRECTORY is another built checkout of this package. Four agents run the same conversations, each in a process of its
// own: `other` and `control` are sessions of the other checkout, `session` and `chat` are sessions and stateless requests
// of this one. The agents take turns: each of them runs the first turn, then each of them the second one, and so on. The
// system prompt has about --system tokens, and a reply has up to --tokens tokens.
//
// The result is the time to the first text of each turn, in ms, and its ratio to the time of `other` in the same round.
// The ratios of `control` show how much two equal programs differ. All values are medians of the rounds.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemPrompt as demoPrompt } from '../scripts/demo/template.mjs';
import { runBench } from './lib/run-bench.mjs';
import { median } from './lib/trials.mjs';

const PROGRAM = fileURLToPath(new URL('lib/turns-program.mjs', import.meta.url));
const HERE = fileURLToPath(new URL('..', import.meta.url));
const QUESTIONS = [
  'My chain broke. What should I do now?',
  'What does a new one cost?',
  'And the labor?',
  'Thank you. Is there anything else?',
];
const KINDS = { other: 'session', session: 'session', chat: 'chat', control: 'session' };

async function measure({ model }, options, onProgress) {
  if (options.other === '') throw new Error('Name another built checkout with --other DIRECTORY.');
  const [rounds, system, maxTokens] = ['rounds', 'system', 'tokens'].map((name) => Number(options[name]));
  const other = resolve(options.other);
  const agents = await Promise.all(
    Object.entries(KINDS).map(([name, kind]) => {
      const isOther = name === 'other' || name === 'control';
      return startAgent(name, isOther ? other : HERE, kind, { source: model, threads: Number(options.threads) });
    }),
  );
  try {
    const systemPrompt = promptOf(system);
    for (let round = 0; round <= rounds; round++) {
      await runRound(agents, { round, systemPrompt, maxTokens });
      onProgress(round / rounds, `round ${round} of ${rounds}`);
    }
  } finally {
    await Promise.all(agents.map(({ stop }) => stop()));
  }
  return { model: basename(model), rounds, agents: agents.map((agent) => resultOf(agent, agents[0])) };
}

/** Runs one conversation in each agent. Round 0 is a warm-up, and its results are dropped. */
async function runRound(agents, { round, systemPrompt, maxTokens }) {
  for (const { ask } of agents) await ask({ system: systemPrompt });
  for (const [turn, question] of QUESTIONS.entries()) {
    // Every second turn runs in reverse order, so that no agent always follows the same other agent.
    for (const { ask, times } of (round + turn) % 2 === 0 ? agents : [...agents].reverse()) {
      const { ms } = await ask({ question: `Case ${round}. ${question}`, maxTokens });
      if (round > 0) times[turn].push(ms);
    }
  }
}

async function startAgent(name, checkout, kind, { source, threads }) {
  const model = { source, contextSize: 8192, cacheDir: null, ...(threads > 0 && { nThreads: threads }) };
  const options = JSON.stringify({ model, sampling: { temperature: 0 } });
  const program = fork(PROGRAM, [join(checkout, 'dist/index.js'), kind, options]);
  await answer(program, name);
  return {
    name,
    times: QUESTIONS.map(() => []),
    ask: async (message) => {
      const received = answer(program, name);
      program.send(message);
      return await received;
    },
    stop: async () => {
      if (program.exitCode !== null) return;
      const exited = once(program, 'exit');
      program.send('stop');
      await exited;
    },
  };
}

/** Waits for the program's next message. Throws if the program ends instead. */
async function answer(program, name) {
  const end = new AbortController();
  const { signal } = end;
  try {
    return await Promise.race([
      once(program, 'message', { signal }).then(([message]) => message),
      once(program, 'exit', { signal }).then(([code]) => {
        throw new Error(`The program of \`${name}\` ended with code ${code}.`);
      }),
    ]);
  } finally {
    end.abort();
  }
}

function promptOf(tokens) {
  const words = Math.ceil(tokens * 0.75);
  const all = demoPrompt.split(' ');
  return Array.from({ length: words }, (_, index) => all[index % all.length]).join(' ');
}

function resultOf({ name, times }, reference) {
  const ratios = times.map((values, turn) => median(values.map((ms, round) => ms / reference.times[turn][round])));
  return { name, firstTextMs: times.map(median), ratios };
}

function report({ model, rounds, agents }) {
  const list = (values, digits) => values.map((value) => value.toFixed(digits).padStart(7)).join('');
  return [
    `${model}, ${rounds} rounds: time to the first text of turns 1 to ${QUESTIONS.length}`,
    ...agents.map(
      ({ name, firstTextMs, ratios }) =>
        `${name.padEnd(8)} ms:${list(firstTextMs, 0)}   divided by the time of \`other\`:${list(ratios, 3)}`,
    ),
    '',
  ].join('\n');
}

await runBench({
  title: 'turns',
  options: { other: '', rounds: '24', system: '2500', tokens: '24', threads: '0' },
  needs: { baseline: false },
  measure,
  report,
});
