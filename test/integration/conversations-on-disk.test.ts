// Conversations are saved in the cache directory. After a restart, the next turn continues from its file.
import type { AgentServer, ChatMessage, ChatRequest, Reply } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, startAgent, temporaryDirectory } from '../helpers/agents.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
/** Saves each conversation, however short. */
const ALWAYS = { minSpeedup: 0, maxBytes: 2 ** 30 };

const user = (content: string): ChatMessage => ({ role: 'user', content });

/** Continues a conversation with one request, and adds both messages to it. */
async function ask(
  agent: AgentServer,
  messages: ChatMessage[],
  content: string,
  more: Partial<ChatRequest> = {},
): Promise<Reply> {
  messages.push(user(content));
  const reply = await agent.chat({ messages, maxTokens: 12, ...more }).result;
  messages.push({ role: 'assistant', content: reply.text });
  return reply;
}

describe.each(MEMORIES)('after a restart with the %s model', (name) => {
  it('the next turn reuses 95 % of the conversation, and gets the reply of a cold agent', async () => {
    const cacheDir = await temporaryDirectory();
    const settings: AgentSettings = { name, ...EXACT, contextSize: 2048 };
    const messages: ChatMessage[] = [];
    const first = await startAgent({ ...settings, cacheDir, conversations: ALWAYS });
    await ask(first, messages, `My chain broke. ${'It was old and worn. '.repeat(20)}`);
    const { usage } = await ask(first, messages, 'What does a new one cost?');
    await first.close();
    const second = await startAgent({ ...settings, cacheDir, conversations: ALWAYS });
    expect(second.health().conversations.count).toBe(1);
    const next = await ask(second, [...messages], 'And the labor?');
    const old = usage.inputTokens + usage.outputTokens;
    expect(next.usage.cachedInputTokens).toBeGreaterThanOrEqual(0.95 * old);
    const cold = await ask(await startAgent({ ...settings, maxResidentTemplates: 0 }), [...messages], 'And the labor?');
    expect(next.text).toBe(cold.text);
  });
});
