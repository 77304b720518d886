// Opens a thousand sessions and lets go of each, some after a turn, some in the middle of one; then collects until nothing is held.
import { AgentServer } from 'llama-headstart';

const [, , source] = process.argv;
const agent = await AgentServer.initialize({
  model: {
    source,
    cacheDir: null,
    nSeqMax: 4,
    contextSize: 512,
    nThreads: 1,
    maxResidentTemplates: 0,
    maxMemoryBytes: 0,
  },
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

const facts = () => {
  const { openSessions, heldSequences, kvCells, savedBytes, queueLength } = agent.health();
  return { openSessions, heldSequences, used: kvCells.used, savedBytes, queueLength };
};
const isHeld = () => Object.values(facts()).some((value) => value > 0);
// A stream that is left alone holds its session by a timer, for a second.
for (let round = 0; round < 600 && isHeld(); round++) {
  globalThis.gc();
  await new Promise((resolve) => setTimeout(resolve, 20));
}
process.stdout.write(JSON.stringify(facts()));
await agent.close();
