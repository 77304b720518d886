// Many sessions at once in `reproducible` mode, each to be compared with itself alone.
import type { AgentServer, Reply, Session } from 'llama-headstart';
import { seededRandom } from './native.js';
import { numberedPrompt } from './prompts.js';

/** Enough likely tokens to tell any other logits apart, and few enough to compare. */
const LIKELY = 5;
const MAX_TOKENS = 10;

/** What a reply is down to its last bit. */
export interface ExactReply {
  text: string;
  logProbabilities: Reply['logProbabilities'];
}

/** Three system prompts, so that sessions share templates; a greedy and a seeded half. */
export function openNumbered(agent: AgentServer, number: number, templateCache = true): Promise<Session> {
  return agent.createSession({ systemPrompt: numberedPrompt(number % 3), templateCache });
}

/** A turn of session `number`. */
export async function exactTurn(session: Session, number: number, turn: number): Promise<ExactReply> {
  const sampling = number % 2 === 0 ? { temperature: 0 } : { temperature: 0.9, seed: number };
  const message = `${turn === 0 ? 'Hello' : 'And then'}, my number is ${number}. ${'Go on. '.repeat(number % 7)}`;
  const reply = await session.send(message, { maxTokens: MAX_TOKENS, sampling, logProbabilities: LIKELY });
  return { text: reply.text, logProbabilities: reply.logProbabilities };
}

/** Each session's turns, one session after the other. */
export async function oneAfterTheOther(agent: AgentServer, count: number, turns: number): Promise<ExactReply[][]> {
  const all: ExactReply[][] = [];
  for (let number = 0; number < count; number++) {
    const session = await openNumbered(agent, number, false);
    const replies: ExactReply[] = [];
    for (let turn = 0; turn < turns; turn++) {
      replies.push(await exactTurn(session, number, turn));
    }
    await session.close();
    all.push(replies);
  }
  return all;
}

/** All sessions at once, in an order of the seed's, a turn of all after a turn of all: those in between lose their cells. */
export async function allAtOnce(
  agent: AgentServer,
  count: number,
  turns: number,
  seed: number,
): Promise<ExactReply[][]> {
  const random = seededRandom(seed);
  const order = Array.from({ length: count }, (_, number) => ({ number, place: random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ number }) => number);
  const sessions = new Map<number, Session>();
  await Promise.all(order.map(async (number) => sessions.set(number, await openNumbered(agent, number))));
  const all: ExactReply[][] = Array.from({ length: count }, () => []);
  for (let turn = 0; turn < turns; turn++) {
    const run = async (number: number) =>
      (all[number] as ExactReply[]).push(await exactTurn(sessions.get(number) as Session, number, turn));
    await Promise.all((turn % 2 === 0 ? order : [...order].reverse()).map(run));
  }
  await Promise.all([...sessions.values()].map((session) => session.close()));
  return all;
}
