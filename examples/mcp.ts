// MCP. This program uses the tools and prompts of a Model Context Protocol server: mcp-server.ts. First run
// `npm install @modelcontextprotocol/client`.
//
//   node mcp.js [MODEL]
import { fileURLToPath } from 'node:url';
import { AgentServer } from 'llama-headstart';

const source = process.argv[2] ?? 'hf:bartowski/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M';
await using agent = await AgentServer.initialize({
  model: { source, contextSize: 2048 },
  systemPrompt: 'You tell people the time. Use the tool.',
  sampling: { temperature: 0 }, // the most likely token: the same reply every time
  mcpServers: [
    { name: 'clock', command: process.execPath, args: [fileURLToPath(new URL('mcp-server.js', import.meta.url))] },
    // { name: 'wiki', type: 'http', url: 'https://example.org/mcp', headers: { authorization: 'Bearer ...' } },
  ],
});

const tools = await agent.mcp.tools();
console.log(`Tools: ${tools.map(({ server, name }) => `${name} (of ${server})`).join(', ')}`);
const [prompt] = await agent.mcp.prompts();
if (prompt === undefined) {
  throw new Error('Expected the server to list a prompt, got none');
}
const [question] = await agent.mcp.getPrompt(prompt, { city: 'Tokyo' });
console.log(`> ${question?.content}`);

await using session = await agent.createSession();
const reply = await session.send(question?.content ?? '', {
  toolChoice: { name: 'time_in' },
  maxSteps: 2,
  maxTokens: 80,
});
for (const { toolName, output } of reply.toolResults) {
  console.log(`${toolName}: ${output}`);
}
console.log(reply.text);
