// Conversations on disk, for tests.
import { readdir } from 'node:fs/promises';
import type { AgentServer, ChatMessage, ChatRequest, Reply } from 'llama-headstart';
import { type AgentSettings, EXACT, shareReplies, startAgent } from './agents.js';

/** Options that save each conversation, however short. */
export const ALWAYS = { minSpeedup: 0, maxBytes: 2 ** 30 } as const;

/** Starts an agent that saves each conversation in a directory. */
export function startSaving(cacheDir: string, settings: AgentSettings = {}): Promise<AgentServer> {
  return startAgent({ ...EXACT, contextSize: 2048, cacheDir, conversations: ALWAYS, ...settings });
}

/** A message that is long enough to show in the token counts whether it was prefilled again. */
export const LONG = `My chain broke. ${'It was old and worn. '.repeat(20)}`;

/** Continues a conversation with one request, and adds both messages to it. */
export async function ask(
  agent: AgentServer,
  messages: ChatMessage[],
  content: string,
  more: Partial<ChatRequest> = {},
): Promise<Reply> {
  messages.push({ role: 'user', content });
  const reply = await agent.chat({ messages, maxTokens: 12, ...more }).result;
  messages.push({ role: 'assistant', content: reply.text });
  return reply;
}

/** The names of the conversations in a directory, sorted. */
export async function conversationsIn(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => /^conversation_.*\.kv$/.test(name)).sort();
}

/**
 * Returns the next reply of an agent without any cache. The earlier replies have the tokens that they have in prompts of
 * `agent`.
 */
export async function coldReply(
  agent: AgentServer,
  settings: AgentSettings,
  messages: readonly ChatMessage[],
  content: string,
): Promise<string> {
  const cold = await startAgent({ ...EXACT, contextSize: 2048, maxResidentTemplates: 0, ...settings });
  shareReplies(agent, cold);
  const { text } = await ask(cold, [...messages], content);
  await cold.close();
  return text;
}
