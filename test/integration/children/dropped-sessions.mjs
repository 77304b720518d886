// Opens a thousand sessions and lets go of each, some after a turn, some in the middle of one, and of streams whose sessions
// stay; then collects until nothing is held, and whoever waits for the streams' ends gets their turn.
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
    await session.stream('Hello', { maxTokens: 4 }).next(); // nobody reads on
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
// In functions of their own: what a module's top level held would not be collected.
const dropTurn = async () => (await kept.stream('Hello', { maxTokens: 4 }).next()).value.type;
const dropCompletion = async () => (await agent.streamComplete('Hello', { maxTokens: 4 }).next()).value.type;
const dropped = [await dropTurn(), await dropCompletion()];
let isAlone = false;
const alone = agent.setLoras([]).then(() => {
  isAlone = true;
});

const facts = () => {
  const { openSessions, heldSequences, kvCells, savedBytes, queueLength } = agent.health();
  return { openSessions, heldSequences, used: kvCells.used, savedBytes, queueLength };
};
async function collect(isDone) {
  for (let round = 0; round < 600 && !isDone(); round++) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
await collect(() => isAlone);
const streams = { dropped, isAlone, ends: ends.map(({ error }) => error?.message) };
if (isAlone) {
  await alone;
  streams.next = (await kept.send('Hello', { maxTokens: 4 })).finishReason;
}
await kept.close();
await collect(() => Object.values(facts()).every((value) => value === 0));
process.stdout.write(JSON.stringify({ ...facts(), streams }));
await agent.close();
