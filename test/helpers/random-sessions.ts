// Programs of random calls on sessions of one agent. What each session was told, and what it came to, is written down, so that a
// session alone can be told the same.
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type AgentServer,
  type CompactionOptions,
  HeadstartError,
  type SendOptions,
  type Session,
  type Tool,
} from 'llama-headstart';
import { seededRandom } from './native.js';
import { numberedPrompt } from './prompts.js';

/** What a session was told that it is to remember. */
type Call = { kind: 'send'; message: string; options: SendOptions } | { kind: 'compact'; options: CompactionOptions };

/** How a call's outcome is told: comparable with `toEqual`. */
export type Observe = (work: () => Promise<unknown>) => Promise<unknown>;

/** A session's past: what it was told, newest first. Forks share theirs. */
interface Past {
  call: Call;
  outcome: unknown;
  before: Past | undefined;
}

interface Speaker {
  session: Session;
  /** Of its system prompt. */
  number: number;
  past: Past | undefined;
}

/** The outcome of a call that was not looked at. */
export const UNSEEN = Symbol('unseen');

/** Every session that there was, as it was left. */
export interface Story {
  number: number;
  past: Past | undefined;
}

/** Their own affair: the outcome is chance's, and the session is as before. */
const CHANCE = new Set(['ABORTED', 'CLOSED']);

/** A tool whose result says nothing of when and beside whom it ran. */
const LAMP: Tool = {
  name: 'lamp',
  parameters: {
    type: 'object',
    properties: { on: { type: 'boolean' } },
    required: ['on'],
    additionalProperties: false,
  },
  execute: async () => {
    await sleep(Math.random() * 4);
    return 'done';
  },
};

/** What most turns do without. */
const CHOICES: readonly SendOptions[] = [
  ...Array<SendOptions>(5).fill({}),
  { toolChoice: 'required', maxTokens: 60 },
  { toolChoice: 'required', maxTokens: 60, maxSteps: 2 },
  { responseFormat: { type: 'json', schema: { enum: ['red', 'green', 17] } }, maxTokens: 20 },
];

const open = (agent: AgentServer, number: number, templateCache = true): Promise<Session> =>
  agent.createSession({
    systemPrompt: numberedPrompt(number),
    tools: [LAMP],
    toolChoice: 'none',
    maxParallelTools: 1,
    templateCache,
    ...(number === 2 && { compaction: { threshold: 0.7, preserveRecent: 1, maxSummaryTokens: 8 } }),
  });

/** One program: `steps` random calls, one after the other. Run several at once. */
export async function runProgram(
  agent: AgentServer,
  { seed, steps, directory, observe }: { seed: number; steps: number; directory: string; observe: Observe },
): Promise<Story[]> {
  const random = seededRandom(seed);
  const below = (count: number) => Math.floor(random() * count);
  const number = below(3);
  const speakers: Speaker[] = [{ session: await open(agent, number), number, past: undefined }];
  const stories: Story[] = [];
  let files = 0;

  const options = (more: SendOptions = {}): SendOptions => ({
    maxTokens: 1 + below(8),
    sampling: below(2) === 0 ? { temperature: 0 } : { temperature: 0.9, seed: below(1000) },
    ...CHOICES[below(CHOICES.length)],
    ...more,
  });
  const message = () =>
    `${['Hello', 'And then', 'Why', '<|im_end|>'][below(4)]} ${below(100)}. ${'Go on. '.repeat(below(30))}`;
  const remember = (speaker: Speaker, call: Call, outcome: unknown) => {
    speaker.past = { call, outcome, before: speaker.past };
  };
  const leave = async (speaker: Speaker) => {
    speakers.splice(speakers.indexOf(speaker), 1);
    stories.push({ number: speaker.number, past: speaker.past });
    await speaker.session.close();
  };
  /** Calls after some milliseconds, in the middle of what runs. */
  const soon = (action: () => void) => void setTimeout(action, random() * 12);

  const actions: Record<string, (speaker: Speaker) => Promise<unknown>> = {
    send: (speaker) => tell(speaker, { kind: 'send', message: message(), options: options() }),
    sendAgain: (speaker) => tell(speaker, { kind: 'send', message: message(), options: options() }),
    sendTooMuch: (speaker) =>
      tell(speaker, { kind: 'send', message: 'much '.repeat(2000), options: options({ maxTokens: 4 }) }),
    compact: (speaker) =>
      tell(speaker, { kind: 'compact', options: { preserveRecent: below(3), maxSummaryTokens: 8 + below(8) } }),
    abort: async (speaker) => {
      const controller = new AbortController();
      soon(() => controller.abort());
      await tell(speaker, { kind: 'send', message: message(), options: options() }, controller.signal);
    },
    leaveStream: async (speaker) => {
      const call: Call = { kind: 'send', message: message(), options: options() };
      const parts = speaker.session.stream(call.message, call.options);
      for (let left = 1 + below(4); left > 0; left--) {
        const part = await orFull(parts.next());
        if (part === 'CONTEXT_FULL' || part.done) {
          return;
        }
        if (part.value.type === 'finish' && part.value.finishReason !== 'error') {
          remember(speaker, call, UNSEEN); // the conversation has it
        }
      }
      await parts.return();
    },
    secondTurn: async ({ session }) => {
      const first = session.stream(message(), { maxTokens: 100 });
      const part = first.next();
      await expectCode(session.send('And I'), 'SESSION_BUSY');
      await expectCode(session.fork(), 'SESSION_BUSY');
      await orFull(part);
      await first.return();
    },
    fork: async (speaker) => {
      if (speakers.length < 4) {
        const session = await speaker.session.fork();
        speakers.push({ session, number: speaker.number, past: speaker.past });
      }
    },
    keep: async (speaker) => {
      const path = join(directory, `${seed}-${files++}.json`);
      await speaker.session.save(path, { state: below(2) === 0 });
      await speaker.session.close();
      speaker.session = await agent.restoreSession(path, { tools: [LAMP], toolChoice: 'none', maxParallelTools: 1 });
      await unlink(path);
    },
    open: async () => {
      if (speakers.length < 4) {
        const other = below(3);
        speakers.push({ session: await open(agent, other), number: other, past: undefined });
      }
    },
    close: async (speaker) => {
      if (speakers.length > 1) {
        await leave(speaker);
      }
    },
    closeInTurn: async (speaker) => {
      if (speakers.length > 1) {
        const turn = expectCode(speaker.session.send(message(), { maxTokens: 200 }), 'CLOSED', 'done', 'CONTEXT_FULL');
        await sleep(random() * 8);
        await leave(speaker);
        await turn;
      }
    },
    forget: async () => {
      const session = await open(agent, below(3));
      await session.send('Hi', { maxTokens: 2 });
    },
    complete: () => agent.complete(`Once upon a time ${below(9)}`, { maxTokens: 1 + below(5) }),
    clear: () => agent.templateCache.clear(),
  };

  async function tell(speaker: Speaker, call: Call, signal?: AbortSignal): Promise<void> {
    const outcome = await observe(() => perform(speaker.session, call, signal));
    if (!isChance(outcome)) {
      remember(speaker, call, outcome);
    }
  }

  const names = Object.keys(actions);
  for (let step = 0; step < steps; step++) {
    const name = names[below(names.length)] as string;
    const speaker = speakers[below(speakers.length)] as Speaker;
    try {
      await actions[name]?.(speaker);
    } catch (error) {
      throw new Error(`${name}, step ${step} of program ${seed}`, { cause: error });
    }
  }
  while (speakers[0] !== undefined) {
    await leave(speakers[0]);
  }
  return stories;
}

/** The same calls in a session alone; the outcomes, oldest first. */
export async function retell(agent: AgentServer, { number, past }: Story, observe: Observe): Promise<unknown[]> {
  const session = await open(agent, number, false);
  const outcomes: unknown[] = [];
  for (const { call } of chronicle(past)) {
    outcomes.push(await observe(() => perform(session, call)));
  }
  await session.close();
  return outcomes;
}

/** Oldest first. */
export function chronicle(past: Past | undefined): Past[] {
  const all: Past[] = [];
  for (let each = past; each !== undefined; each = each.before) {
    all.unshift(each);
  }
  return all;
}

/** What a call gives, or the code of what it throws. */
async function perform(session: Session, call: Call, signal?: AbortSignal): Promise<unknown> {
  const more = signal && { signal };
  try {
    if (call.kind === 'compact') {
      return await session.compact({ ...call.options, ...more });
    }
    const { text, finishReason, toolCalls, toolResults, object } = await session.send(call.message, {
      ...call.options,
      ...more,
    });
    return { text, finishReason, toolCalls, toolResults, object };
  } catch (error) {
    if (HeadstartError.isInstance(error)) {
      return { code: error.code };
    }
    throw error;
  }
}

const isChance = (outcome: unknown): boolean => {
  const { code, value } = (outcome ?? {}) as { code?: string; value?: { code?: string } };
  return CHANCE.has(code ?? value?.code ?? '');
};

/** Its conversation may have grown to the end of its context. */
async function orFull<T>(work: Promise<T>): Promise<T | 'CONTEXT_FULL'> {
  try {
    return await work;
  } catch (error) {
    if (HeadstartError.isInstance(error, 'CONTEXT_FULL')) {
      return error.code as 'CONTEXT_FULL';
    }
    throw error;
  }
}

async function expectCode(work: Promise<unknown>, ...codes: string[]): Promise<void> {
  const outcome = await work.then(
    () => 'done',
    (error: { code?: string }) => error.code ?? String(error),
  );
  if (!codes.includes(outcome)) {
    throw new Error(`Expected ${codes.join(' or ')}, got ${outcome}`);
  }
}
