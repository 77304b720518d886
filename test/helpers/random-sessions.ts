// Makes random calls on the sessions of one agent. The calls of each session and their outcomes are recorded, so that a
// test can repeat the same calls in a session that runs alone.
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type AgentServer,
  type CompactionOptions,
  HeadstartError,
  type MessageInput,
  type SendOptions,
  type Session,
  type SessionOptions,
  type Tool,
} from 'llama-headstart';
import { ON } from './lamp.js';
import { seededRandom } from './native.js';
import { numberedPrompt } from './prompts.js';

/** A call that changes the conversation of a session. */
type Call = { kind: 'send'; message: string; options: SendOptions } | { kind: 'compact'; options: CompactionOptions };

/** Runs a call and returns its outcome in a form that `toEqual` can compare. */
export type Observe = (work: () => Promise<unknown>) => Promise<unknown>;

/** A recorded call. Steps are a linked list, newest first, because a fork shares the steps of its original. */
interface Step {
  call: Call;
  outcome: unknown;
  previous: Step | undefined;
}

interface OpenSession {
  session: Session;
  /** The number of the session's system prompt. */
  number: number;
  lastStep: Step | undefined;
}

/** The outcome of a call whose result was not read. */
export const NOT_OBSERVED = Symbol('not observed');

/** The calls of a closed session. */
export interface SessionHistory {
  /** The number of the session's system prompt. */
  number: number;
  lastStep: Step | undefined;
}

/**
 * Error codes that depend on timing. A call with such an error leaves the conversation unchanged, so the call is not
 * recorded.
 */
const TIMING_CODES = new Set(['ABORTED', 'CLOSED']);

/** A tool whose result depends neither on the time nor on other sessions. */
const LAMP: Tool = {
  name: 'lamp',
  parameters: ON,
  execute: async () => {
    await sleep(Math.random() * 4);
    return 'done';
  },
};

/** Additional options for a turn. Most turns have none. */
const TURN_OPTIONS: readonly SendOptions[] = [
  ...Array<SendOptions>(5).fill({}),
  { toolChoice: 'required', maxTokens: 60 },
  { toolChoice: 'required', maxTokens: 60, maxSteps: 2 },
  { responseFormat: { type: 'json', schema: { enum: ['red', 'green', 17] } }, maxTokens: 20 },
];

const MAX_SESSIONS = 4;

const open = (
  agent: AgentServer,
  number: number,
  { templateCache = true, messages = [] }: SessionOptions = {},
): Promise<Session> =>
  agent.createSession({
    messages,
    systemPrompt: numberedPrompt(number),
    tools: [LAMP],
    toolChoice: 'none',
    maxParallelTools: 1,
    templateCache,
    ...(number === 2 && { compaction: { threshold: 0.7, preserveRecent: 1, maxSummaryTokens: 8 } }),
  });

export interface ProgramOptions {
  seed: number;
  /** Number of random calls. */
  steps: number;
  /** The directory for files of saved sessions. */
  directory: string;
  observe: Observe;
  /**
   * Whether to open sessions with the messages of other sessions. Such a session decodes these messages in other
   * batches than the original session. In `reproducible` mode, the last digits of its logits therefore differ.
   */
  copies: boolean;
}

/** Runs one program: random calls, one after another. A test runs several programs at the same time. */
export function runProgram(agent: AgentServer, options: ProgramOptions): Promise<SessionHistory[]> {
  return new RandomProgram(agent, options).run();
}

class RandomProgram {
  readonly #agent: AgentServer;
  readonly #options: ProgramOptions;
  readonly #random: () => number;
  readonly #sessions: OpenSession[] = [];
  readonly #histories: SessionHistory[] = [];
  #fileCount = 0;

  constructor(agent: AgentServer, options: ProgramOptions) {
    this.#agent = agent;
    this.#options = options;
    this.#random = seededRandom(options.seed);
  }

  async run(): Promise<SessionHistory[]> {
    const number = this.#below(3);
    this.#sessions.push({ session: await open(this.#agent, number), number, lastStep: undefined });
    const names = Object.keys(this.#actions);
    for (let step = 0; step < this.#options.steps; step++) {
      const name = names[this.#below(names.length)] as string;
      const target = this.#sessions[this.#below(this.#sessions.length)] as OpenSession;
      try {
        await this.#actions[name]?.(target);
      } catch (error) {
        throw new Error(`The call ${name} failed in step ${step} of program ${this.#options.seed}`, { cause: error });
      }
    }
    while (this.#sessions[0] !== undefined) {
      await this.#close(this.#sessions[0]);
    }
    return this.#histories;
  }

  readonly #actions: Record<string, (target: OpenSession) => Promise<unknown>> = {
    send: (target) => this.#call(target, this.#randomSend()),
    sendAgain: (target) => this.#call(target, this.#randomSend()),
    sendTooMuch: (target) =>
      this.#call(target, { kind: 'send', message: 'much '.repeat(2000), options: this.#turnOptions({ maxTokens: 4 }) }),
    compact: (target) => {
      const options = { preserveRecent: this.#below(3), maxSummaryTokens: 8 + this.#below(8) };
      return this.#call(target, { kind: 'compact', options });
    },
    abort: async (target) => {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), this.#random() * 12);
      await this.#call(target, this.#randomSend(), controller.signal);
    },
    leaveStream: (target) => this.#leaveStream(target),
    secondTurn: ({ session }) => this.#startSecondTurn(session),
    fork: async ({ session, number, lastStep }) => {
      if (this.#sessions.length < MAX_SESSIONS) {
        this.#sessions.push({ session: await session.fork(), number, lastStep });
      }
    },
    copy: async ({ session, number, lastStep }) => {
      if (this.#options.copies && this.#sessions.length < MAX_SESSIONS) {
        const copy = await open(this.#agent, number, { messages: session.messages as MessageInput[] });
        this.#sessions.push({ session: copy, number, lastStep });
      }
    },
    saveAndRestore: (target) => this.#saveAndRestore(target),
    open: async () => {
      if (this.#sessions.length < MAX_SESSIONS) {
        const number = this.#below(3);
        this.#sessions.push({ session: await open(this.#agent, number), number, lastStep: undefined });
      }
    },
    close: async (target) => {
      if (this.#sessions.length > 1) {
        await this.#close(target);
      }
    },
    closeDuringTurn: (target) => this.#closeDuringTurn(target),
    dropWithoutClosing: async () => {
      const session = await open(this.#agent, this.#below(3));
      await session.send('Hi', { maxTokens: 2 });
    },
    complete: () => this.#agent.complete(`Once upon a time ${this.#below(9)}`, { maxTokens: 1 + this.#below(5) }),
    clear: () => this.#agent.templateCache.clear(),
  };

  async #leaveStream(target: OpenSession): Promise<void> {
    const call = this.#randomSend();
    const parts = target.session.stream(call.message, call.options)[Symbol.asyncIterator]();
    for (let left = 1 + this.#below(4); left > 0; left--) {
      const part = await orContextFull(parts.next());
      if (part === 'CONTEXT_FULL' || part.done) {
        return;
      }
      if (part.value.type === 'finish') {
        record(target, call, NOT_OBSERVED); // the turn is part of the conversation
      }
    }
    await parts.return?.();
  }

  async #startSecondTurn(session: Session): Promise<void> {
    const first = session.stream(this.#message(), { maxTokens: 100 })[Symbol.asyncIterator]();
    const part = first.next();
    await expectCode(session.send('And I'), 'SESSION_BUSY');
    await expectCode(session.fork(), 'SESSION_BUSY');
    await orContextFull(part);
    await first.return?.();
  }

  async #saveAndRestore(target: OpenSession): Promise<void> {
    const path = join(this.#options.directory, `${this.#options.seed}-${this.#fileCount++}.json`);
    await target.session.save(path, { state: this.#below(2) === 0 });
    await target.session.close();
    const options = { tools: [LAMP], toolChoice: 'none', maxParallelTools: 1 } as const;
    target.session = await this.#agent.restoreSession(path, options);
    await unlink(path);
  }

  async #closeDuringTurn(target: OpenSession): Promise<void> {
    if (this.#sessions.length > 1) {
      const sent = target.session.send(this.#message(), { maxTokens: 200 });
      const turn = expectCode(sent, 'CLOSED', 'done', 'CONTEXT_FULL');
      await sleep(this.#random() * 8);
      await this.#close(target);
      await turn;
    }
  }

  async #call(target: OpenSession, call: Call, signal?: AbortSignal): Promise<void> {
    const outcome = await this.#options.observe(() => perform(target.session, call, signal));
    if (!dependsOnTiming(outcome)) {
      record(target, call, outcome);
    }
  }

  async #close(target: OpenSession): Promise<void> {
    this.#sessions.splice(this.#sessions.indexOf(target), 1);
    this.#histories.push({ number: target.number, lastStep: target.lastStep });
    await target.session.close();
  }

  #randomSend(): Extract<Call, { kind: 'send' }> {
    return { kind: 'send', message: this.#message(), options: this.#turnOptions() };
  }

  #turnOptions(more: SendOptions = {}): SendOptions {
    return {
      maxTokens: 1 + this.#below(8),
      sampling: this.#below(2) === 0 ? { temperature: 0 } : { temperature: 0.9, seed: this.#below(1000) },
      ...TURN_OPTIONS[this.#below(TURN_OPTIONS.length)],
      ...more,
    };
  }

  #message(): string {
    const start = ['Hello', 'And then', 'Why', '<|im_end|>'][this.#below(4)];
    return `${start} ${this.#below(100)}. ${'Go on. '.repeat(this.#below(30))}`;
  }

  /** Returns a random whole number from 0 to `count` - 1. */
  #below(count: number): number {
    return Math.floor(this.#random() * count);
  }
}

/** Repeats the calls of a history in a new session. Returns their outcomes, oldest first. */
export async function replay(agent: AgentServer, history: SessionHistory, observe: Observe): Promise<unknown[]> {
  const session = await open(agent, history.number, { templateCache: false });
  const outcomes: unknown[] = [];
  for (const { call } of stepsOf(history)) {
    outcomes.push(await observe(() => perform(session, call)));
  }
  await session.close();
  return outcomes;
}

/** Returns the steps of a history, oldest first. */
export function stepsOf({ lastStep }: SessionHistory): Step[] {
  const steps: Step[] = [];
  for (let step = lastStep; step !== undefined; step = step.previous) {
    steps.unshift(step);
  }
  return steps;
}

function record(target: OpenSession, call: Call, outcome: unknown): void {
  target.lastStep = { call, outcome, previous: target.lastStep };
}

/** Makes a call and returns its result, or the code of the error that the call throws. */
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

const dependsOnTiming = (outcome: unknown): boolean => {
  const { code, value } = (outcome ?? {}) as { code?: string; value?: { code?: string } };
  return TIMING_CODES.has(code ?? value?.code ?? '');
};

/** Returns the result, or 'CONTEXT_FULL' for an error with this code. A random conversation may fill its context. */
async function orContextFull<T>(work: Promise<T>): Promise<T | 'CONTEXT_FULL'> {
  try {
    return await work;
  } catch (error) {
    if (HeadstartError.isInstance(error, 'CONTEXT_FULL')) {
      return 'CONTEXT_FULL';
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
