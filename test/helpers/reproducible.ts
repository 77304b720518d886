// Runs many sessions at the same time in `reproducible` mode and records their logits. A test can then compare each
// session with the same session running alone, down to the last bit.
import { AsyncLocalStorage } from 'node:async_hooks';
import { createHash } from 'node:crypto';
import type { AgentServer, Session } from 'llama-headstart';
import { ConversationSequence, type StateSource } from 'llama-headstart/internal';
import { seededRandom } from './native.js';
import { numberedPrompt } from './prompts.js';

const MAX_TOKENS = 10;

/** A reply with hashes of its logits. */
export interface ExactReply {
  text: string;
  /** For each decode that chose a token: the SHA-256 of the bytes of all logits. */
  logits: string[];
}

/** The result of a decode that chose a token. */
export interface Row {
  logits: Float32Array;
  token: number;
}

/** Receives the logits of the decodes of the current turn. */
const recorder = new AsyncLocalStorage<(logits: Float32Array, token: number) => void>();

// Sessions do not return logits. This wrapper requests the logits of every decode of a session.
const { decode } = ConversationSequence.prototype;
ConversationSequence.prototype.decode = async function (tokensFrom, choice) {
  const decoded = await decode.call(this, tokensFrom, { ...choice, logits: true });
  recorder.getStore()?.(decoded.logits as Float32Array, decoded.token);
  return decoded;
};

/** Runs a turn and returns its text with the hashes of its logits. */
export async function exactReply(work: () => Promise<{ text: string }>): Promise<ExactReply> {
  const { value, logits } = await withLogits(work);
  return { text: value.text, logits };
}

/** Runs work that decodes in sessions. Returns its result, and a hash of the logits for every chosen token. */
export async function withLogits<T>(work: () => Promise<T>): Promise<{ value: T; logits: string[] }> {
  const logits: string[] = [];
  const onLogits = ({ buffer, byteOffset, byteLength }: Float32Array) => {
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    logits.push(createHash('sha256').update(bytes).digest('hex'));
  };
  return { value: await recorder.run(onLogits, work), logits };
}

/** Like {@link withLogits}, but returns the logits themselves and the chosen tokens. */
export async function withRows<T>(work: () => Promise<T>): Promise<{ value: T; rows: Row[] }> {
  const rows: Row[] = [];
  return { value: await recorder.run((logits, token) => rows.push({ logits, token }), work), rows };
}

/** Runs work of another session inside a recorded turn, without recording its logits. */
export function withoutRecording<T>(work: () => Promise<T>): Promise<T> {
  return recorder.exit(work);
}

/** Runs a turn and returns the logits of its first token. */
export async function firstLogits(work: () => Promise<unknown>): Promise<Float32Array> {
  return (await withRows(work)).rows[0]?.logits as Float32Array;
}

/** Opens session `number` with one of three system prompts, so that sessions share templates. */
export function openNumbered(agent: AgentServer, number: number, templateCache = true): Promise<Session> {
  return agent.createSession({ systemPrompt: numberedPrompt(number % 3), templateCache });
}

/** Returns the message of session `number` in a turn. */
export const numberedMessage = (number: number, turn = 0): string =>
  `${turn === 0 ? 'Hello' : 'And then'}, my number is ${number}. ${'Go on. '.repeat(number % 7)}`;

/** Returns the numbers from 0 to `count` - 1 in a pseudo-random order. */
export function shuffled(count: number, seed: number): number[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, (_, number) => ({ number, rank: random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ number }) => number);
}

/** Runs a turn of session `number`. Sessions with even numbers are greedy. Other sessions sample with a seed. */
export function exactTurn(session: Session, number: number, turn: number, signal?: AbortSignal): Promise<ExactReply> {
  const sampling = number % 2 === 0 ? { temperature: 0 } : { temperature: 0.9, seed: number };
  const options = { maxTokens: MAX_TOKENS, sampling, ...(signal && { signal }) };
  return exactReply(() => session.send(numberedMessage(number, turn), options));
}

/** Runs the turns of each session, one session after another. Returns the replies by session, then by turn. */
export async function runSequentially(
  agent: AgentServer,
  count: number,
  turns: number,
  onDone: (done: number) => void = () => undefined,
): Promise<ExactReply[][]> {
  const all: ExactReply[][] = [];
  for (let number = 0; number < count; number++) {
    const session = await openNumbered(agent, number, false);
    const replies: ExactReply[] = [];
    for (let turn = 0; turn < turns; turn++) {
      replies.push(await exactTurn(session, number, turn));
    }
    await session.close();
    all.push(replies);
    onDone(number + 1);
  }
  return all;
}

export interface ConcurrentRun {
  /** The replies by session, then by turn. */
  replies: ExactReply[][];
  /** The sources of the sessions' templates. */
  sources: Set<StateSource>;
  /** The largest `savedBytes` of `agent.health()` between two turns. */
  savedBytes: number;
}

/** Runs one turn of all sessions at the same time, then the next turn. Sessions that wait may lose their KV cells. */
export async function runConcurrently(
  agent: AgentServer,
  count: number,
  turns: number,
  seed: number,
  onDone: (done: number) => void = () => undefined,
): Promise<ConcurrentRun> {
  const order = shuffled(count, seed);
  const sessions = new Map<number, Session>();
  await Promise.all(order.map(async (number) => sessions.set(number, await openNumbered(agent, number))));
  const all: ExactReply[][] = Array.from({ length: count }, () => []);
  let done = 0;
  let savedBytes = 0;
  for (let turn = 0; turn < turns; turn++) {
    const run = async (number: number) => {
      (all[number] as ExactReply[]).push(await exactTurn(sessions.get(number) as Session, number, turn));
      onDone(++done);
    };
    await Promise.all((turn % 2 === 0 ? order : [...order].reverse()).map(run));
    savedBytes = Math.max(savedBytes, agent.health().savedBytes);
  }
  const sources = new Set([...sessions.values()].map(({ report }) => report.source));
  await Promise.all([...sessions.values()].map((session) => session.close()));
  return { replies: all, sources, savedBytes };
}
