// Structured replies are JSON that fits a schema. A grammar enforces the schema, and the JSON is parsed, checked and
// typed.
import { readFileSync } from 'node:fs';
import { type HeadstartError, type SendOptions, type StreamPart, tool } from 'llama-headstart';
import { describe, expect, expectTypeOf, it, vi } from 'vitest';
import { z } from 'zod';
import { startAgent } from '../helpers/agents.js';
import { ON, vendoredTemplate } from '../helpers/lamp.js';

const CHECK = z.object({ kind: z.enum(['chain', 'brake']), urgent: z.boolean() });
const BOUNDED = { maxTokens: 400 };

describe('responseFormat', () => {
  it('gives an object that fits a zod schema, with the type of the schema', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession();
    const reply = await session.send('What is it?', { ...BOUNDED, responseFormat: { type: 'json', schema: CHECK } });
    expect(reply.finishReason).toBe('stop');
    expectTypeOf(reply.object).toEqualTypeOf<z.infer<typeof CHECK> | undefined>();
    expect(CHECK.parse(reply.object)).toEqual(JSON.parse(reply.text));
  });

  it('gives an object that fits a JSON Schema, even with random sampling', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession();
    const schema = {
      type: 'object',
      properties: { n: { type: 'integer', minimum: 1, maximum: 9 } },
      required: ['n'],
      additionalProperties: false,
    };
    const sampling = { temperature: 1, seed: 5 };
    const { object } = await session.send('How many?', {
      ...BOUNDED,
      sampling,
      responseFormat: { type: 'json', schema },
    });
    expect(object).toEqual({ n: expect.any(Number) });
    expect(session.messages).toHaveLength(2);
  });

  it('works in a session with tools, and calls no tool', async () => {
    const agent = await startAgent({
      contextSize: 4096,
      tools: [tool({ name: 'look', parameters: {}, execute: () => 1 })],
    });
    const session = await agent.createSession();
    const { object, toolCalls, usage } = await session.send('What?', {
      ...BOUNDED,
      responseFormat: { type: 'json', schema: CHECK },
    });
    expect(CHECK.safeParse(object).success).toBe(true);
    expect(toolCalls).toEqual([]);
    expect(usage.cachedInputTokens).toBe(session.report.templateTokens);
  });

  it('with `allowTools` lets the model call tools first, and checks only a reply without calls', async () => {
    const agent = await startAgent({ contextSize: 4096 });
    const look = tool({ name: 'look', inputSchema: ON, execute: () => 'It is broken.' });
    const responseFormat = { type: 'json', schema: CHECK, allowTools: true } as const;
    const [brace = 0] = await agent.model.tokenize('{');
    const sampling = { logitBias: { [brace]: 90 } }; // JSON begins with a brace, and a call does not
    const messages = [{ role: 'user', content: 'What is it?' }] as const;
    const request = { messages, tools: [look], parallelToolCalls: false, responseFormat, sampling, ...BOUNDED };
    const reply = await agent.chat({ ...request, toolChoice: 'required' }).result;
    expect(reply).toMatchObject({ finishReason: 'stop', usage: { steps: 2 }, toolCalls: [{ toolName: 'look' }] });
    expect(CHECK.parse(reply.object)).toEqual(JSON.parse(reply.text));
    const called = await agent.chat({ ...request, tools: [{ ...look, execute: undefined }], toolChoice: 'required' })
      .result;
    expect(called).toMatchObject({ finishReason: 'tool-calls', text: '', toolCalls: [{ toolName: 'look' }] });
    expect(called).not.toHaveProperty('object');
    const { toolCalls } = await agent.chat({ ...request, toolChoice: 'none' }).result;
    expect(toolCalls).toEqual([]);
  });

  it.each([
    'Qwen-Qwen3-0.6B',
    'mistralai-Mistral-Nemo-Instruct-2407',
    'openai-gpt-oss-120b',
    'meta-llama-Llama-3.1-8B-Instruct',
    'HuggingFaceTB-SmolLM3-3B',
    'google-gemma-2-2b-it',
    'moonshotai-Kimi-K2',
    'meetkai-functionary-medium-v3.2',
  ])('streams JSON and nothing else with the chat template of %s', async (file) => {
    const path = new URL(`../../vendor/llama.cpp/models/templates/${file}.jinja`, import.meta.url);
    const agent = await startAgent({
      contextSize: 4096,
      chatTemplate: readFileSync(path, 'utf8'),
      systemPrompt: 'Hm.',
    });
    const session = await agent.createSession();
    const parts: StreamPart[] = [];
    // gpt-oss may reason first, and a model with random weights would never stop reasoning.
    const [final = 0, markup = 0] = await agent.model.tokenize('f<');
    const sampling = { logitBias: { [final]: 60, [markup]: 50 }, presencePenalty: 60, penaltyLastTokens: 6 };
    const options = {
      ...BOUNDED,
      sampling,
      reasoning: false,
      responseFormat: { type: 'json', schema: CHECK },
    } as const;
    for await (const part of session.stream('What is it?', options)) {
      parts.push(part);
    }
    const text = parts.flatMap((part) => (part.type === 'text-delta' ? [part.text] : [])).join('');
    expect(parts.at(-1)).toMatchObject({ type: 'finish', finishReason: 'stop', object: JSON.parse(text) });
    expect(CHECK.safeParse(JSON.parse(text)).success).toBe(true);
  });

  it('gives no object if a stop string ends the reply, and is refused together with a required call', async () => {
    const tools = [tool({ name: 'look', parameters: {}, execute: () => 1 })];
    const session = await (await startAgent({ contextSize: 4096, tools })).createSession();
    const responseFormat = { type: 'json', schema: CHECK } as const;
    const stopped = await session.send('What?', { ...BOUNDED, responseFormat, stop: 'kind' });
    expect(stopped).toMatchObject({ finishReason: 'stop', detail: 'stop-string' });
    expect(stopped).not.toHaveProperty('object');
    for (const toolChoice of ['required', { name: 'look' }] as const) {
      const both = session.send('What?', { responseFormat, toolChoice });
      await expect(both).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
  });

  it('gives the finish reason and no object if the reply is cut off', async () => {
    const session = await (await startAgent()).createSession();
    const reply = await session.send('What?', { maxTokens: 3, responseFormat: { type: 'json', schema: CHECK } });
    expect(reply.finishReason).toBe('length');
    expect(reply).not.toHaveProperty('object');
  });

  it('may have a schema whose check uses the agent', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    const session = await agent.createSession();
    const schema = CHECK.refine(async () => {
      await agent.setLoras([]);
      const other = await agent.createSession();
      await other.send('Is it?', { maxTokens: 2 });
      await other.close();
      return true;
    });
    const { finishReason } = await session.send('What?', {
      ...BOUNDED,
      responseFormat: { type: 'json', schema },
    });
    expect(finishReason).toBe('stop');
    expect((await session.send('And now?', { maxTokens: 2 })).usage.outputTokens).toBe(2);
  });

  it('does not delay an abort or a close, even if the check of its schema never ends', async () => {
    const agent = await startAgent({ contextSize: 2048 });
    const session = await agent.createSession();
    const controller = new AbortController();
    let closing: Promise<void> | undefined;
    const send = (atCheck: () => void, options: SendOptions = {}) => {
      const schema = CHECK.refine(() => {
        atCheck();
        return new Promise<boolean>(() => undefined);
      });
      return session.send('What is it?', { ...BOUNDED, ...options, responseFormat: { type: 'json', schema } });
    };
    const aborted = send(() => controller.abort(), { signal: controller.signal });
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    expect(session.messages).toEqual([]);
    const closed = send(() => {
      closing = agent.close();
    });
    await expect(closed).rejects.toMatchObject({ code: 'CLOSED' });
    await closing;
  });

  it('makes the turn fail if the check of the reply fails, and then the conversation is unchanged', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession();
    const never = CHECK.refine(() => false, 'not today');
    const responseFormat = { type: 'json', schema: never } as const;
    const failing = session.send('What?', { ...BOUNDED, maxSteps: 2, responseFormat });
    await expect(failing).rejects.toMatchObject({ code: 'REPLY_INVALID', message: expect.stringMatching(/not today/) });
    const parts: StreamPart[] = [];
    const streaming = (async () => {
      for await (const part of session.stream('What?', {
        ...BOUNDED,
        responseFormat: { type: 'json', schema: never },
      })) {
        parts.push(part);
      }
    })();
    const error: HeadstartError = await streaming.then(
      () => expect.unreachable(),
      (reason) => reason,
    );
    expect(parts[0]?.type).toBe('text-delta');
    expect(error).toMatchObject({ code: 'REPLY_INVALID' });
    expect(parts.some(({ type }) => type === 'finish')).toBe(false);
    expect(error.usage?.outputTokens).toBeGreaterThan(0);
    expect(error.usage?.tokensPerSecond).toBeGreaterThan(0);
    expect(session.messages).toEqual([]);
    expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
  });

  it('makes `send` ask the model again if the check fails, and keeps only the valid reply', async () => {
    const agent = await startAgent({ contextSize: 4096 });
    const session = await agent.createSession();
    const render = vi.spyOn(agent.model, 'render');
    const values: unknown[] = [];
    const schema = CHECK.refine((value) => values.push(value) > 2, 'not yet');
    const { object, text, usage } = await session.send('What?', {
      ...BOUNDED,
      responseFormat: { type: 'json', schema },
    });
    expect(values).toHaveLength(3);
    expect(usage.steps).toBe(3);
    expect(object).toEqual(values[2]);
    expect(JSON.parse(text)).toEqual(object);
    expect(session.messages).toMatchObject([{ content: 'What?' }, { role: 'assistant', content: text }]);
    const shown = render.mock.calls.map(([{ messages }]) => JSON.stringify(messages));
    expect(shown.some((each) => each.split('not yet').length === 3)).toBe(true); // one prompt shows both failed checks
    expect((await session.send('Thanks', { maxTokens: 2 })).usage.cachedInputTokens).toBeGreaterThan(0);
  });

  it('makes the turn fail with the message of the check if the context is too full to ask again', async () => {
    const agent = await startAgent({ contextSize: 256, systemPrompt: '' });
    const session = await agent.createSession();
    const schema = CHECK.refine(() => false, 'never '.repeat(60));
    const failing = session.send('What?', { ...BOUNDED, responseFormat: { type: 'json', schema } });
    await expect(failing).rejects.toMatchObject({
      code: 'REPLY_INVALID',
      message: expect.stringMatching(/never never/),
    });
    expect(session.messages).toEqual([]);
  });

  const tree = z.object({
    on: z.boolean(),
    get next() {
      return tree.optional();
    },
  });
  it.each<[string, z.ZodType | object]>([
    ['a tuple', z.object({ pair: z.tuple([z.boolean(), z.null()]) })],
    ['a tuple with a rest of other items', z.object({ pair: z.tuple([z.boolean(), z.null()]).rest(z.string()) })],
    ['a recursive schema', tree],
    ['a pattern of digits and words', z.object({ code: z.string().regex(/^[A-Z\d]{2}-\d{3}\w$/) })],
    [
      'a property of any value',
      { type: 'object', properties: { a: { enum: [1, 2] }, b: true }, required: ['a'], additionalProperties: false },
    ],
  ])('enforces %s', async (_, schema) => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession();
    const finishReasons: string[] = [];
    for (const seed of [1, 2, 3]) {
      const options = { ...BOUNDED, sampling: { temperature: 1, seed } };
      const { finishReason, object } = await session.send('What?', {
        ...options,
        responseFormat: { type: 'json', schema },
      });
      if (finishReason === 'stop') {
        expect(object).toEqual(expect.any(Object)); // the check against the schema passed
      }
      finishReasons.push(finishReason);
    }
    expect(finishReasons).toContain('stop');
  });

  it.each<[string, unknown, string]>([
    [
      'a schema that no value fits',
      { type: 'json', schema: { type: 'object', properties: { a: false }, required: ['a'] } },
      'SCHEMA_INVALID',
    ],
    ['a string', 'json', 'INVALID_ARGUMENT'],
    ['an absent schema', { type: 'json' }, 'INVALID_ARGUMENT'],
    ['an invalid schema', { type: 'json', schema: { type: 'color' } }, 'SCHEMA_INVALID'],
    ['a schema that only refers to itself', { type: 'json', schema: { $ref: '#' } }, 'SCHEMA_INVALID'],
    [
      'a schema that JSON Schema cannot express',
      { type: 'json', schema: z.object({ a: z.bigint() }) },
      'SCHEMA_INVALID',
    ],
  ])('refuses %s', async (_, responseFormat, code) => {
    const session = await (await startAgent()).createSession();
    await expect(session.send('What?', { responseFormat: responseFormat as never })).rejects.toMatchObject({ code });
    expect(session.messages).toEqual([]);
  });
});

describe('grammar', () => {
  const grammar = 'root ::= answer "." # a comment with "quotes"\nanswer ::= "yes" | "no" | [a-c]{2,3}';

  it.each(['Qwen-Qwen3-0.6B', 'meetkai-functionary-medium-v3.2', 'google-gemma-2-2b-it'])(
    'makes the text of a reply follow a grammar of the program, with the chat template of %s',
    async (file) => {
      const agent = await startAgent({ contextSize: 4096, chatTemplate: vendoredTemplate(file), systemPrompt: 'Hm.' });
      const look = tool({ name: 'look', inputSchema: ON });
      for (const seed of [1, 2, 3]) {
        const sampling = { temperature: 1, seed };
        const messages = [{ role: 'user', content: 'Is it broken?' }] as const;
        const request = { messages, tools: [look], grammar, sampling, reasoning: false };
        const { text, finishReason } = await agent.chat(request).result;
        expect({ text, finishReason }).toEqual({
          text: expect.stringMatching(/^(yes|no|[a-c]{2,3})\.$/),
          finishReason: 'stop',
        });
      }
    },
  );

  it('is refused if it is no grammar, and together with a response format or a required call', async () => {
    const session = await (await startAgent({ tools: [tool({ name: 'look', inputSchema: ON })] })).createSession();
    const send = (options: SendOptions) => session.send('What?', { maxTokens: 2, ...options });
    await expect(send({ grammar: 'root ::= (' })).rejects.toMatchObject({ code: 'GRAMMAR_INVALID' });
    const responseFormat = { type: 'json', schema: CHECK } as const;
    for (const both of [{ responseFormat }, { toolChoice: 'required' }] as const) {
      await expect(send({ grammar, ...both })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    expect((await send({})).usage.outputTokens).toBe(2);
  });
});
