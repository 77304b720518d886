// Settings and functions for tests that read the parts of a stream one by one.
import type { AgentSettings } from './agents.js';
import { EXACT } from './agents.js';

/** The options of a turn that has more parts than a stream buffers. */
export const LONG = { maxTokens: 160, sampling: { ignoreEos: true } } as const;
export const MEMORIES = ['dense', 'sliding-window', 'hybrid'] as const;

export const settings = (name: (typeof MEMORIES)[number], more: AgentSettings = {}): AgentSettings => ({
  name,
  ...EXACT,
  contextSize: 1024,
  maxResidentTemplates: 0,
  ...more,
});

export async function readAll<Part>(parts: AsyncIterator<Part>): Promise<Part[]> {
  const all: Part[] = [];
  for (let next = await parts.next(); !next.done; next = await parts.next()) {
    all.push(next.value);
  }
  return all;
}
