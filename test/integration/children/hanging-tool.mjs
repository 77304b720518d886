// Calls a tool that never returns and keeps no handle open. Only the tool's time limit keeps the process alive.
import { AgentServer } from 'llama-headstart';

const [, , source] = process.argv;
const agent = await AgentServer.initialize({ model: { source, cacheDir: null, contextSize: 4096, nThreads: 1 } });
const session = await agent.createSession({ tools: [{ name: 'lamp', execute: () => new Promise(() => undefined) }] });
const options = { toolChoice: 'required', maxParallelTools: 1, maxSteps: 1, maxTokens: 100, toolTimeoutMs: 50 };
const { toolResults } = await session.send('Light, please', options);
process.stdout.write(String(toolResults[0]?.output));
await agent.close();
