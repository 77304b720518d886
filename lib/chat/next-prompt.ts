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
 * @param prompt the newest prompt of the turn
 * @param conversation all messages, including the reply
 */
export function expectNextPrompt(
  { sequence, sampledReplies, messageEnds, source }: ExpectServices,
  prompt: Prompt,
  conversation: readonly ChatMessage[],
  options: ReplyOptions,
): void {
  if (sequence.isKeptOnDisk) {
    const messages = [...conversation, ...continuation(conversation, 'Hello')];
    sequence.expectNext(
      () => messageEnds.in(prompt, options),
      async () => (await sampledReplies.tokens(sequence, source, messages, options)).tokens,
    );
  }
}
