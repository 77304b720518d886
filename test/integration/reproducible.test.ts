// `reproducible`: a reply is the same to the bit, whoever else there is, wherever its template came from, and whatever
// happened to its KV cells meanwhile. scripts/soak-reproducible.mjs runs it for longer, on more models.
import { describe, expect, it } from 'vitest';
import { type AgentSettings, agentOptions, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { testModel } from '../helpers/models.js';
import { allAtOnce, type ExactReply, exactTurn, oneAfterTheOther, openNumbered } from '../helpers/reproducible.js';

const MODELS = ['dense', 'dense-quantised', 'sliding-window', 'recurrent', 'hybrid'] as const;
const SESSIONS = 32;
const TURNS = 2;

const settings = (more: AgentSettings): AgentSettings => ({
  reproducible: true,
  contextSize: 512,
  nSeqMax: 8,
  batchSize: 128,
  keyType: 'f16',
  valueType: 'f16',
  ...more,
});

describe.each(MODELS)('in reproducible mode, with the %s model', (name) => {
  it('32 sessions on 8 sequences say what each says alone, to the bit, from every tier', async () => {
    const expected = await oneAfterTheOther(await startAgent(settings({ name, cacheDir: null })), SESSIONS, TURNS);
    const cacheDir = await temporaryDirectory();

    const first = await startAgent(settings({ name, cacheDir }));
    expectEqual(await allAtOnce(first, SESSIONS, TURNS, 1), expected, 'saved states');
    await first.close();
    // No room for saved states: who lost its cells decodes again what it held.
    const second = await startAgent(settings({ name, cacheDir, maxSavedBytes: 0, maxMemoryBytes: 0 }));
    expectEqual(await allAtOnce(second, SESSIONS, TURNS, 2), expected, 'replayed, from disk');
  });
});

function expectEqual(actual: ExactReply[][], expected: ExactReply[][], how: string): void {
  for (const [number, replies] of expected.entries()) {
    expect(actual[number], `session ${number}, ${how}`).toEqual(replies);
  }
}
