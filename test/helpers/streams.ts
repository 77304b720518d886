// Parts of tests that read streams by hand.
import type { AgentSettings } from './agents.js';
import { EXACT } from './agents.js';

/** More parts than a stream holds, whatever the model writes. */
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
