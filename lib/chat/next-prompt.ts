import type { SampledReplies } from '../generate/sampled-replies.js';
import type { MessageEnds } from '../prompt/message-end.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { Prompt, ReplyOptions, TemplateSource } from '../prompt/renderer.js';
import { continuation } from './conversation.js';
import type { ConversationSequence } from './conversation-sequence.js';

interface ExpectServices {
  sequence: ConversationSequence;
  sampledReplies: SampledReplies;
  messageEnds: MessageEnds;
  source: TemplateSource;
}

/**
 * Call it at the end of a turn. If conversations are kept on disk, the sequence finds out in the background from which
 * of its tokens the next prompt can continue.
 *
 * @param prompt the first prompt of the turn
 * @param conversations the messages that the next request may begin with, including the reply, in each possible form
 */
export function expectNextPrompt(
  { sequence, sampledReplies, messageEnds, source }: ExpectServices,
  prompt: Prompt,
  conversations: readonly (readonly ChatMessage[])[],
  options: ReplyOptions,
): void {
  if (sequence.isKeptOnDisk) {
    const prompts = conversations.map((messages) => async () => {
      const next = [...messages, ...continuation(messages, 'Hello')];
      return (await sampledReplies.tokens(sequence, source, next, options)).tokens;
    });
    sequence.expectNext(() => messageEnds.in(prompt, options), prompts);
  }
}
