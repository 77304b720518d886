import { expect } from 'vitest';

type Report = Record<string, Record<string, unknown>>;

/** The clients in test/package/children/clients.mjs. */
const CLIENTS = [
  'openai',
  '@ai-sdk/openai-compatible',
  '@ai-sdk/anthropic',
  '@langchain/openai',
  '@langchain/anthropic',
];

/** What each client must report. A stream must have the same text as the whole reply. */
export function expectedReport(report: Report): Report {
  return Object.fromEntries(
    CLIENTS.map((client) => [
      client,
      {
        text: expect.stringMatching(/./s),
        stream: expect.objectContaining({ text: report[client]?.text }),
        tools: [{ name: 'set_lamp', input: { on: expect.any(Boolean) } }],
        object: { ok: expect.any(Boolean) },
      },
    ]),
  );
}
