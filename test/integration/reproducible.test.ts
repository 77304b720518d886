// `reproducible`: a reply is the same to the bit, whoever else there is, wherever its template came from, and whatever
// happened to its KV cells meanwhile. `npm run test:reproducible -- FILE...` runs it on models of yours.
import { describe, expect, it } from 'vitest';
import { type AgentSettings, agentOptions, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { microModel } from '../helpers/models.js';
import { inOtherProcess } from '../helpers/processes.js';
import { numberedPrompt } from '../helpers/prompts.js';
import { allAtOnce, type ExactReply, oneAfterTheOther } from '../helpers/reproducible.js';

const MICRO = ['dense', 'dense-quantised', 'sliding-window', 'recurrent', 'hybrid'] as const;
const given = process.env.LLAMA_HEADSTART_REPRODUCIBLE_MODELS?.split(',');
const MODELS = given ?? MICRO.map(microModel);
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

describe.each(MODELS)('in reproducible mode, with %s', (source) => {
  it('32 sessions on 8 sequences say what each says alone, to the bit, from every tier', async () => {
    const expected = await oneAfterTheOther(await startAgent(settings({ source, cacheDir: null })), SESSIONS, TURNS);
    const cacheDir = await temporaryDirectory();

    const first = await startAgent(settings({ source, cacheDir }));
    expectEqual(await allAtOnce(first, SESSIONS, TURNS, 1), expected, 'saved states');
    await first.close();
    // No room for saved states: who lost its cells decodes again what it held.
    const second = await startAgent(settings({ source, cacheDir, maxSavedBytes: 0, maxMemoryBytes: 0 }));
    expectEqual(await allAtOnce(second, SESSIONS, TURNS, 2), expected, 'replayed, from disk');
  });

  it('another process says the same from disk', async () => {
    const cacheDir = await temporaryDirectory();
    const messages = ['Hello there', 'And then?'];
    const own = await startAgent(settings({ source, cacheDir, systemPrompt: numberedPrompt(9) }));
    const session = await own.createSession();
    const texts: string[] = [];
    for (const message of messages) {
      texts.push((await session.send(message, { maxTokens: 24 })).text);
    }
    await own.close();
    const options = agentOptions(settings({ source, cacheDir, systemPrompt: numberedPrompt(9) }));
    const other = await inOtherProcess('agent', { options, messages });
    expect(other.report.tier).toBe('disk');
    expect(other.texts).toEqual(texts);
  });
});

function expectEqual(actual: ExactReply[][], expected: ExactReply[][], how: string): void {
  for (const [number, replies] of expected.entries()) {
    expect(actual[number], `session ${number}, ${how}`).toEqual(replies);
  }
}
