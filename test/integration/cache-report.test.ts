// Each reply has a cache report. The report says how many tokens the first prompt reused, and names the first token that
// was not reused.
import {
  type AgentServer,
  type ChatMessage,
  type ChatRequest,
  type Reply,
  type StreamPart,
  subscribeDiagnostics,
  tool,
} from 'llama-headstart';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EXACT, startAgent } from '../helpers/agents.js';
import { assistant, user } from '../helpers/messages.js';

const FIRST = 'My chain broke on the way to work. What should I do about it now?';
const SECOND = 'What does a new one cost, and how long does the repair take?';
const SECRET = 'The alarm code of the workshop is swordfish.';

const ask = (agent: AgentServer, messages: ChatRequest['messages'], more: Partial<ChatRequest> = {}): Promise<Reply> =>
  agent.chat({ messages, maxTokens: 8, ...more }).result;

const partTool = (name: string, parameter = 'city') =>
  tool({
    name,
    description: `Finds a ${name} in a shop.`,
    inputSchema: { type: 'object', properties: { [parameter]: { type: 'string' } } },
  });

describe.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)('with the %s model, a report', (name) => {
  it('counts what its prompt reused, and names the message in which the nearest stored prefix ends', async () => {
    const agent = await startAgent({ name, ...EXACT });
    const first = await ask(agent, [user(FIRST)]);
    const continued = await ask(agent, [user(FIRST), assistant(first.text), user(SECOND)]);
    const edited = await ask(agent, [user(FIRST), assistant(first.text), user('What if I walk? I have time.')]);
    for (const { cache, usage } of [first, continued, edited]) {
      expect(cache.cachedTokens).toBe(usage.cachedInputTokens);
      expect(cache.prefilledTokens).toBe(usage.inputTokens - usage.cachedInputTokens);
      expect(cache.ms).toBeGreaterThan(0);
    }
    expect(first.cache).toMatchObject({ source: 'prefill', cachedTokens: 0, difference: { index: 0 } });
    expect(['resident', 'memory']).toContain(continued.cache.source);
    expect(continued.cache.difference).toMatchObject({ part: 'message', message: 1 });
    expect(edited.cache.difference).toMatchObject({
      part: 'message',
      message: 2,
      text: expect.stringMatching(/ if I/),
    });
    expect(edited.cache.reason).toContain(`differs at token ${edited.cache.difference?.index}`);
  });

  it('has no reason and no difference if the same request comes again', async () => {
    const agent = await startAgent({ name, ...EXACT });
    await ask(agent, [user(FIRST)]);
    const { cache } = await ask(agent, [user(FIRST)]);
    expect(cache.difference).toBeUndefined();
    // On memory that cannot be trimmed, the opening of the reply is prefilled again.
    expect(cache.reason ?? 'cannot be trimmed').toContain('cannot be trimmed');
  });
});

describe('a report', () => {
  it('names the tool that differs from the tools of an earlier request', async () => {
    const agent = await startAgent({ contextSize: 2048 });
    const names = ['chain', 'wheel', 'brake'];
    const differenceWith = async (tools: readonly ReturnType<typeof partTool>[]) =>
      (await ask(agent, [user(FIRST)], { tools })).cache.difference;
    await differenceWith(names.map((each) => partTool(each)));
    expect(await differenceWith([partTool('chain'), partTool('brake')])).toMatchObject({ part: 'tool', tool: 'brake' });
    const changed = await differenceWith([partTool('chain'), partTool('wheel', 'country'), partTool('brake')]);
    expect(changed).toMatchObject({ part: 'tool', tool: 'wheel', text: expect.stringContaining('country') });
    const last = await differenceWith([partTool('chain'), partTool('wheel'), partTool('brake', 'country')]);
    expect(last).toMatchObject({ part: 'tool', tool: 'brake' });
    const appended = await differenceWith([...names, 'saddle'].map((each) => partTool(each)));
    expect(appended).toMatchObject({ part: 'tool', tool: 'saddle' });
  });

  it('names the message that differs, counted in the messages of the request', async () => {
    const agent = await startAgent();
    const system = { role: 'system', content: 'You repair bicycles and like to talk.' } as const;
    const history = [user(FIRST), assistant('Walk the rest.'), user('ok'), assistant('ok'), user(SECOND)];
    await ask(agent, [system, ...history]);
    for (const [index, message] of history.entries()) {
      const messages = history.with(index, { ...message, content: `No. ${message.content}` } as ChatMessage);
      const { cache } = await ask(agent, [system, ...messages]);
      expect(cache.difference).toMatchObject({
        part: 'message',
        message: index + 1,
        text: expect.stringMatching(/^No/),
      });
    }
    const { cache } = await ask(agent, [{ ...system, content: 'You sell boats.' }, ...history]);
    expect(cache.difference).toMatchObject({ part: 'system', message: 0 });
  });

  it('compares a prompt only with prefixes of its own tenant, and events have no text of prompts', async () => {
    const agent = await startAgent();
    const events: unknown[] = [];
    for (const channel of ['session', 'turn', 'prefill', 'decode', 'tool-call'] as const) {
      onTestFinished(subscribeDiagnostics(channel, (event) => events.push(event)));
    }
    await ask(agent, [user(`${SECRET} ${FIRST}`)], { tenant: 'a' });
    const other = await ask(agent, [user(`${SECRET.replace('swordfish', 'unknown')} ${FIRST}`)], { tenant: 'b' });
    expect(other.cache).toMatchObject({ source: 'prefill', difference: { index: 0 } });
    expect(other.cache.reason).toContain('no stored prefix shares a token');
    const same = await ask(agent, [user(`${SECRET.replace('swordfish', 'unknown')} ${FIRST}`)], { tenant: 'a' });
    expect(same.cache.difference).toMatchObject({ message: 0, text: expect.stringContaining('unknown') });
    expect(JSON.stringify([other, same])).not.toContain('swordfish');
    expect(JSON.stringify(events)).not.toMatch(/swordfish|unknown/);
  });

  it('is also part of the turns of a session, of the last part of a stream, and of a completion', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    const { cache, usage } = await session.send(FIRST, { maxTokens: 4 });
    expect(cache).toMatchObject({
      source: 'resident',
      cachedTokens: usage.cachedInputTokens,
      difference: { message: 0 },
    });
    const parts: StreamPart[] = [];
    for await (const part of session.stream(SECOND, { maxTokens: 4 })) {
      parts.push(part);
    }
    expect(parts.at(-1)).toMatchObject({ type: 'finish', cache: { source: 'resident', difference: { message: 1 } } });
    const prompt = 'A bicycle has two wheels and a chain that may break.';
    const completion = await agent.complete(prompt, { maxTokens: 2 });
    expect(completion.cache).toMatchObject({ source: 'prefill', difference: { index: 0 } }); // completions leave nothing
  });

  it('says that `reproducible` reuses nothing of other requests', async () => {
    const agent = await startAgent({ ...EXACT, reproducible: true, kvLayout: 'split' });
    const first = await ask(agent, [user(FIRST)]);
    const { cache } = await ask(agent, [user(FIRST), assistant(first.text), user(SECOND)]);
    expect(cache.cachedTokens).toBeGreaterThan(0); // the template
    expect(cache.difference).toMatchObject({ index: cache.cachedTokens, message: 0 });
  });
});
