// Structured output. A grammar makes the reply match a schema, and the program receives the reply as a typed object.
// This schema is a zod schema (`npm install zod`). A JSON Schema works as well, but gives the object no type.
//
//   node structured-output.js [MODEL]
import { AgentServer } from 'llama-headstart';
import { z } from 'zod';

const source = process.argv[2] ?? 'hf:bartowski/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M';
await using agent = await AgentServer.initialize({
  model: { source, contextSize: 2048 },
  systemPrompt: 'You extract facts from text.',
  sampling: { temperature: 0 }, // the most likely token: the same reply every time
});

const review = z.object({
  sentiment: z.enum(['positive', 'mixed', 'negative']),
  stars: z.number().int().min(1).max(5),
  dishes: z.array(z.string().max(30)).min(1).max(3),
});

const texts = [
  'The soup was wonderful and the fish even better. We will be back!',
  'We waited an hour for a cold pizza. Never again.',
];
await Promise.all(
  texts.map(async (text) => {
    await using session = await agent.createSession();
    const { object, usage } = await session.send(`Review: ${text}`, {
      responseFormat: { type: 'json', schema: review },
      maxTokens: 120,
    });
    if (object !== undefined) {
      console.log(
        `${object.sentiment}, ${object.stars} stars: ${object.dishes.join(', ')} (${usage.outputTokens} tokens)`,
      );
    }
  }),
);
