// Uses the AI SDK (version 6 or 7) with a model of this process, and returns what a program can see. As a program:
// `node ai-sdk.mjs ENTRY MODEL MICRO_MODEL` prints the results as JSON. ENTRY is the entry point of the provider.

/** Options that make greedy replies of a few tokens. */
const SHORT = { temperature: 0, maxOutputTokens: 48 };

/** Small models would otherwise call a tool many times in one reply. */
const ONE_CALL = { headstart: { parallelToolCalls: false } };

/**
 * @param {any} ai the package `ai`
 * @param {any} model a language model of the provider
 */
export async function runScenarios(ai, model) {
  const stock = ai.tool({
    description: 'How many of an article are in stock',
    inputSchema: ai.jsonSchema(object({ article: { enum: ['apples', 'pears'] } })),
    execute: async ({ article }) => ({ article, count: article === 'apples' ? 12 : 0 }),
  });
  const loop = {
    ...SHORT,
    model,
    tools: { stock },
    providerOptions: ONE_CALL,
    stopWhen: ai.stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? { type: 'tool', toolName: 'stock' } : 'none' }),
  };
  const prompt = 'How many apples do we have?';
  const output = ai.Output.object({ schema: ai.jsonSchema(object({ count: { type: 'integer', maximum: 99 } })) });
  return {
    text: await textOf(ai, model),
    toolLoop: await streamLoop(ai, { ...loop, prompt }),
    structured: await structured(ai, { ...SHORT, model, prompt, output }),
    structuredWithTools: await structured(ai, {
      ...loop,
      prompt,
      output,
      stopWhen: ai.stepCountIs(3),
      prepareStep: ({ stepNumber }) => ({ toolChoice: ['required', 'auto', 'none'][stepNumber] }),
    }),
    agent: await runAgent(ai, { ...loop, instructions: 'Be brief.' }, prompt),
    middleware: await runMiddleware(ai, model),
  };
}

/** @param {object} properties */
const object = (properties) => ({
  type: 'object',
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});

/** What a program sees of a step. */
const stepOf = ({ text, toolCalls, toolResults, finishReason, usage, providerMetadata }) => ({
  text,
  calls: toolCalls.map(({ toolName, input }) => ({ toolName, input })),
  results: toolResults.map(({ output }) => output),
  finishReason,
  usage,
  cache: providerMetadata?.headstart?.cache,
});

async function textOf(ai, model) {
  const result = await ai.generateText({ ...SHORT, maxOutputTokens: 8, model, prompt: 'Name a color.' });
  const { response, warnings } = result;
  return { ...stepOf(result), modelId: response.modelId, warnings: warnings ?? [] };
}

/** Reads the parts of a stream, and the message that a user interface shows at the end. */
async function streamLoop(ai, options) {
  const result = ai.streamText(options);
  const types = [];
  for await (const { type } of result.fullStream) if (type !== types.at(-1)) types.push(type);
  let last;
  for await (const message of ai.readUIMessageStream({ stream: result.toUIMessageStream() })) last = message;
  const uiParts = last.parts.map(({ type, state, input, output }) => ({ type, state, input, output }));
  return { types, uiParts, steps: (await result.steps).map(stepOf) };
}

async function structured(ai, options) {
  const { output, steps } = await ai.generateText(options);
  return { output, steps: steps.map(stepOf) };
}

async function runAgent(ai, settings, prompt) {
  const { steps } = await new ai.ToolLoopAgent(settings).generate({ prompt });
  return steps.map(stepOf);
}

/** One middleware sets a default, and another one changes the text. */
async function runMiddleware(ai, model) {
  const upperCase = {
    specificationVersion: model.specificationVersion,
    wrapGenerate: async ({ doGenerate }) => {
      const { content, ...rest } = await doGenerate();
      return {
        ...rest,
        content: content.map((part) => (part.type === 'text' ? { ...part, text: part.text.toUpperCase() } : part)),
      };
    },
  };
  const settings = { maxOutputTokens: 4, temperature: 0 };
  const middleware = [ai.defaultSettingsMiddleware({ settings }), upperCase];
  return stepOf(await ai.generateText({ model: ai.wrapLanguageModel({ model, middleware }), prompt: 'Name a color.' }));
}

/**
 * A loop of five steps, of which each calls a tool. Returns the usage and the cache report of each step.
 * @param {any} ai
 * @param {any} model
 */
export async function runFiveSteps(ai, model) {
  const note = ai.tool({
    description: 'Notes a number.',
    inputSchema: ai.jsonSchema(object({ number: { enum: [1, 2] } })),
    execute: async ({ number }) => `The number ${number} is noted. ${'It is safe. '.repeat(10)}`,
  });
  const { steps } = await ai.generateText({
    model,
    system: 'You note numbers. '.repeat(20),
    prompt: 'Note some numbers.',
    tools: { note },
    toolChoice: 'required',
    providerOptions: ONE_CALL,
    stopWhen: ai.stepCountIs(5),
    temperature: 0,
    maxOutputTokens: 400,
  });
  return steps.map(stepOf);
}

const [, program, entry, ...sources] = process.argv;
if (program === import.meta.filename) {
  const ai = await import('ai');
  const { createLlamaHeadstart } = await import(entry);
  const results = [];
  for (const [source, run] of [
    [sources[0], runScenarios],
    [sources[1], runFiveSteps],
  ]) {
    const model = { source, contextSize: 4096, nThreads: 1 }; // more threads are slower on a busy machine
    const headstart = createLlamaHeadstart({ model, cache: { dir: null }, systemPrompt: 'Be brief.' });
    results.push(await run(ai, headstart()));
    await headstart.close();
  }
  const [scenarios, fiveSteps] = results;
  process.stdout.write(JSON.stringify({ scenarios, fiveSteps }));
}
