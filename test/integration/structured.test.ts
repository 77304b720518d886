// Replies that are JSON of a schema: forced by grammar, parsed, checked and typed.
import { tool } from 'llama-headstart';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { z } from 'zod';
import { startAgent } from '../helpers/agents.js';

const CHECK = z.object({ kind: z.enum(['chain', 'brake']), urgent: z.boolean() });
const BOUNDED = { maxTokens: 400 };

describe('responseFormat', () => {
  it('gives an object of a zod schema, with its type', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession();
    const reply = await session.send('What is it?', { ...BOUNDED, responseFormat: { type: 'json', schema: CHECK } });
    expect(reply.finishReason).toBe('stop');
    expectTypeOf(reply.object).toEqualTypeOf<z.infer<typeof CHECK> | undefined>();
    expect(CHECK.parse(reply.object)).toEqual(JSON.parse(reply.text));
  });

  it('gives an object of a JSON Schema, sampled too', async () => {
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

  it('works with another template, and calls no tool', async () => {
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
    expect(usage.cachedTokens).toBe(session.report.templateTokens);
  });

  it('of a reply that is cut off has no object, and says why', async () => {
    const session = await (await startAgent()).createSession();
    const reply = await session.send('What?', { maxTokens: 3, responseFormat: { type: 'json', schema: CHECK } });
    expect(reply.finishReason).toBe('length');
    expect(reply).not.toHaveProperty('object');
  });

  it('is checked where the grammar cannot say it: then the turn fails and leaves no trace', async () => {
    const session = await (await startAgent({ contextSize: 2048 })).createSession();
    const never = CHECK.refine(() => false, 'not today');
    const failing = session.send('What?', { ...BOUNDED, responseFormat: { type: 'json', schema: never } });
    await expect(failing).rejects.toMatchObject({ code: 'REPLY_INVALID', message: expect.stringMatching(/not today/) });
    expect(session.messages).toEqual([]);
    expect((await session.send('Hello', { maxTokens: 2 })).usage.completionTokens).toBe(2);
  });

  it.each<[string, unknown, string]>([
    ['no format', 'json', 'INVALID_ARGUMENT'],
    ['without a schema', { type: 'json' }, 'INVALID_ARGUMENT'],
    ['with a schema that is none', { type: 'json', schema: { type: 'colour' } }, 'SCHEMA_INVALID'],
    ['with a schema without end', { type: 'json', schema: { $ref: '#' } }, 'SCHEMA_INVALID'],
    ['that JSON Schema cannot say', { type: 'json', schema: z.object({ a: z.bigint() }) }, 'SCHEMA_INVALID'],
  ])('%s is a coded error', async (_, responseFormat, code) => {
    const session = await (await startAgent()).createSession();
    await expect(session.send('What?', { responseFormat: responseFormat as never })).rejects.toMatchObject({ code });
    expect(session.messages).toEqual([]);
  });
});
