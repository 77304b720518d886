// Uses the clients of several SDKs against a server. As a program, `node clients.mjs URL` prints the report as JSON.
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { ChatAnthropic } from '@langchain/anthropic';
import { ChatOpenAI } from '@langchain/openai';
import { generateText, Output, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { z } from 'zod';

const prompt = 'My chain broke. What now?';
const answer = z.object({ ok: z.boolean() });
const lamp = { description: 'Switches the lamp.', inputSchema: z.object({ on: z.boolean() }) };
const functionTool = {
  type: 'function',
  function: { name: 'set_lamp', parameters: z.toJSONSchema(lamp.inputSchema) },
};

/** Runs each feature, and returns its result or its error. */
async function results(features) {
  const entries = Object.entries(features).map(async ([name, feature]) => [
    name,
    await feature().catch((error) => ({ error: String(error?.stack ?? error) })),
  ]);
  return Object.fromEntries(await Promise.all(entries));
}

const callOf = ({ toolName, input }) => ({ name: toolName, input });

const aiSdk = (model) =>
  results({
    text: async () => (await generateText({ model, prompt, maxOutputTokens: 8, temperature: 0 })).text,
    stream: async () => {
      const { textStream, usage } = streamText({ model, prompt, maxOutputTokens: 8, temperature: 0 });
      let text = '';
      for await (const piece of textStream) text += piece;
      return { text, outputTokens: (await usage).outputTokens };
    },
    tools: async () => {
      const tools = { set_lamp: tool(lamp) };
      const { toolCalls } = await generateText({ model, prompt, tools, toolChoice: 'required', maxOutputTokens: 200 });
      return toolCalls.slice(0, 1).map(callOf);
    },
    object: async () =>
      (await generateText({ model, prompt, output: Output.object({ schema: answer }), maxOutputTokens: 200 })).output,
  });

const langChain = (model) =>
  results({
    text: async () => (await model.invoke(prompt)).text,
    stream: async () => {
      let text = '';
      for await (const chunk of await model.stream(prompt)) text += chunk.text;
      return { text };
    },
    tools: async () => {
      const bound = model.bindTools([functionTool], { tool_choice: 'any' });
      const { tool_calls } = await bound.invoke(prompt);
      return tool_calls.slice(0, 1).map(({ name, args }) => ({ name, input: args }));
    },
    object: async () => model.withStructuredOutput(answer, { name: 'answer' }).invoke(prompt),
  });

function openAi(client) {
  const messages = [{ role: 'user', content: prompt }];
  const request = { model: 'any', messages, max_tokens: 8, temperature: 0 };
  return results({
    text: async () => (await client.chat.completions.create(request)).choices[0].message.content,
    stream: async () => {
      const { choices, usage } = await client.chat.completions
        .stream({ ...request, stream_options: { include_usage: true } })
        .finalChatCompletion();
      return { text: choices[0].message.content, outputTokens: usage.completion_tokens };
    },
    tools: async () => {
      const forced = { ...request, tools: [functionTool], tool_choice: 'required', max_tokens: 200 };
      const { choices } = await client.chat.completions.create(forced);
      return choices[0].message.tool_calls
        .slice(0, 1)
        .map((call) => ({ name: call.function.name, input: JSON.parse(call.function.arguments) }));
    },
    object: async () => {
      const json_schema = { name: 'answer', schema: z.toJSONSchema(answer) };
      const response_format = { type: 'json_schema', json_schema };
      const { choices } = await client.chat.completions.create({ ...request, response_format, max_tokens: 200 });
      return JSON.parse(choices[0].message.content);
    },
  });
}

const limits = { model: 'any', apiKey: 'none', temperature: 0, maxTokens: 200, maxRetries: 0 };

/**
 * @param {string} url the address of the server
 * @returns what each feature returned, by client and feature
 */
export async function clientReport(url) {
  const baseURL = `${url}/v1`;
  const openAiCompatible = createOpenAICompatible({ name: 'local', baseURL, supportsStructuredOutputs: true });
  return {
    openai: await openAi(new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 })),
    '@ai-sdk/openai-compatible': await aiSdk(openAiCompatible('any')),
    '@ai-sdk/anthropic': await aiSdk(createAnthropic({ baseURL, apiKey: 'none' })('any')),
    '@langchain/openai': await langChain(new ChatOpenAI({ ...limits, configuration: { baseURL } })),
    '@langchain/anthropic': await langChain(new ChatAnthropic({ ...limits, anthropicApiUrl: url })),
  };
}

const [program, url] = process.argv.slice(1);
if (program?.endsWith('clients.mjs')) {
  process.stdout.write(`${JSON.stringify(await clientReport(url))}\n`);
  process.exit(0); // some clients keep their connections open
}
