// On memory that cannot be trimmed a turn goes on from the end of an earlier message, though the chat template does not repeat how the
// reply was opened.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ChatMessage, type SendOptions, type Session, subscribeDiagnostics } from 'llama-headstart';
import { Renderer } from 'llama-headstart/internal';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type AgentSettings, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { likelyCalls } from '../helpers/likely-text.js';
import type { MicroModelName } from '../helpers/models.js';
import { SYSTEM_PROMPT } from '../helpers/prompts.js';

const MEMORIES = ['hybrid', 'recurrent', 'sliding-window'] as const;
const TURNS = ['My chain broke.', 'What does a new one cost?', 'And a brake?', 'Do you have both?', 'Thank you!'];
const MAX_TOKENS = 8;
/** So long that it shows whether it was read again. */
const LONG = `My chain broke. ${'It was old and worn. '.repeat(20)}`;
/** It has more. */
const LONG_TOKENS = 100;
/** Tokens at the end of a message that may be read again: a merge with what follows could change them. */
const MARGIN = 2;

const chatTemplate = (file: string) =>
  readFileSync(
    fileURLToPath(new URL(`../../vendor/llama.cpp/models/templates/${file}.jinja`, import.meta.url)),
    'utf8',
  );

/** An agent with a chat template that opens each reply with a text which it does not repeat. */
async function open(template: string, settings: AgentSettings = {}, reasoning = true) {
  const all = { name: 'hybrid', contextSize: 2048, chatTemplate: template, ...EXACT, ...settings } as const;
  const agent = await startAgent(all);
  const renderer = new Renderer(agent.model, template);
  return {
    agent,
    /** The next turn; `cold` is what it says if its conversation is read from the first token on. */
    async turn(session: Session, content: string) {
      const uncached = await agent.createSession({ templateCache: false, messages: session.messages as never });
      const options = { maxTokens: MAX_TOKENS, reasoning };
      const { text: cold } = await uncached.send(content, options);
      await uncached.close();
      const { text, usage } = await session.send(content, options);
      return { text, cold, cachedTokens: usage.cachedInputTokens };
    },
    /** Tokens of a session's conversation up to the end of the newest user message. */
    async end(session: Session): Promise<number> {
      const last = session.messages.findLastIndex(({ role }) => role === 'user');
      const messages = session.messages.slice(0, last + 1);
      const source = { systemPrompt: SYSTEM_PROMPT };
      const { tokens, text } = await renderer.prompt(source, messages, { reasoning });
      const { content } = messages[last] as ChatMessage;
      const rest = text.slice(text.lastIndexOf(content) + content.length);
      return tokens.length - (await agent.model.tokenize(rest, { parseSpecial: true })).length;
    },
  };
}

const QWEN = chatTemplate('Qwen3.5-4B');

/** Name, chat template, memory, whether the model may reason. */
const KINDS: [string, string, MicroModelName, boolean][] = [
  ['QwQ', 'Qwen-QwQ-32B', 'hybrid', true],
  ['Nemotron 3 Nano', 'NVIDIA-Nemotron-3-Nano-30B-A3B-BF16', 'hybrid', true],
  ['GLM 4.7', 'GLM-4.7-Flash', 'sliding-window', true],
  ['a distill of R1', 'deepseek-ai-DeepSeek-R1-Distill-Qwen-32B', 'recurrent', true],
  ['MiniMax M2', 'MiniMax-M2', 'hybrid', true],
  ['StepFun', 'StepFun3.5-Flash', 'sliding-window', true],
  ['Qwen3 without reasoning', 'Qwen-Qwen3-0.6B', 'hybrid', false],
  ['RWKV, which opens replies unasked', 'llama-cpp-rwkv-world', 'recurrent', true],
];

async function converse(conversation: Awaited<ReturnType<typeof open>>, turns: readonly string[]) {
  const { agent, turn, end } = conversation;
  const session = await agent.createSession();
  let known = session.report.templateTokens;
  for (const content of turns) {
    const { text, cold, cachedTokens } = await turn(session, content);
    expect(cachedTokens).toBeGreaterThanOrEqual(known - MARGIN);
    expect(text).toBe(cold);
    known = await end(session);
  }
}

describe('a conversation is read again from its last user message only', () => {
  it.each(MEMORIES)('in five turns with the chat template of Qwen3.5 on %s memory', async (name) => {
    await converse(await open(QWEN, { name }), TURNS);
  });

  it.each(KINDS)('in three turns with the chat template of %s', async (_, file, name, reasoning) => {
    await converse(await open(chatTemplate(file), { name }, reasoning), TURNS.slice(0, 3));
  });

  it.each([
    ['whose cells it shares', 'resident', {}],
    ['of whose state it has a copy', 'memory', { kvLayout: 'split' }],
    ['that holds no sequence', 'memory', { nSeqMax: 1 }],
  ] as const)('by a fork of a session %s', async (_, source, settings) => {
    const { agent, turn, end } = await open(QWEN, settings);
    const session = await agent.createSession();
    await turn(session, LONG);
    const fork = await session.fork();
    expect(fork.report.source).toBe(source);
    const known = await end(fork);
    for (const each of [fork, session]) {
      const { text, cold, cachedTokens } = await turn(each, 'And now?');
      expect(cachedTokens).toBeGreaterThanOrEqual(known - MARGIN);
      expect(text).toBe(cold);
    }
  });

  it('by a session that lost its sequence to others', async () => {
    const { agent, turn, end } = await open(QWEN, { nSeqMax: 1 });
    const [first, second] = [await agent.createSession(), await agent.createSession()];
    await turn(first, LONG);
    await turn(second, LONG);
    const { text, cold, cachedTokens } = await turn(first, 'And now?');
    expect(cachedTokens).toBeGreaterThanOrEqual((await end(second)) - MARGIN);
    expect(text).toBe(cold);
  });

  it('by a session that was saved with its state', async () => {
    const { agent, turn, end } = await open(QWEN, { name: 'recurrent' });
    const session = await agent.createSession();
    await turn(session, LONG);
    const path = join(await temporaryDirectory(), 'conversation.json');
    await session.save(path, { state: true });
    const known = await end(session);
    await session.close();
    const { text, cold, cachedTokens } = await turn(await agent.restoreSession(path), 'And now?');
    expect(cachedTokens).toBeGreaterThanOrEqual(known - MARGIN);
    expect(text).toBe(cold);
  });

  it('after a turn that was aborted', async () => {
    const { agent, turn, end } = await open(QWEN, { name: 'sliding-window' });
    const session = await agent.createSession();
    await turn(session, LONG);
    const known = await end(session);
    for await (const part of session.stream('Never mind. What else is there?')) {
      expect(part.type).not.toBe('finish');
      break;
    }
    const { text, cold, cachedTokens } = await turn(session, 'And now?');
    expect(cachedTokens).toBeGreaterThanOrEqual(known - MARGIN);
    expect(text).toBe(cold);
  });
});

describe('a turn of several steps', () => {
  const QWEN3 = chatTemplate('Qwen-Qwen3-0.6B');
  /** Leaves out results of earlier turns, as many chat templates do with reasoning. */
  const FORGETFUL = QWEN3.replace(
    /(<tool_response>\\n' \}\}\s+\{\{- message\.content) \}\}/,
    "$1 if loop.index0 > ns.last_query_index else 'old' }}",
  );
  const look = { name: 'look', description: 'Looks.', execute: () => 'The chain is oiled.' };
  const options = async (): Promise<SendOptions> => ({
    sampling: await likelyCalls(),
    reasoning: false,
    maxParallelTools: 1,
    maxSteps: 4,
    maxTokens: 60,
  });

  it('reads no message twice', async () => {
    const { agent } = await open(QWEN3, { name: 'recurrent', tools: [look] });
    const session = await agent.createSession();
    const read: number[] = [];
    onTestFinished(subscribeDiagnostics('prefill', ({ tokens }) => read.push(tokens)));
    const { usage, toolResults } = await session.send(LONG, await options());
    expect({ steps: usage.steps, results: toolResults.length }).toEqual({ steps: 4, results: 4 });
    expect(read[0]).toBeGreaterThan(LONG_TOKENS);
    expect(Math.max(...read.slice(1))).toBeLessThan(LONG_TOKENS);
  });

  it('is read again from behind its first message if the chat template leaves out the rest', async () => {
    expect(FORGETFUL).not.toBe(QWEN3);
    const { agent } = await open(FORGETFUL, { tools: [look] });
    const session = await agent.createSession();
    const { toolResults } = await session.send(LONG, await options());
    expect(toolResults).toHaveLength(4);
    const { usage } = await session.send('And now?', { maxTokens: MAX_TOKENS });
    expect(usage.cachedInputTokens).toBeGreaterThan(session.report.templateTokens + LONG_TOKENS);
  });
});
