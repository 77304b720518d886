// Opens a thousand sessions and drops each without close(), some after a turn and some during a turn. Also drops the
// streams of a kept session and of a completion. Garbage collection must release everything, and then setLoras() and
// another turn of the kept session must succeed.
import { AgentServer, subscribeDiagnostics } from 'llama-headstart';

const [, , source] = process.argv;
const agent = await AgentServer.initialize({
  model: {
    source,
    nSeqMax: 4,
    contextSize: 512,
    nThreads: 1,
  },
  cache: { dir: null, maxResidentTemplates: 0, maxMemoryBytes: 0 },
  systemPrompt: 'You are terse.',
});

async function use(number) {
  const session = await agent.createSession();
  if (number % 50 === 0) {
    await session.send('Hello', { maxTokens: 4 });
  } else if (number % 50 === 1) {
    // The rest of the stream is never read.
    await session.stream('Hello', { maxTokens: 4 })[Symbol.asyncIterator]().next();
  } else if (number % 50 === 2) {
    await session.fork();
  }
}

for (let number = 0; number < 1000; number++) {
  await use(number);
}

const ends = [];
subscribeDiagnostics('turn', (event) => event.event === 'end' && ends.push(event));
const kept = await agent.createSession();
// These are functions, because values that the top level of a module uses are not garbage-collected.
const dropTurn = async () => (await kept.stream('Hello', { maxTokens: 4 })[Symbol.asyncIterator]().next()).value.type;
const dropCompletion = async () =>
  (await agent.streamComplete('Hello', { maxTokens: 4 })[Symbol.asyncIterator]().next()).value.type;
const dropped = [await dropTurn(), await dropCompletion()];
// setLoras() waits until no turn computes, so a dropped stream must not compute forever.
let lorasAreSet = false;
const setLoras = agent.setLoras([]).then(() => {
  lorasAreSet = true;
});

const resources = () => {
  const { openSessions, heldSequences, kvCells, savedBytes, queueLength } = agent.health();
  return { openSessions, heldSequences, used: kvCells.used, savedBytes, queueLength };
};
/** Collects garbage until `isDone()`. If that never happens, the time limit of the test ends this process. */
async function collectUntil(isDone) {
  while (!isDone()) {
    globalThis.gc();
    await new Promise(setImmediate);
  }
}
await collectUntil(() => lorasAreSet && ends.length > 0);
await setLoras;
const { finishReason: next } = await kept.send('Hello', { maxTokens: 4 });
const streams = { dropped, ends: ends.map(({ error }) => error?.message), next };
await kept.close();
await collectUntil(() => Object.values(resources()).every((value) => value === 0));
process.stdout.write(JSON.stringify({ ...resources(), streams }));
await agent.close();
