// Tasks that tests run in a separate process: `node child.js TASK INPUT`. INPUT and the printed result are JSON. See
// processes.ts.
import { createHash } from 'node:crypto';
import { argv, stdin, stdout } from 'node:process';
import {
  type AgentOptions,
  AgentServer,
  type Reply,
  resolveModel,
  type SendOptions,
  type SessionOptions,
} from 'llama-headstart';
import { Engine, type ModelSourceInput, type ResolveModelOptions } from 'llama-headstart/internal';
import { Lab, type LabOptions } from './lab.js';

/**
 * Starts to record a SHA-256 of all logits for each decode that chooses a token, like `exactReply` of reproducible.ts.
 * Returns the list of the hashes, which grows with each such decode.
 */
function hashLogits(): string[] {
  const hashes: string[] = [];
  const { decode } = Engine.prototype;
  Engine.prototype.decode = async function (request) {
    const decoded = await decode.call(this, { ...request, logits: true });
    const { buffer, byteOffset, byteLength } = decoded.logits as Float32Array;
    hashes.push(
      createHash('sha256')
        .update(new Uint8Array(buffer, byteOffset, byteLength))
        .digest('hex'),
    );
    return decoded;
  };
  return hashes;
}

/**
 * Runs one session. Returns the report of its start, its replies to `messages`, the hashes of the replies' logits, and
 * the cache's statistics before and after the session.
 */
async function agent(input: {
  options: AgentOptions;
  session?: SessionOptions;
  messages?: string[];
  maxTokens?: number;
}) {
  const server = await AgentServer.initialize(input.options);
  const before = server.getTemplateCacheStats();
  const session = await server.createSession(input.session);
  const logits = hashLogits(); // the template is already decoded, so only the conversation is recorded
  const texts: string[] = [];
  for (const message of input.messages ?? []) {
    texts.push((await session.send(message, { maxTokens: input.maxTokens ?? 24 })).text);
  }
  await server.flush();
  const after = server.getTemplateCacheStats();
  await server.close();
  return { report: session.report, texts, logits, before, after };
}

/**
 * Restores a session from a file and returns its replies to `messages`. Before each message, another session uses the
 * sequence.
 */
async function restored(input: { options: AgentOptions; path: string; messages: string[]; settings: SendOptions }) {
  const server = await AgentServer.initialize(input.options);
  const session = await server.restoreSession(input.path);
  const replies: { text: string; logProbabilities: Reply['logProbabilities'] | undefined }[] = [];
  for (const message of input.messages) {
    const other = await server.createSession({ systemPrompt: 'You are somebody else.' });
    await other.send('Hi', { maxTokens: 2 });
    await other.close();
    const { text, logProbabilities } = await session.send(message, input.settings);
    replies.push({ text, logProbabilities });
  }
  await server.close();
  return replies;
}

/** Starts a template of raw tokens and generates one continuation. */
async function continuation(input: { options: LabOptions; template: number[]; message: number[]; steps: number }) {
  const lab = await Lab.open(input.options);
  const { report, tokens, logits } = await lab.run(
    Int32Array.from(input.template),
    Int32Array.from(input.message),
    input.steps,
  );
  await lab.close();
  return { report, tokens, logits: logits.map((row) => [...row]) };
}

/** Deletes all entries of a cache directory and returns the number of deleted entries. */
async function empty(input: { options: LabOptions }) {
  const lab = await Lab.open(input.options);
  const { entries } = await lab.cache.prune({ maxEntries: 0 });
  await lab.close();
  return entries;
}

/** Downloads a model. */
function resolve(input: { source: ModelSourceInput; options: ResolveModelOptions }) {
  return resolveModel(input.source, input.options);
}

/**
 * Opens a cache, prints `ready`, waits for a line on stdin, then starts the template in `sessions` sequences at the
 * same time.
 */
async function together(input: {
  options: LabOptions;
  template: number[];
  message: number[];
  steps: number;
  sessions: number;
  /** The process starts this template first, so that it knows the speed of its prefill. */
  before?: number[];
}) {
  const lab = await Lab.open(input.options);
  if (input.before !== undefined) {
    await lab.start(Int32Array.from(input.before));
  }
  const decodedBefore = lab.context.counters().decodedTokens;
  await ready();
  const [template, message] = [Int32Array.from(input.template), Int32Array.from(input.message)];
  const all = await Promise.all(Array.from({ length: input.sessions }, () => lab.run(template, message, input.steps)));
  await lab.cache.flush();
  const decodedTokens = lab.context.counters().decodedTokens - decodedBefore;
  const stats = lab.cache.stats();
  await lab.close();
  return { reports: all.map(({ report }) => report), tokens: all.map(({ tokens }) => tokens), decodedTokens, stats };
}

/**
 * Prints `ready`, then saves templates until the process is killed. Each template consists of `head` and four tokens
 * that differ from template to template.
 */
async function saveForever(input: { options: LabOptions; head: number[] }) {
  const lab = await Lab.open(input.options);
  const head = Int32Array.from(input.head);
  await lab.start(head);
  await lab.cache.flush();
  stdout.write('ready\n');
  for (let seed = 0; ; seed++) {
    const template = new Int32Array(head.length + 4);
    template.set(head);
    template.set([10 + (seed % 300), 11, 12, 13], head.length);
    await lab.start(template);
    await lab.cache.flush();
  }
}

async function ready(): Promise<void> {
  stdout.write('ready\n');
  await new Promise((resolve) => stdin.once('data', resolve));
  stdin.pause();
}

const tasks = { agent, restored, continuation, empty, resolve, together, saveForever };

export type Tasks = typeof tasks;

const [, , name, input] = argv;
// JSON keeps every float32 exactly, because `JSON.stringify` writes all significant digits of a double.
stdout.write(JSON.stringify(await tasks[name as keyof Tasks](JSON.parse(input as string))));
