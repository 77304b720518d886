// Closes an agent while calls of all kinds are in progress. Then starts an agent whose adapter is invalid. Prints the
// outcomes of the calls and the error code of the failed start. After that, the process must end by itself.
import { AgentServer } from 'llama-headstart';

const [, , source, program, directory] = process.argv;
const start = () =>
  AgentServer.initialize({
    model: { source, contextSize: 4096, nThreads: 1 },
    cache: { dir: `${directory}/cache`, minFreeDiskBytes: 0 },
    systemPrompt: 'You are terse.',
    mcpServers: [{ name: 'here', command: process.execPath, args: [program, 'here'], allowedTools: ['hang'] }],
  });

const first = await start();
const saved = await first.createSession();
await saved.send('Hello', { maxTokens: 8 });
await saved.save(`${directory}/saved.json`, { state: true });
await first.close();

const agent = await start();
const open = async () => {
  const session = await agent.createSession();
  await session.send('Hello', { maxTokens: 8 });
  return session;
};
const [talking, calling, saving, compacting, forking] = await Promise.all([open(), open(), open(), open(), open()]);
let onCalled;
const called = new Promise((resolve) => {
  onCalled = resolve;
});
const call = calling.send('Hello', {
  toolChoice: 'required',
  maxParallelTools: 1,
  maxTokens: 200,
  onToolCall: () => {
    onCalled();
    return true;
  },
});
call.catch(() => undefined);
await called;
const work = [
  call,
  talking.send('And now?', { maxTokens: 2000 }),
  saving.save(`${directory}/new.json`, { state: true }),
  compacting.compact({ preserveRecent: 0, maxSummaryTokens: 400 }),
  forking.fork(),
  agent.restoreSession(`${directory}/saved.json`),
  agent.createSession({ systemPrompt: 'You are somebody else.' }),
  agent.complete('One, two,', { maxTokens: 2000 }),
  agent.setLoras([]),
  agent.templateCache.warm([{ systemPrompt: 'Another one.' }]),
];
const outcomes = Promise.all(
  work.map((promise) =>
    promise.then(
      () => 'done',
      (error) => error.code ?? String(error),
    ),
  ),
);
await agent.close();
const failing = await AgentServer.initialize({
  model: { source, loras: [{ source }] },
  cache: { dir: `${directory}/cache`, minFreeDiskBytes: 0 },
  mcpServers: [{ name: 'here', command: process.execPath, args: [program, 'here'] }],
}).catch((error) => error.code);
process.stdout.write(JSON.stringify({ outcomes: await outcomes, failing }));
