// Integers that JavaScript's numbers cannot hold are errors, and are neither rounded nor cut off.
import { readFileSync } from 'node:fs';
import { type AgentServer, tool } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { requireExactIntegers } from '../../lib/template/exact-json.js';
import { startAgent } from '../helpers/agents.js';

const SCHEMA = { type: 'object', properties: { id: { type: 'integer' } }, required: ['id'] };
const TEMPLATES = new URL('../../vendor/llama.cpp/models/templates/', import.meta.url);

/** Makes the model write digits for as long as the grammar lets it. */
async function digitsOf(agent: AgentServer) {
  const [one] = (await agent.model.tokenize('x1')).slice(-1);
  return { temperature: 0, logitBias: { [one as number]: 50 } };
}

describe('an integer beyond 2^53', () => {
  it('in a reply is REPLY_INVALID', async () => {
    const agent = await startAgent({ contextSize: 2048 });
    const session = await agent.createSession({ sampling: await digitsOf(agent), maxSteps: 1 });
    const failing = session.send('Which?', { responseFormat: { type: 'json', schema: SCHEMA }, maxTokens: 200 });
    await expect(failing).rejects.toMatchObject({
      code: 'REPLY_INVALID',
      message: expect.stringMatching(/integers that JavaScript holds exactly \(up to 2\^53\), got 1{39}: take/),
    });
  });

  it.each([undefined, 'LFM2-8B-A1B', 'google-gemma-4-31B-it', 'Qwen3-Coder'])(
    "in a tool's arguments is told to the model, with the chat template %s",
    async (name) => {
      const chatTemplate = name && readFileSync(new URL(`${name}.jinja`, TEMPLATES), 'utf8');
      const agent = await startAgent({ contextSize: 4096, ...(chatTemplate && { chatTemplate }) });
      const calls: unknown[] = [];
      const tools = [tool({ name: 'find', parameters: SCHEMA, execute: (input) => calls.push(input) })];
      const session = await agent.createSession({ tools, sampling: await digitsOf(agent), maxParallelTools: 1 });
      const reply = await session.send('Which?', { toolChoice: 'required', maxSteps: 2, maxTokens: 100 });
      expect(calls).toEqual([]);
      expect(reply.toolResults).toMatchObject([
        { isError: true, output: expect.stringMatching(/do not fit .*got 1{39}: take larger ones as strings/) },
      ]);
      expect(reply.toolCalls[0]?.input).toMatch(/1{39}/); // all digits, as a text
    },
  );
});

describe('integers', () => {
  it.each(['9007199254740991', '-9007199254740991', '100000000000000000000', '[-0, 1234567890123456]', '1e400'])(
    'are exact in %s',
    (json) => expect(() => requireExactIntegers(json)).not.toThrow(),
  );

  it.each(['{"a": "12345678901234567890"}', '{"a\\"12345678901234567890": 1.5}', '12345678901234567890.5'])(
    'are none in %s',
    (json) => expect(() => requireExactIntegers(json)).not.toThrow(),
  );

  it.each(['9007199254740993', '{"a": [-9007199254740993]}', '{"\\"": 12345678901234567890}', '1'.repeat(400)])(
    'are not exact in %.60s',
    (json) => expect(() => requireExactIntegers(json)).toThrow(/up to 2\^53/),
  );
});
