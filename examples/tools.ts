// Tools are functions that the model calls. The agent checks the arguments of a call. If the call fails, the model gets
// the error message. This program describes the arguments with zod (`npm install zod`). A JSON Schema works as well.
//
//   node tools.js [MODEL]
import { AgentServer, tool } from 'llama-headstart';
import { z } from 'zod';

const source = process.argv[2] ?? 'hf:bartowski/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M';

const stock = new Map([
  ['apples', 12],
  ['pears', 0],
]);
const tools = [
  tool({
    name: 'get_stock',
    description: 'How many of an article are in stock',
    inputSchema: z.object({ article: z.enum(['apples', 'pears']) }),
    execute: ({ article }) => ({ article, count: stock.get(article) }),
  }),
  tool({
    name: 'order',
    description: 'Order more of an article',
    inputSchema: z.object({ article: z.enum(['apples', 'pears']), count: z.number().int().min(1).max(100) }),
    execute: ({ article, count }) => {
      stock.set(article, (stock.get(article) ?? 0) + count);
      return `${count} ${article} ordered`;
    },
  }),
];

await using agent = await AgentServer.initialize({
  model: { source, contextSize: 2048 },
  systemPrompt: 'You keep the stock of a grocery. Use the tools to find out and to order.',
  tools,
  sampling: { temperature: 0 }, // the most likely token: the same reply every time
});
await using session = await agent.createSession();

// Small models seldom call a tool on their own, so `toolChoice` forces a call.
const turn = session.stream('How many apples do we have?', {
  toolChoice: { name: 'get_stock' },
  maxSteps: 2,
  maxTokens: 80,
  onToolCall: ({ toolName, input }) => {
    console.log(`-> ${toolName}(${JSON.stringify(input)})`);
    return true; // `false` or `{ refuse: 'why' }` would refuse the call
  },
});
for await (const part of turn) {
  if (part.type === 'tool-result') {
    console.log(`<- ${JSON.stringify(part.output)}`);
  } else if (part.type === 'text-delta') {
    process.stdout.write(part.text);
  } else if (part.type === 'finish') {
    console.log(`\n[${part.finishReason} after ${part.usage.steps} replies]`);
  }
}
