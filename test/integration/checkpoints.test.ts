// The KV state of some models cannot be trimmed. With such a model, a turn continues from a checkpoint at the end of an
// earlier message, even if later prompts do not repeat the text that opened the reply.
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
import { variants } from '../helpers/soak.js';

const MEMORIES = ['hybrid', 'recurrent', 'sliding-window'] as const;
const TURNS = ['My chain broke.', 'What does a new one cost?', 'And a brake?', 'Do you have both?', 'Thank you!'];
const MAX_TOKENS = 8;
/** A message that is long enough to show in the token counts whether it was prefilled again. */
const LONG = `My chain broke. ${'It was old and worn. '.repeat(20)}`;
/** A lower bound of the tokens in {@link LONG}. */
const LONG_TOKENS = 100;
/** The number of tokens at the end of a message that may be prefilled again, because they may merge with later text. */
const MARGIN = 2;

const chatTemplate = (file: string) =>
  readFileSync(
    fileURLToPath(new URL(`../../vendor/llama.cpp/models/templates/${file}.jinja`, import.meta.url)),
    'utf8',
  );

/** Starts an agent. Its chat template opens each reply with a text that later prompts do not repeat. */
async function open(template: string, settings: AgentSettings = {}, reasoning = true) {
  const all = { name: 'hybrid', contextSize: 2048, chatTemplate: template, ...EXACT, ...settings } as const;
  const agent = await startAgent(all);
  const renderer = new Renderer(agent.model, template);
  return {
    agent,
    /** Runs the next turn. `cold` is the reply of an agent that prefills the whole conversation. */
    async turn(session: Session, content: string) {
      const uncached = await agent.createSession({ templateCache: false, messages: session.messages as never });
      const options = { maxTokens: MAX_TOKENS, reasoning };
      const { text: cold } = await uncached.send(content, options);
      await uncached.close();
      const { text, usage } = await session.send(content, options);
      return { text, cold, cachedTokens: usage.cachedInputTokens };
    },
    /** Returns the number of tokens up to the end of the newest user message. */
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

/** Each row: the name in the test title, the chat template, the micro model, and whether the model may reason. */
const KINDS: [string, string, MicroModelName, boolean][] = [
  ['QwQ', 'Qwen-QwQ-32B', 'hybrid', true],
  ['Nemotron 3 Nano', 'NVIDIA-Nemotron-3-Nano-30B-A3B-BF16', 'hybrid', true],
  ['GLM 4.7', 'GLM-4.7-Flash', 'sliding-window', true],
  ['a distill of R1', 'deepseek-ai-DeepSeek-R1-Distill-Qwen-32B', 'recurrent', true],
  ['MiniMax M2', 'MiniMax-M2', 'hybrid', true],
  ['StepFun', 'StepFun3.5-Flash', 'sliding-window', true],
  ['Qwen3 without reasoning', 'Qwen-Qwen3-0.6B', 'hybrid', false],
  ['RWKV, which opens a reply by default', 'llama-cpp-rwkv-world', 'recurrent', true],
];

async function converse(conversation: Awaited<ReturnType<typeof open>>, turns: readonly string[]) {
  const { agent, turn, end } = conversation;
  const session = await agent.createSession();
  let reusable = session.report.templateTokens;
  for (const content of turns) {
    const { text, cold, cachedTokens } = await turn(session, content);
    expect(cachedTokens).toBeGreaterThanOrEqual(reusable - MARGIN);
    expect(text).toBe(cold);
    reusable = await end(session);
  }
}

describe('a conversation is prefilled again only after its last user message', () => {
  it.each(MEMORIES)('in five turns with the chat template of Qwen3.5 and the %s model', async (name) => {
    await converse(await open(QWEN, { name }), TURNS);
  });

  // `npm test` runs one chat template with each model, and one without reasoning.
  const representatives = ['QwQ', 'GLM 4.7', 'a distill of R1', 'Qwen3 without reasoning'];
  it.each(variants(KINDS, ([title]) => representatives.includes(title)))(
    'in three turns with the chat template of %s',
    async (_, file, name, reasoning) => {
      await converse(await open(chatTemplate(file), { name }, reasoning), TURNS.slice(0, 3));
    },
  );

  it.each([
    ['that shares the cells of its session', 'resident', {}],
    ['that copies the state of its session', 'memory', { kvLayout: 'split' }],
    ['of a session without a sequence', 'memory', { nSeqMax: 1 }],
  ] as const)('in a fork %s', async (_, source, settings) => {
    const { agent, turn, end } = await open(QWEN, settings);
    const session = await agent.createSession();
    await turn(session, LONG);
    const fork = await session.fork();
    expect(fork.report.source).toBe(source);
    const reusable = await end(fork);
    for (const conversation of [fork, session]) {
      const { text, cold, cachedTokens } = await turn(conversation, 'And now?');
      expect(cachedTokens).toBeGreaterThanOrEqual(reusable - MARGIN);
      expect(text).toBe(cold);
    }
  });

  it.each(MEMORIES)('in a session that lost its sequence, with the %s model', async (name) => {
    const { agent, turn, end } = await open(QWEN, { name, nSeqMax: 1 });
    const [first, second] = [await agent.createSession(), await agent.createSession()];
    await turn(first, LONG);
    await turn(second, LONG);
    const { text, cold, cachedTokens } = await turn(first, 'And now?');
    expect(cachedTokens).toBeGreaterThanOrEqual((await end(second)) - MARGIN);
    expect(text).toBe(cold);
  });

  it('in a session that was saved with its state and restored', async () => {
    const { agent, turn, end } = await open(QWEN, { name: 'recurrent' });
    const session = await agent.createSession();
    await turn(session, LONG);
    const path = join(await temporaryDirectory(), 'conversation.json');
    await session.save(path, { state: true });
    const reusable = await end(session);
    await session.close();
    const { text, cold, cachedTokens } = await turn(await agent.restoreSession(path), 'And now?');
    expect(cachedTokens).toBeGreaterThanOrEqual(reusable - MARGIN);
    expect(text).toBe(cold);
  });

  it('in a session that was saved after the store had no space for its whole state', async () => {
    const { agent, turn, end } = await open(QWEN, { nSeqMax: 1, maxMemoryBytes: 100_000 }); // only fits a checkpoint
    const session = await agent.createSession();
    await turn(session, LONG);
    await agent.createSession(); // evicts the first session
    const path = join(await temporaryDirectory(), 'conversation.json');
    await session.save(path, { state: true });
    const reusable = await end(session);
    const other = await open(QWEN);
    const { text, cold, cachedTokens } = await other.turn(await other.agent.restoreSession(path), 'And now?');
    expect(cachedTokens).toBeGreaterThanOrEqual(reusable - MARGIN);
    expect(text).toBe(cold);
  });

  it('after a turn that was aborted', async () => {
    const { agent, turn, end } = await open(QWEN, { name: 'sliding-window' });
    const session = await agent.createSession();
    await turn(session, LONG);
    const reusable = await end(session);
    for await (const part of session.stream('Never mind. What else is there?')) {
      expect(part.type).not.toBe('finish');
      break;
    }
    const { text, cold, cachedTokens } = await turn(session, 'And now?');
    expect(cachedTokens).toBeGreaterThanOrEqual(reusable - MARGIN);
    expect(text).toBe(cold);
  });
});

describe('the checkpoints of a session', () => {
  it.each(['hybrid', 'sliding-window'] as const)(
    'are much smaller than its whole state with the %s model',
    async (name) => {
      const { agent } = await open(QWEN, { name, nSeqMax: 1 });
      const session = await agent.createSession({ systemPrompt: LONG.repeat(5) });
      await session.send(LONG, { maxTokens: MAX_TOKENS });
      const { checkpoints, states } = agent.health();
      expect(states.byKind.conversation).toEqual({ count: checkpoints.count, bytes: checkpoints.bytes });
      await agent.createSession(); // evicts the first session
      const conversation = () => agent.health().states.byKind.conversation;
      await expect.poll(() => conversation().count).toBe(checkpoints.count + 1);
      const whole = conversation().bytes - checkpoints.bytes;
      expect(checkpoints.bytes / checkpoints.count).toBeLessThan(whole / 10);
    },
  );
});

describe('a turn of several steps', () => {
  const QWEN3 = chatTemplate('Qwen-Qwen3-0.6B');
  /** A chat template that replaces the tool results of earlier turns, as many chat templates leave out reasoning. */
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

  it('prefills each message only once', async () => {
    const { agent } = await open(QWEN3, { name: 'recurrent', tools: [look] });
    const session = await agent.createSession();
    const read: number[] = [];
    onTestFinished(subscribeDiagnostics('prefill', ({ tokens }) => read.push(tokens)));
    const { usage, toolResults } = await session.send(LONG, await options());
    expect({ steps: usage.steps, results: toolResults.length }).toEqual({ steps: 4, results: 4 });
    expect(read[0]).toBeGreaterThan(LONG_TOKENS);
    expect(Math.max(...read.slice(1))).toBeLessThan(LONG_TOKENS);
  });

  it('is prefilled again only after its first message if the chat template changes the later messages', async () => {
    expect(FORGETFUL).not.toBe(QWEN3);
    const { agent } = await open(FORGETFUL, { tools: [look] });
    const session = await agent.createSession();
    const { toolResults } = await session.send(LONG, await options());
    expect(toolResults).toHaveLength(4);
    const { usage } = await session.send('And now?', { maxTokens: MAX_TOKENS });
    expect(usage.cachedInputTokens).toBeGreaterThan(session.report.templateTokens + LONG_TOKENS);
  });
});
