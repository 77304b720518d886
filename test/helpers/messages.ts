import type { AssistantMessage, ChatMessage, Reply } from 'llama-headstart';

/** A message of the user. */
export const user = (content: string): ChatMessage => ({ role: 'user', content });

/** A reply of the model. */
export const assistant = (content: string): AssistantMessage => ({ role: 'assistant', content });

/** Number of prompt tokens that a reply's request prefilled. */
export const prefilledBy = ({ usage }: Pick<Reply, 'usage'>): number => usage.inputTokens - usage.cachedInputTokens;
