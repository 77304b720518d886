// The AI SDK on a model of this process. This program runs a loop with a tool, and prints how many tokens of each prompt
// were cached. Then it makes an object. It needs AI SDK 6 (`npm install ai@6`). With AI SDK 7, import the provider from
// '@llama-headstart/ai-sdk'.
//
//   node ai-sdk.js [MODEL]
import { createLlamaHeadstart } from '@llama-headstart/ai-sdk/v3';
import { generateText, type LanguageModel, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const source = process.argv[2] ?? 'hf:bartowski/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M';

// The model is loaded by the first call, and closed at the end of the program.
await using headstart = createLlamaHeadstart({ model: { source, contextSize: 2048 } });
const model = headstart() as LanguageModel;

const result = streamText({
  model,
  system: 'You keep the stock of a grocery. Use the tool to find out.',
  prompt: 'How many apples do we have?',
  tools: {
    stock: tool({
      description: 'How many of an article are in stock',
      inputSchema: z.object({ article: z.enum(['apples', 'pears']) }),
      execute: async ({ article }) => ({ article, count: article === 'apples' ? 12 : 0 }),
    }),
  },
  // Small models seldom call a tool on their own, so the first step must call it.
  prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'none' }),
  stopWhen: stepCountIs(2),
  providerOptions: { headstart: { affinity: 'example', parallelToolCalls: false } },
  temperature: 0, // the most likely token: the same reply every time
  maxOutputTokens: 60,
});
for await (const part of result.fullStream) {
  if (part.type === 'tool-result') {
    console.log(`${part.toolName}(${JSON.stringify(part.input)}) is ${JSON.stringify(part.output)}`);
  } else if (part.type === 'text-delta') {
    process.stdout.write(part.text);
  } else if (part.type === 'finish-step') {
    const { cacheReadTokens, noCacheTokens } = part.usage.inputTokenDetails;
    console.log(`\n[${part.finishReason}: ${cacheReadTokens} tokens cached, ${noCacheTokens} prefilled]`);
  }
}

const { output } = await generateText({
  model,
  prompt: 'Twelve apples and three pears.',
  output: Output.object({ schema: z.object({ apples: z.number().int(), pears: z.number().int() }) }),
  temperature: 0,
});
console.log(output);
