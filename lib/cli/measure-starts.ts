// Measures what `bench` reports: prefill, decode, and starts from each source.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { throwIfAborted } from '../abort.js';
import type { AgentServer } from '../agent/agent-server.js';
import type { CacheOptions } from '../cache/cache-options.js';
import type { StateSource } from '../cache/start-report.js';
import type { StepState } from './package-scripts.js';

/** The sources of a warm start, the fastest first. */
export const WARM_SOURCES = ['resident', 'memory', 'disk'] as const satisfies readonly StateSource[];
export type WarmSource = (typeof WARM_SOURCES)[number];

/** Starts with one template. */
export interface StartTimes {
  /** Tokens in the template. */
  tokens: number;
  /** Size of its state in bytes. */
  bytes: number;
  /** Milliseconds of a start without a cached template. */
  prefill: number;
  /** Milliseconds of a start from each source. */
  warm: Record<WarmSource, number>;
}

export interface Measurements {
  /** Starts with a short and with a long template. */
  short: StartTimes;
  long: StartTimes;
  /** Tokens per second of one reply. */
  decodeTokensPerSecond: number;
}

/** Opens the model with these settings of the cache. */
export type OpenAgent = (cache: CacheOptions) => Promise<AgentServer>;

/** The cache settings that make starts use a source. */
const SETTINGS: Readonly<Record<WarmSource, CacheOptions>> = {
  resident: {},
  memory: { maxResidentTemplates: 0 },
  disk: { maxResidentTemplates: 0, maxMemoryBytes: 0 },
};

const SHORT_WORDS = 48;
const LONG_WORDS = 1000;
/** A prefill of the long template may take this long, ms. If it would take longer, the template is shorter. */
const MAX_PREFILL_MS = 20_000;
const REPEATS = 5;
/** After this many starts, the template should be in the source that is measured. */
const MAX_FIRST_STARTS = 20;
const REPLY_TOKENS = 64;
const QUESTION = 'Count from one to one hundred, in words, and do not stop early.';

/** @param onProgress called with the progress of all measurements */
export async function measure(
  open: OpenAgent,
  signal: AbortSignal,
  onProgress: (state: StepState) => void,
): Promise<Measurements> {
  const dir = await mkdtemp(join(tmpdir(), 'llama-headstart-bench-'));
  const cache = { dir, minFreeDiskBytes: 0, reuse: 'exact' } as const;
  let done = 0;
  const all = WARM_SOURCES.length + 1;
  const next = (detail: string) => onProgress({ fraction: done++ / all, detail });
  const withAgent = async <Result>(settings: CacheOptions, work: (agent: AgentServer) => Promise<Result>) => {
    throwIfAborted(signal);
    const agent = await open({ ...cache, ...settings });
    try {
      return await work(agent);
    } finally {
      await agent.close();
    }
  };
  try {
    next('prefill and decode');
    const cold = await withAgent({}, (agent) => measureCold(agent, signal));
    const times = { short: new Map<WarmSource, number>(), long: new Map<WarmSource, number>() };
    for (const source of WARM_SOURCES) {
      next(`starts from ${source}`);
      await withAgent(SETTINGS[source], async (agent) => {
        times.short.set(source, await measureWarm(agent, cold.short.systemPrompt, source, signal));
        times.long.set(source, await measureWarm(agent, cold.long.systemPrompt, source, signal));
      });
    }
    const startTimes = (length: 'short' | 'long'): StartTimes => {
      const { tokens, bytes, ms: prefill } = cold[length];
      return { tokens, bytes, prefill, warm: Object.fromEntries(times[length]) as Record<WarmSource, number> };
    };
    return { short: startTimes('short'), long: startTimes('long'), decodeTokensPerSecond: cold.tokensPerSecond };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

interface ColdStart {
  systemPrompt: string;
  tokens: number;
  bytes: number;
  ms: number;
}

async function measureCold(agent: AgentServer, signal: AbortSignal) {
  const short = await measurePrefill(agent, SHORT_WORDS, signal);
  const fitting = Math.floor((SHORT_WORDS * MAX_PREFILL_MS) / Math.max(short.ms, 1));
  const inContext = Math.floor((SHORT_WORDS * agent.contextSize) / (3 * short.tokens));
  const words = Math.max(SHORT_WORDS, Math.min(LONG_WORDS, fitting, inContext));
  const long = words === SHORT_WORDS ? short : await measurePrefill(agent, words, signal);
  const session = await agent.createSession({ systemPrompt: long.systemPrompt });
  const { usage } = await session.send(QUESTION, { maxTokens: REPLY_TOKENS, signal });
  await session.close();
  await agent.flush(); // the measurements of the other sources find the templates on disk
  return { short, long, tokensPerSecond: usage.tokensPerSecond };
}

/** The fastest of several prefills, because other programs can only make a prefill slower. */
async function measurePrefill(agent: AgentServer, words: number, signal: AbortSignal): Promise<ColdStart> {
  const systemPrompt = promptOf(words);
  const first = await start(agent, systemPrompt, signal, false);
  const second = await start(agent, systemPrompt, signal, false);
  await agent.templateCache.warm([{ systemPrompt }], { signal });
  const entry = (await agent.templateCache.list()).find(({ tokens }) => tokens === first.templateTokens);
  const ms = Math.min(first.ms, second.ms);
  return { systemPrompt, tokens: first.templateTokens, bytes: entry?.bytes ?? 0, ms };
}

/** The median duration of a start from one source. */
async function measureWarm(
  agent: AgentServer,
  systemPrompt: string,
  source: WarmSource,
  signal: AbortSignal,
): Promise<number> {
  const times: number[] = [];
  let firstStarts = 0;
  while (times.length < REPEATS) {
    const report = await start(agent, systemPrompt, signal, true);
    // The first start of a process reads the file, and makes the template resident or keeps it in memory.
    if (report.source === source) {
      times.push(report.ms);
    } else if (times.length > 0 || report.source === 'prefill' || ++firstStarts >= MAX_FIRST_STARTS) {
      throw new Error(`Expected a start from ${source}, got ${report.source}: ${report.reason ?? 'no reason'}`);
    }
  }
  times.sort((a, b) => a - b);
  return times[Math.floor(times.length / 2)] as number;
}

async function start(agent: AgentServer, systemPrompt: string, signal: AbortSignal, templateCache: boolean) {
  throwIfAborted(signal);
  const session = await agent.createSession({ systemPrompt, templateCache });
  await session.close();
  return session.report;
}

/** A system prompt of about this many words. */
function promptOf(words: number): string {
  const rule = 'Rule number %: answer briefly, name your sources, and ask if a question is unclear.';
  const lines = Array.from({ length: Math.ceil(words / 14) }, (_, index) => rule.replace('%', String(index + 1)));
  return lines.join('\n');
}

/** How the duration of a start grows with the length of its template: `base + perToken * tokens`, in ms. */
export interface Line {
  base: number;
  perToken: number;
}

/** The line through the times of the short and the long template. */
export function lineThrough({ short, long }: Measurements, timeOf: (times: StartTimes) => number): Line {
  const tokens = long.tokens - short.tokens;
  const perToken = tokens > 0 ? Math.max(0, (timeOf(long) - timeOf(short)) / tokens) : timeOf(long) / long.tokens;
  return { base: Math.max(0, timeOf(long) - perToken * long.tokens), perToken };
}

export const timeAt = ({ base, perToken }: Line, tokens: number): number => base + perToken * tokens;

/** The number of tokens above which a start from a file is faster than a prefill; null if there is no such number. */
export function breakEven(prefill: Line, disk: Line): number | null {
  const gain = prefill.perToken - disk.perToken;
  return gain <= 0 ? null : Math.max(1, Math.ceil((disk.base - prefill.base) / gain));
}
