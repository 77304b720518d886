// Integers that a JavaScript number cannot represent exactly cause errors. They are neither rounded nor cut off.
import { readdirSync, readFileSync } from 'node:fs';
import { type AgentServer, tool } from 'llama-headstart';
import { Renderer, requireExactIntegers } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { startAgent } from '../helpers/agents.js';
import { replyUnder } from '../helpers/grammar-replies.js';
import { GrammarWalk } from '../helpers/grammar-walk.js';
import { microModel } from '../helpers/models.js';
import { seededRandom } from '../helpers/native.js';
import { rounds } from '../helpers/soak.js';

const SCHEMA = { type: 'object', properties: { id: { type: 'integer' } }, required: ['id'] };
const TEMPLATES = new URL('../../vendor/llama.cpp/models/templates/', import.meta.url);

/** Returns sampling options with which the model writes the digit 1 as long as the grammar allows it. */
async function digitsOf(agent: AgentServer) {
  const [one] = (await agent.model.tokenize('x1')).slice(-1);
  return { temperature: 0, logitBias: { [one as number]: 50 } };
}

describe('an integer beyond 2^53', () => {
  it('in a structured reply fails with REPLY_INVALID', async () => {
    const agent = await startAgent({ contextSize: 2048 });
    const session = await agent.createSession({ sampling: await digitsOf(agent), maxSteps: 1 });
    const failing = session.send('Which?', { responseFormat: { type: 'json', schema: SCHEMA }, maxTokens: 200 });
    await expect(failing).rejects.toMatchObject({
      code: 'REPLY_INVALID',
      message: expect.stringMatching(/integers that JavaScript holds exactly \(up to 2\^53\), got 1{39}: use strings/),
    });
  });

  it.each(['the micro model', 'LFM2-8B-A1B', 'google-gemma-4-31B-it', 'Qwen3-Coder'])(
    'in the arguments of a call gives the model an error, with the chat template of %s',
    async (name) => {
      const chatTemplate = name !== 'the micro model' && readFileSync(new URL(`${name}.jinja`, TEMPLATES), 'utf8');
      const agent = await startAgent({ contextSize: 4096, ...(chatTemplate && { chatTemplate }) });
      const calls: unknown[] = [];
      const tools = [tool({ name: 'find', inputSchema: SCHEMA, execute: (input) => calls.push(input) })];
      const session = await agent.createSession({ tools, sampling: await digitsOf(agent), maxParallelTools: 1 });
      const reply = await session.send('Which?', { toolChoice: 'required', maxSteps: 2, maxTokens: 100 });
      expect(calls).toEqual([]);
      expect(reply.toolResults).toMatchObject([
        { isError: true, output: expect.stringMatching(/do not fit .*got 1{39}: use strings for larger integers/) },
      ]);
      expect(reply.toolCalls[0]?.input).toMatch(/1{39}/); // all digits, as text
    },
  );
});

it('an integer beyond 2^53 keeps all digits, as JSON text, in a call that the program answers', async () => {
  const agent = await startAgent({ contextSize: 4096 });
  const session = await agent.createSession({
    tools: [{ name: 'find', inputSchema: SCHEMA }],
    sampling: await digitsOf(agent),
  });
  const options = { toolChoice: 'required', maxParallelTools: 1, maxTokens: 100 } as const;
  const { finishReason } = await session.send('Which?', options);
  expect(finishReason).toBe('tool-calls');
  expect(session.pendingToolCalls).toMatchObject([
    { toolName: 'find', input: expect.stringMatching(/^\s*\{\s*"id"\s*:\s*1{39}\s*\}\s*$/) },
  ]);
});

it.each<[string, z.ZodType | object]>([
  ['positive integers', z.object({ id: z.number().int().positive() })],
  ['64-bit integers', { type: 'object', properties: { id: { type: 'integer', maximum: 2 ** 63 } }, required: ['id'] }],
  ['numbers', { type: 'object', properties: { id: { type: 'number' } }, required: ['id'] }],
])('an integer beyond 2^53 is not cut to a smaller one by a schema of %s', async (_, parameters) => {
  const agent = await startAgent({ contextSize: 4096 });
  const session = await agent.createSession({ tools: [{ name: 'find', parameters }], sampling: await digitsOf(agent) });
  const { toolCalls } = await session.send('Which?', { toolChoice: 'required', maxParallelTools: 1, maxTokens: 100 });
  expect(toolCalls).toMatchObject([{ input: expect.stringMatching(/1{17}/) }]);
});

it('64-bit identifiers keep all digits if the schema declares them as strings', async () => {
  const agent = await startAgent({ contextSize: 4096 });
  const kept: bigint[] = [];
  const parameters = z.object({ id: z.string().regex(/^\d{19}$/) });
  const tools = [tool({ name: 'find', parameters, execute: ({ id }) => kept.push(BigInt(id)) })];
  const session = await agent.createSession({ tools, sampling: await digitsOf(agent) });
  await session.send('Which?', { toolChoice: 'required', maxParallelTools: 1, maxSteps: 1, maxTokens: 100 });
  expect(kept).toEqual([1_111_111_111_111_111_111n]);
});

it('the parser of every call format keeps all digits of an integer', async () => {
  const large = 12345678901234567000; // a larger number would have an exponent in the grammar
  const model = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
  const parameters = { type: 'object', properties: { id: { const: large } }, required: ['id'] };
  const lost: string[] = [];
  for (const file of readdirSync(TEMPLATES).filter((name) => name.endsWith('.jinja'))) {
    const renderer = new Renderer(model, readFileSync(new URL(file, TEMPLATES), 'utf8'));
    const source = { systemPrompt: 'x', tools: [{ name: 'find', parameters }] };
    const { format } = await renderer.prompt(source, [{ role: 'user', content: 'Hi' }], {
      toolChoice: 'required',
      reasoning: false,
    });
    const random = seededRandom(3);
    const walk = new GrammarWalk(format.grammar);
    const texts = Array.from({ length: rounds(3, 8) }, () => replyUnder(walk, format, random));
    const replies = texts.map((text) => text.replaceAll(String(large), '123456789012345678901'));
    const read = await Promise.all(
      replies.map((text) => model.parseReply({ rendered: format, text }).catch(() => undefined)),
    );
    const written = read.flatMap((reply) => reply?.toolCalls ?? []).map((call) => call.arguments);
    if (written.length === 0 || !written.every((json) => json.includes('123456789012345678901'))) {
      lost.push(`${file}: ${written[0]}`);
    }
  }
  await model.close();
  expect(lost).toEqual([]);
});

describe('JSON text', () => {
  it.each(['9007199254740991', '-9007199254740991', '100000000000000000000', '[-0, 1234567890123456]', '1e400'])(
    'is accepted if its integers are exact: %s',
    (json) => expect(() => requireExactIntegers(json)).not.toThrow(),
  );

  it.each(['{"a": "12345678901234567890"}', '{"a\\"12345678901234567890": 1.5}', '12345678901234567890.5'])(
    'is accepted if its long numbers are strings, keys or fractions: %s',
    (json) => expect(() => requireExactIntegers(json)).not.toThrow(),
  );

  it.each(['9007199254740993', '{"a": [-9007199254740993]}', '{"\\"": 12345678901234567890}', '1'.repeat(400)])(
    'is refused if an integer is not exact: %.60s',
    (json) => expect(() => requireExactIntegers(json)).toThrow(/up to 2\^53/),
  );
});
