// Many sessions at once in `reproducible` mode, each to be compared with itself alone, down to the bits of the logits.
import { AsyncLocalStorage } from 'node:async_hooks';
import { createHash } from 'node:crypto';
import type { AgentServer, Session, Tier } from 'llama-headstart';
import { ConversationSequence } from '../../lib/session/conversation-sequence.js';
import { seededRandom } from './native.js';
import { numberedPrompt } from './prompts.js';

const MAX_TOKENS = 10;

/** What a reply is down to its last bit. */
export interface ExactReply {
  text: string;
  /** Of each decode that chose a token: SHA-256 of the bytes of all logits. */
  logits: string[];
}

/** Of a decode that chose a token. */
export interface Row {
  logits: Float32Array;
  token: number;
}

/** Where the turn that a decode belongs to wants its logits. */
const turns = new AsyncLocalStorage<(logits: Float32Array, token: number) => void>();

// Sessions tell no logits: here each decode of theirs asks for them too.
const { decode } = ConversationSequence.prototype;
ConversationSequence.prototype.decode = async function (tokensFrom, choice) {
  const decoded = await decode.call(this, tokensFrom, { ...choice, logits: true });
  turns.getStore()?.(decoded.logits as Float32Array, decoded.token);
  return decoded;
};

/** Runs a turn, and tells the logits of every token of its reply. */
export async function exactly(work: () => Promise<{ text: string }>): Promise<ExactReply> {
  const { value, logits } = await withLogits(work);
  return { text: value.text, logits };
}

/** Runs what decodes in sessions, and tells the logits of every token that it chose. */
export async function withLogits<T>(work: () => Promise<T>): Promise<{ value: T; logits: string[] }> {
  const logits: string[] = [];
  const onLogits = ({ buffer, byteOffset, byteLength }: Float32Array) => {
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    logits.push(createHash('sha256').update(bytes).digest('hex'));
  };
  return { value: await turns.run(onLogits, work), logits };
}

/** The same with the logits themselves, and the tokens that were chosen. */
export async function withRows<T>(work: () => Promise<T>): Promise<{ value: T; rows: Row[] }> {
  const rows: Row[] = [];
  return { value: await turns.run((logits, token) => rows.push({ logits, token }), work), rows };
}

/** Runs inside of a turn what is not its own: nobody is told those logits. */
export function aside<T>(work: () => Promise<T>): Promise<T> {
  return turns.exit(work);
}

/** Runs a turn, and gives the logits of its first token. */
export async function firstLogits(work: () => Promise<unknown>): Promise<Float32Array> {
  return (await withRows(work)).rows[0]?.logits as Float32Array;
}

/** Three system prompts, so that sessions share templates; a greedy and a seeded half. */
export function openNumbered(agent: AgentServer, number: number, templateCache = true): Promise<Session> {
  return agent.createSession({ systemPrompt: numberedPrompt(number % 3), templateCache });
}

/** What session `number` says in a turn. */
export const numberedMessage = (number: number, turn = 0): string =>
  `${turn === 0 ? 'Hello' : 'And then'}, my number is ${number}. ${'Go on. '.repeat(number % 7)}`;

/** The numbers below `count`, in an order of the seed's. */
export function shuffled(count: number, seed: number): number[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, (_, number) => ({ number, place: random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ number }) => number);
}

/** A turn of session `number`. */
export function exactTurn(session: Session, number: number, turn: number, signal?: AbortSignal): Promise<ExactReply> {
  const sampling = number % 2 === 0 ? { temperature: 0 } : { temperature: 0.9, seed: number };
  const options = { maxTokens: MAX_TOKENS, sampling, ...(signal && { signal }) };
  return exactly(() => session.send(numberedMessage(number, turn), options));
}

/** Each session's turns, one session after the other. */
export async function oneAfterTheOther(
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

export interface AllAtOnce {
  /** By session, then by turn. */
  replies: ExactReply[][];
  /** Where their templates came from. */
  tiers: Set<Tier>;
  /** Of states that were there for those without a sequence, between two turns: bytes. */
  savedBytes: number;
}

/** All sessions at once, in an order of the seed's, a turn of all after a turn of all: those in between lose their cells. */
export async function allAtOnce(
  agent: AgentServer,
  count: number,
  turns: number,
  seed: number,
  onDone: (done: number) => void = () => undefined,
): Promise<AllAtOnce> {
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
  const tiers = new Set([...sessions.values()].map(({ report }) => report.tier));
  await Promise.all([...sessions.values()].map((session) => session.close()));
  return { replies: all, tiers, savedBytes };
}
