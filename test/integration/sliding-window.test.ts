// The cache of a sliding window has few cells. Cells that several sequences share are not freed when one sequence moves
// on. A separate budget limits the shared cells, so that a running session always gets the cells that it needs.
import type { AgentServer, Session } from 'llama-headstart';
import { windowCells } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type AgentSettings, EXACT, NOTHING_HELD, replies, startAgent } from '../helpers/agents.js';
import { someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { numberedPrompt } from '../helpers/prompts.js';
import { rounds } from '../helpers/soak.js';

/** The size of the micro model's window, in tokens. */
const WINDOW = 64;
/** The window cache has 512 cells: 64 for each of seven sequences, and 64 for a micro-batch. No cell is left over. */
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
/** A message that fills the window together with its reply, but frees no cell. */
const FITTING = 'Is the workshop open today, and until when? Say it in a few words.';
/** A message that is much longer than the window. */
const LONG = 'Is the workshop open today, and until when? '.repeat(6);
const MESSAGES = [FITTING, LONG, 'And tomorrow?'];
const MAX_TOKENS = 8;
/** Other sequences in a batch change a log-probability by less than this. */
const TIE = 0.02;

interface Turn {
  text: string;
  /** The number of tokens that this turn decoded. */
  decoded: number;
}

interface ColdRun {
  systemPrompt: string;
  turns: Turn[];
}

let coldRunsOnce: Promise<ColdRun[]> | undefined;

/** Returns four system prompts, each with the turns of a session that runs alone and without the cache. */
function coldRuns(): Promise<ColdRun[]> {
  coldRunsOnce ??= (async () => {
    const runs: ColdRun[] = [];
    for (let number = 1; runs.length < 4; number++) {
      const systemPrompt = numberedPrompt(number);
      const turns = await coldTurns(systemPrompt);
      if (turns !== undefined) {
        runs.push({ systemPrompt, turns });
      }
    }
    return runs;
  })();
  return coldRunsOnce;
}

/**
 * Returns the turns of a session that runs alone and without the cache. Returns undefined if two tokens are almost
 * equally likely, or if the next prompt tokenizes a reply differently from the sampled tokens.
 */
async function coldTurns(systemPrompt: string): Promise<Turn[] | undefined> {
  const agent = await startAgent({ ...SETTINGS, systemPrompt });
  const session = await agent.createSession({ templateCache: false });
  const turns: Turn[] = [];
  let processed = 0;
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
    if (isTie || usage.cachedInputTokens < processed) {
      return undefined;
    }
    processed = usage.inputTokens + usage.outputTokens - 1;
  }
  return turns;
}

/** Runs the sessions at the same time, with all messages from index `from` on. Returns the replies of each session. */
function converse(sessions: readonly Session[], from = 0): Promise<string[][]> {
  return Promise.all(sessions.map((session) => replies(session, MESSAGES.slice(from), MAX_TOKENS)));
}

/**
 * Like {@link converse}. Also checks that no session lost its cells: a session that lost them decodes tokens twice.
 * Sessions that send the same message at the same time may decode it only once.
 */
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
  expect(agent.health().decodedTokens - before).toBeLessThanOrEqual(decoded);
}

async function closeAll(agent: AgentServer, sessions: readonly Session[]): Promise<void> {
  await Promise.all(sessions.map((session) => session.close()));
  await agent.templateCache.clear();
  expect(agent.health()).toMatchObject(NOTHING_HELD);
}

describe('sessions of a sliding-window model', () => {
  it('keep their cells and reply as they do alone, even with more templates than resident sequences', async () => {
    const agent = await startAgent(SETTINGS);
    const cold = (await coldRuns()).slice(0, 3).flatMap((run) => [run, run]);
    const sessions: Session[] = [];
    for (const { systemPrompt } of cold) {
      const session = await agent.createSession({ systemPrompt });
      await replies(session, MESSAGES.slice(0, 1), MAX_TOKENS);
      sessions.push(session);
    }
    expect(agent.health().heldSequences).toBe(6); // no idle session lost its sequence
    await converseUndisturbed(agent, sessions, cold, 1);
    expect(agent.health().heldSequences).toBe(6);
    await closeAll(agent, sessions);
  });

  it('that are opened and closed with changing templates always get enough cells', async () => {
    const agent = await startAgent({ ...SETTINGS, maxResidentTemplates: 2, nSeqMax: 5 });
    const cold = await coldRuns();
    const open: Session[] = [];
    for (let round = 0; round < rounds(3, 5); round++) {
      const chosen = [cold[round % 4], cold[round % 4], cold[(round + 1) % 4]] as ColdRun[];
      const started = await Promise.all(chosen.map(({ systemPrompt }) => agent.createSession({ systemPrompt })));
      expect(await converse(started)).toEqual(chosen.map(({ turns }) => turns.map(({ text }) => text)));
      open.push(...started);
      await Promise.all(open.splice(0, open.length - 4).map((session) => session.close()));
    }
    await closeAll(agent, open);
  });

  it('that were forked share cells while enough cells are free, and otherwise continue from a copy', async () => {
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

describe('resident templates of a sliding-window model', () => {
  it('stay resident while sessions decode far more tokens than the window holds', async () => {
    const settings = { ...EXACT, name: 'sliding-window', reuse: 'exact', nSeqMax: 3, maxResidentTemplates: 4 } as const;
    const agent = await startAgent(settings);
    const prompts = [1, 2, 3, 4].map(numberedPrompt);
    /**
     * Returns the log-probability of the first token. Other sequences change only its last digits. A missing cell would
     * change it more.
     */
    const firstOf = async (session: Session) => {
      const { logProbabilities } = await session.send(LONG, { maxTokens: rounds(20, 80), logProbabilities: 1 });
      await session.close();
      return logProbabilities?.[0]?.logProbability ?? Number.NaN;
    };
    const expected: number[] = [];
    for (const systemPrompt of prompts) {
      const alone = await startAgent({ ...settings, systemPrompt });
      expected.push(await firstOf(await alone.createSession({ templateCache: false })));
    }
    for (const round of [0, 1, 2]) {
      const values = await Promise.all(
        prompts.map(async (systemPrompt) => {
          const session = await agent.createSession({ systemPrompt });
          expect(session.report.source).toBe(round === 0 ? 'prefill' : 'resident');
          expect(session.report.templateTokens).toBeGreaterThan(WINDOW);
          return firstOf(session);
        }),
      );
      for (const [index, value] of values.entries()) {
        expect(value).toBeCloseTo(expected[index] as number, 1);
      }
    }
    expect(agent.getTemplateCacheStats()).toMatchObject({ residentTemplates: 4, evictions: { resident: 0 } });
  });

  it('are evicted or not admitted while open sessions share too many cells of evicted templates', async () => {
    const agent = await startAgent(SETTINGS);
    const open: Session[] = [];
    const sourceOf = async (number: number) => {
      const session = await agent.createSession({ systemPrompt: numberedPrompt(number) });
      open.push(session);
      return session.report.source;
    };
    expect([await sourceOf(1), await sourceOf(1)]).toEqual(['prefill', 'resident']);
    // Evicting template 1 would not free the cells that its sessions share.
    expect([await sourceOf(2), await sourceOf(2)]).toEqual(['prefill', 'memory']);
    expect(await sourceOf(1)).toBe('resident');
    await Promise.all(open.splice(0).map((session) => session.close()));
    // Now no session shares the cells of template 1.
    expect([await sourceOf(2), await sourceOf(2)]).toEqual(['memory', 'resident']);
    await Promise.all(open.map((session) => session.send(LONG, { maxTokens: 1 })));
    // The windows of the sessions with template 2 no longer contain the cells of the template.
    expect([await sourceOf(3), await sourceOf(3)]).toEqual(['prefill', 'resident']);
    await closeAll(agent, open);
  });
});

describe('the computed size of the window cache', () => {
  it.each([
    { maxSequences: 6, batchSize: 64, kvCells: 4096 },
    { maxSequences: 7, batchSize: 64, kvCells: 4096 },
    { maxSequences: 8, batchSize: 200, kvCells: 1000 },
    { maxSequences: 8, batchSize: 64, kvCells: 512 },
  ])(
    'equals the size in llama.cpp: $maxSequences sequences, batches of $batchSize, $kvCells cells',
    async (options) => {
      const model = await Model.load({ path: microModel('sliding-window') });
      const context = await model.createContext({ ...options, nThreads: 1, maxOutputs: options.maxSequences });
      onTestFinished(async () => {
        await context.close();
        await model.close();
      });
      expect(model.info.slidingWindow).toBe(WINDOW);
      /** Decodes up to `most` single tokens into a sequence, until no cell is free. Returns the number of tokens. */
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
      // Cells that two sequences share are not freed when a sequence moves on.
      const size = windowCells(context);
      const pairs = options.maxSequences >> 1;
      let filled = 0;
      for (let pair = 0; pair < pairs; pair++) {
        const isLast = pair === pairs - 1; // fewer cells than a window are left for the last pair
        filled += await fill(2 * pair, isLast ? size : Math.floor((size - WINDOW / 2) / (pairs - 1)));
        await context.copySequence(2 * pair, 2 * pair + 1);
      }
      expect(filled).toBe(size);
    },
  );
});
