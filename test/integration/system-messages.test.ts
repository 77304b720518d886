// The first message of a conversation may be its system prompt.
import { join } from 'node:path';
import type { SessionOptions } from 'llama-headstart';
import type { ConversationMessage } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { startAgent, temporaryDirectory } from '../helpers/agents.js';

const PROMPT = 'You are a careful librarian. Answer in one sentence.';
const system: ConversationMessage = { role: 'system', content: PROMPT };
const question: ConversationMessage = { role: 'user', content: 'Where is Moby Dick?' };
const answer: ConversationMessage = { role: 'assistant', content: 'On shelf B7.' };

const refusal = (message: RegExp) =>
  expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(message) });

describe('a system message at the beginning of `messages`', () => {
  it.each<[string, SessionOptions]>([
    ['a text', { messages: [system] }],
    ['text parts', { messages: [{ role: 'system', content: [{ type: 'text', text: PROMPT }] }] }],
    ["OpenAI's developer message", { messages: [{ role: 'developer', content: PROMPT }] }],
  ])('lets a session start from the template that `systemPrompt` cached: %s', async (_, options) => {
    const agent = await startAgent({ systemPrompt: 'The default of the agent.' });
    const first = await agent.createSession({ systemPrompt: PROMPT });
    const second = await agent.createSession(options);
    expect(second.report).toMatchObject({ key: first.report.key, tier: 'resident', match: 'exact' });
    expect(second.messages).toEqual([]);
  });

  it('fills the template cache for later sessions with `systemPrompt`', async () => {
    const agent = await startAgent({ systemPrompt: 'The default of the agent.' });
    const first = await agent.createSession({ messages: [system, question, answer] });
    const second = await agent.createSession({ systemPrompt: PROMPT });
    expect(first.report.cache).toBe('miss');
    expect(second.report).toMatchObject({ key: first.report.key, tier: 'resident', match: 'exact' });
    expect(first.messages).toEqual([question, answer]);
  });

  it('gives the reply that `systemPrompt` gives', async () => {
    const agent = await startAgent();
    const withOption = await agent.createSession({ systemPrompt: PROMPT, messages: [question, answer] });
    const withMessage = await agent.createSession({ messages: [system, question, answer] });
    const { text } = await withOption.send('And Emma?', { maxTokens: 8 });
    expect((await withMessage.send('And Emma?', { maxTokens: 8 })).text).toBe(text);
  });

  it('is kept by a saved session and by a fork', async () => {
    const path = join(await temporaryDirectory(), 'session.json');
    const agent = await startAgent({ systemPrompt: 'The default of the agent.' });
    const session = await agent.createSession({ messages: [system, question, answer] });
    const { key } = session.report;
    expect((await session.fork()).report.key).toBe(key);
    await session.save(path);
    await session.close();
    const restored = await agent.restoreSession(path);
    expect(restored.report.key).toBe(key);
    expect(restored.messages).toEqual([question, answer]);
  });

  it('counts in `countTokens` like `systemPrompt`', async () => {
    const agent = await startAgent();
    const count = await agent.countTokens([question], { systemPrompt: PROMPT });
    expect(await agent.countTokens([system, question])).toBe(count);
    expect(await agent.countTokens([question])).not.toBe(count);
  });
});

it('the message number in an error counts the system message in front of the invalid message', async () => {
  const agent = await startAgent();
  await expect(agent.createSession({ messages: [system, question, { role: 'user' } as never] })).rejects.toThrow(
    refusal(/content of message 2 /),
  );
});

describe('a system message is refused', () => {
  it.each<[string, SessionOptions, RegExp]>([
    [
      'together with `systemPrompt`',
      { systemPrompt: 'Be brief.', messages: [system, question] },
      /`systemPrompt` and a system/,
    ],
    ['together with an empty `systemPrompt`', { systemPrompt: '', messages: [system] }, /leave one out/],
    ['after another message', { messages: [question, system] as never }, /message 1 .* got a system message/],
    [
      'after another system message',
      { messages: [system, { ...system, role: 'developer' }] },
      /message 1 .* a developer message/,
    ],
    [
      'with an image',
      { messages: [{ role: 'system', content: [{ type: 'image' }] } as never] },
      /got a part of type "image"/,
    ],
    ['without content', { messages: [{ role: 'system' } as never] }, /content of message 0 .* got undefined/],
    ['with an unknown field', { messages: [{ ...system, name: 'x' } as never] }, /Unknown field `name` in message 0/],
  ])('%s', async (_, options, message) => {
    const agent = await startAgent();
    await expect(agent.createSession(options)).rejects.toThrow(refusal(message));
    expect(agent.health()).toMatchObject({ openSessions: 0 });
  });

  it('in a turn, and in `countTokens` together with `systemPrompt`', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    await expect(session.send([system, question] as never)).rejects.toThrow(refusal(/first of `messages`/));
    await expect(agent.countTokens([system], { systemPrompt: 'Be brief.' })).rejects.toThrow(refusal(/leave one out/));
  });
});
