// Runs without the optional packages. Calls a tool that has a JSON Schema, then tries to start an agent with an MCP
// server. Prints the tool's output, the error of that agent, and the optional packages that can be imported.
import { argv, stdout } from 'node:process';
import { AgentServer } from './dist/index.js';

const model = { source: argv[2], cacheDir: null, contextSize: 1024, nThreads: 1 };
const lamp = { name: 'lamp', parameters: { type: 'object', properties: {} }, execute: () => 'lit' };
const agent = await AgentServer.initialize({ model, tools: [lamp], sampling: { temperature: 0 } });
const session = await agent.createSession();
const { toolResults } = await session.send('Light', { toolChoice: 'required', maxParallelTools: 1, maxSteps: 1 });
await agent.close();
const mcpServers = [{ name: 'here', command: 'node' }];
const missing = await AgentServer.initialize({ model, mcpServers }).catch(({ code, message }) => ({ code, message }));
const installed = await Promise.all(
  ['@modelcontextprotocol/client', '@opentelemetry/api'].map((name) =>
    import(name).then(
      () => name,
      () => undefined,
    ),
  ),
);
stdout.write(JSON.stringify({ outputs: toolResults.map(({ output }) => output), missing, installed }));
