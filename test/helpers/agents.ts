// Starts agents on micro models. When the test ends, these helpers close the agents and remove their directories.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type AgentOptions,
  AgentServer,
  type CacheOptions,
  type ModelConfig,
  type Reply,
  type Session,
  type StartReport,
} from 'llama-headstart';
import { onTestFinished } from 'vitest';
import { type MicroModelName, microModel } from './models.js';
import { SYSTEM_PROMPT } from './prompts.js';

/** Makes an empty directory that is removed when the test ends. */
export async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'headstart-test-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/**
 * Settings for tests that compare greedy replies. The last digits of logits depend on the position of a session's
 * cells, on other sequences in the batch and on the batch size. With these settings the differences are too small to
 * change a micro model's greedy choice.
 */
export const EXACT = { keyType: 'f32', valueType: 'f32', flashAttention: false } as const;

/** The options of an agent in one flat object, without the groups `model` and `cache`. */
export type AgentSettings = Partial<ModelConfig> &
  CacheOptions & { name?: MicroModelName } & Omit<AgentOptions, 'model' | 'cache'>;

const OF_CACHE: readonly string[] = [
  'dir',
  'allowSharedDirectory',
  'maxMemoryBytes',
  'maxDiskBytes',
  'maxEntries',
  'maxAgeMs',
  'minFreeDiskBytes',
  'conversations',
  'minTokens',
  'breakEven',
  'reuse',
  'breakpoints',
  'stableTools',
  'maxResidentTemplates',
  'maxResidentCells',
  'maxSavedBytes',
] satisfies (keyof CacheOptions)[];
const OF_AGENT: readonly string[] = [
  'systemPrompt',
  'tools',
  'mcpServers',
  'sampling',
  'reproducible',
  'maxQueueSize',
  'logger',
  'onProgress',
  'signal',
] satisfies (keyof AgentOptions)[];

/**
 * Returns the options of an agent on a micro model. The defaults are the model `dense`, greedy sampling and no cache
 * directory.
 */
export function agentOptions(settings: AgentSettings = {}): AgentOptions {
  const { name = 'dense', systemPrompt = SYSTEM_PROMPT, sampling = { temperature: 0 }, ...others } = settings;
  const pick = (isWanted: (option: string) => boolean) =>
    Object.fromEntries(Object.entries(others).filter(([option]) => isWanted(option)));
  return {
    model: {
      source: microModel(name),
      cacheDir: null,
      contextSize: 1024,
      nThreads: 1, // more threads do not speed up a micro model, and slow it down on a busy machine
      ...pick((option) => !OF_CACHE.includes(option) && !OF_AGENT.includes(option)),
    },
    cache: {
      minFreeDiskBytes: 0,
      reuse: 'exact', // `nearest` changes the batches, so only tests of `nearest` use that value
      ...pick((option) => OF_CACHE.includes(option)),
    },
    systemPrompt,
    sampling,
    ...pick((option) => OF_AGENT.includes(option)),
  };
}

export async function startAgent(settings: AgentSettings = {}): Promise<AgentServer> {
  const agent = await AgentServer.initialize(agentOptions(settings));
  onTestFinished(() => agent.close());
  return agent;
}

/** Copies sampled replies, so that the prompts of `to` contain the tokens that `from` sampled. */
export function shareReplies(from: AgentServer, to: AgentServer): void {
  for (const { group, replies } of from.sampledReplies.all()) {
    to.sampledReplies.addRecords(group, replies);
  }
}

/** Starts one session in a new agent on this cache directory, closes the agent and returns the session's report. */
export async function startOn(
  directory: string,
  { tenant, ...settings }: AgentSettings & { tenant?: string } = {},
): Promise<StartReport> {
  const agent = await startAgent({ cacheDir: directory, ...settings });
  const { report } = await agent.createSession({ ...(tenant !== undefined && { tenant }) });
  await agent.close();
  return report;
}

/** Returns the replies to these messages in one session of a new agent without any cache. */
export async function uncachedReplies(settings: AgentSettings, messages: string[], maxTokens = 24): Promise<string[]> {
  const agent = await AgentServer.initialize(agentOptions({ ...settings, cacheDir: null }));
  try {
    const session = await agent.createSession({ templateCache: false });
    return await replies(session, messages, maxTokens);
  } finally {
    await agent.close();
  }
}

export async function replies(session: Session, messages: string[], maxTokens = 24): Promise<string[]> {
  const texts: string[] = [];
  for (const message of messages) {
    texts.push((await session.send(message, { maxTokens })).text);
  }
  return texts;
}

/** Returns the fields of a reply that tests compare. Leaves out the times, which differ from run to run. */
export function withoutTimes({ text, finishReason, usage }: Reply) {
  return { text, finishReason, inputTokens: usage.inputTokens, outputTokens: usage.outputTokens };
}

/** The result of `agent.health()` if no session is open and no template is resident. */
export const NOTHING_HELD = {
  openSessions: 0,
  activeSessions: 0,
  heldSequences: 0,
  queueLength: 0,
  kvCells: { used: 0 },
} as const;
