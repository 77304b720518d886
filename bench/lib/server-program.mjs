// `node server-program.mjs OPTIONS`: this package's server, for bench/server.mjs. OPTIONS are the options of the agent as
// JSON. The program sends its parent process the address of the server, and answers messages:
//
// - `{ chat }` runs this request without HTTP, by `agent.chat`. The answer is `{ endMs }`, the time to the end.
// - `stop` closes the server and ends the program.

import { once } from 'node:events';
import { argv } from 'node:process';
import { AgentServer } from 'llama-headstart';
import { createHandler, listen } from 'llama-headstart/server';

const agent = await AgentServer.initialize({ ...JSON.parse(argv[2]), logger: () => {} });
const server = await listen(createHandler(agent));
process.send({ url: server.url });
for (;;) {
  const [message] = await once(process, 'message');
  if (message === 'stop') break;
  const begin = performance.now();
  for await (const _ of agent.chat(message.chat));
  process.send({ endMs: performance.now() - begin });
}
await server.close();
await agent.close();
process.disconnect();
