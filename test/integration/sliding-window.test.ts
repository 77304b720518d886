// The cells of a sliding window are few, and those that sessions share are not freed while they are near them: they have a
// budget of their own, so that no running session ever runs out of them.
import type { AgentServer, Session } from 'llama-headstart';
import { windowCells } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type AgentSettings, EXACT, NOTHING_HELD, replies, startAgent } from '../helpers/agents.js';
import { someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { numberedPrompt } from '../helpers/prompts.js';

/** Of the micro model, tokens. */
const WINDOW = 64;
/** No cell to spare: the cache of the window has 512, a window for each of seven sequences and 64 for a micro-batch. */
const SETTINGS = {
  ...EXACT,
  name: 'sliding-window',
  reuse: 'exact',
  nSeqMax: 6,
  maxResidentTemplates: 1,
  batchSize: 64,
  contextSize: 4096,
  kvCells: 16_384,
} as const satisfies AgentSettings;
/** With its reply it fills the window, and no cell of it is free again. */
const FITTING = 'Is the workshop open today, and until when? Say it in a few words.';
/** Far past the window. */
const LONG = 'Is the workshop open today, and until when? '.repeat(12);
const MESSAGES = [FITTING, LONG, 'And tomorrow?'];
const MAX_TOKENS = 8;
/** What company may move of a log-probability, and more. */
const TIE = 0.02;

interface Turn {
  text: string;
  /** Tokens that were decoded for it. */
  decoded: number;
}

interface ColdRun {
  systemPrompt: string;
  turns: Turn[];
}

let known: Promise<ColdRun[]> | undefined;

/** Four system prompts, and what sessions with them say alone and cold. */
function coldRuns(): Promise<ColdRun[]> {
  known ??= (async () => {
    const found: ColdRun[] = [];
    for (let number = 1; found.length < 4; number++) {
      const systemPrompt = numberedPrompt(number);
      const turns = await coldTurns(systemPrompt);
      if (turns !== undefined) {
        found.push({ systemPrompt, turns });
      }
    }
    return found;
  })();
  return known;
}

/** Undefined where a choice is a tie, or the next prompt spells a reply with other tokens than it was made of. */
async function coldTurns(systemPrompt: string): Promise<Turn[] | undefined> {
  const agent = await startAgent({ ...SETTINGS, systemPrompt });
  const session = await agent.createSession({ templateCache: false });
  const turns: Turn[] = [];
  let held = 0;
  for (const message of MESSAGES) {
    const before = agent.health().decodedTokens;
    const {
      text,
      usage,
      logProbabilities = [],
    } = await session.send(message, {
      maxTokens: MAX_TOKENS,
      logProbabilities: 2,
    });
    turns.push({ text, decoded: agent.health().decodedTokens - before });
    const isTie = logProbabilities.some(
      ({ likely: [a, b] }) => (a?.logProbability ?? 0) - (b?.logProbability ?? 0) < TIE,
    );
    if (isTie || usage.cachedInputTokens < held) {
      return undefined;
    }
    held = usage.inputTokens + usage.outputTokens - 1;
  }
  return turns;
}

/** All of them at the same time, each with all messages from `from` on: what each said. */
function converse(sessions: readonly Session[], from = 0): Promise<string[][]> {
  return Promise.all(sessions.map((session) => replies(session, MESSAGES.slice(from), MAX_TOKENS)));
}

/** The same, and nobody had to give its cells back and begin again: that would have been decoded twice. */
async function converseUndisturbed(
  agent: AgentServer,
  sessions: readonly Session[],
  cold: readonly ColdRun[],
  from = 0,
) {
  const before = agent.health().decodedTokens;
  const expected = cold.map(({ turns }) => turns.slice(from));
  expect(await converse(sessions, from)).toEqual(expected.map((turns) => turns.map(({ text }) => text)));
  const decoded = expected.flat().reduce((total, turn) => total + turn.decoded, 0);
  expect(agent.health().decodedTokens - before).toBe(decoded);
}

async function closeAll(agent: AgentServer, sessions: readonly Session[]): Promise<void> {
  await Promise.all(sessions.map((session) => session.close()));
  await agent.templateCache.clear();
  expect(agent.health()).toMatchObject(NOTHING_HELD);
}

describe('sessions on a sliding window', () => {
  it('of more templates than places stay open past the window while those leave: each says what it says alone', async () => {
    const agent = await startAgent(SETTINGS);
    const cold = (await coldRuns()).slice(0, 3).flatMap((run) => [run, run]);
    const sessions: Session[] = [];
    for (const { systemPrompt } of cold) {
      const session = await agent.createSession({ systemPrompt });
      await replies(session, MESSAGES.slice(0, 1), MAX_TOKENS);
      sessions.push(session);
    }
    expect(agent.health().heldSequences).toBe(6); // none was idle and lost its cells to another
    await converseUndisturbed(agent, sessions, cold, 1);
    expect(agent.health().heldSequences).toBe(6);
    await closeAll(agent, sessions);
  });

  it('that come and go, as their templates do, never fail for want of cells', async () => {
    const agent = await startAgent({ ...SETTINGS, maxResidentTemplates: 2, nSeqMax: 5 });
    const cold = await coldRuns();
    const open: Session[] = [];
    for (let round = 0; round < 5; round++) {
      const chosen = [cold[round % 4], cold[round % 4], cold[(round + 1) % 4]] as ColdRun[];
      const begun = await Promise.all(chosen.map(({ systemPrompt }) => agent.createSession({ systemPrompt })));
      expect(await converse(begun)).toEqual(chosen.map(({ turns }) => turns.map(({ text }) => text)));
      open.push(...begun);
      await Promise.all(open.splice(0, open.length - 4).map((session) => session.close()));
    }
    await closeAll(agent, open);
  });

  it('that were forked share cells while there are any, and go on from a copy where there are none', async () => {
    const agent = await startAgent(SETTINGS);
    const [cold] = await coldRuns();
    const first = await agent.createSession({ systemPrompt: cold?.systemPrompt as string });
    await replies(first, MESSAGES.slice(0, 1), MAX_TOKENS);
    const forks = [await first.fork(), await first.fork(), await first.fork()];
    expect(forks.map(({ report }) => report.source)).toContain('memory');
    const sessions = [first, ...forks];
    await converseUndisturbed(agent, sessions, Array(4).fill(cold), 1);
    await closeAll(agent, sessions);
  });
});

describe('resident templates on a sliding window', () => {
  it('all stay, beside sessions far beyond the window, however they take turns', async () => {
    const settings = { ...EXACT, name: 'sliding-window', reuse: 'exact', nSeqMax: 3, maxResidentTemplates: 4 } as const;
    const agent = await startAgent(settings);
    const prompts = [1, 2, 3, 4].map(numberedPrompt);
    /** How likely the first token is: company moves its last digits, a cell too few would move it far. */
    const firstOf = async (session: Session) => {
      const { logProbabilities } = await session.send(LONG, { maxTokens: 80, logProbabilities: 1 });
      await session.close();
      return logProbabilities?.[0]?.logProbability ?? Number.NaN;
    };
    const expected: number[] = [];
    for (const systemPrompt of prompts) {
      const alone = await startAgent({ ...settings, systemPrompt });
      expected.push(await firstOf(await alone.createSession({ templateCache: false })));
    }
    for (const round of [0, 1, 2]) {
      const found = await Promise.all(
        prompts.map(async (systemPrompt) => {
          const session = await agent.createSession({ systemPrompt });
          expect(session.report.source).toBe(round === 0 ? 'prefill' : 'resident');
          expect(session.report.templateTokens).toBeGreaterThan(WINDOW);
          return firstOf(session);
        }),
      );
      for (const [index, value] of found.entries()) {
        expect(value).toBeCloseTo(expected[index] as number, 1);
      }
    }
    expect(agent.getTemplateCacheStats()).toMatchObject({ residentTemplates: 4, evictions: { resident: 0 } });
  });

  it('leave, or are none, while sessions share too much of those that have left; later they are again', async () => {
    const agent = await startAgent(SETTINGS);
    const open: Session[] = [];
    const sourceOf = async (number: number) => {
      const session = await agent.createSession({ systemPrompt: numberedPrompt(number) });
      open.push(session);
      return session.report.source;
    };
    expect([await sourceOf(1), await sourceOf(1)]).toEqual(['prefill', 'resident']);
    expect([await sourceOf(2), await sourceOf(2)]).toEqual(['prefill', 'memory']); // the cells of 1 would stay with its sessions
    expect(await sourceOf(1)).toBe('resident');
    await Promise.all(open.splice(0).map((session) => session.close()));
    expect([await sourceOf(2), await sourceOf(2)]).toEqual(['memory', 'resident']); // nobody shares those of 1 any more
    await Promise.all(open.map((session) => session.send(LONG, { maxTokens: 1 })));
    expect([await sourceOf(3), await sourceOf(3)]).toEqual(['prefill', 'resident']); // those of 2 are far behind its sessions
    await closeAll(agent, open);
  });
});

describe('the size of the cache of a window', () => {
  it.each([
    { maxSequences: 6, batchSize: 64, kvCells: 4096 },
    { maxSequences: 7, batchSize: 64, kvCells: 4096 },
    { maxSequences: 8, batchSize: 200, kvCells: 1000 },
    { maxSequences: 8, batchSize: 64, kvCells: 512 },
  ])('is as llama.cpp makes it: $maxSequences sequences, batches of $batchSize, $kvCells cells', async (options) => {
    const model = await Model.load({ path: microModel('sliding-window') });
    const context = await model.createContext({ ...options, nThreads: 1, maxOutputs: options.maxSequences });
    onTestFinished(async () => {
      await context.close();
      await model.close();
    });
    expect(model.info.slidingWindow).toBe(WINDOW);
    /** Decodes single tokens into a sequence until there is no room, or enough. */
    const fill = async (sequence: number, most: number) => {
      for (let position = 0; position < most; position++) {
        const batch = {
          tokens: someTokens(1, position + 1),
          positions: Int32Array.of(position),
          sequences: Int32Array.of(sequence),
          outputs: Uint8Array.of(1),
        };
        const full = await context.decode(batch).then(
          () => false,
          (error) => error.code === 'NO_KV_SLOT',
        );
        if (full) {
          return position;
        }
      }
      return most;
    };
    // What two sequences hold is not freed by moving on.
    const size = windowCells(context);
    const pairs = options.maxSequences >> 1;
    let filled = 0;
    for (let pair = 0; pair < pairs; pair++) {
      const isLast = pair === pairs - 1; // it finds less than a window
      filled += await fill(2 * pair, isLast ? size : Math.floor((size - WINDOW / 2) / (pairs - 1)));
      await context.copySequence(2 * pair, 2 * pair + 1);
    }
    expect(filled).toBe(size);
  });
});
