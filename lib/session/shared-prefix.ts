import { continuation } from '../chat/conversation.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { Prompt } from '../prompt/renderer.js';
import { PROBES } from '../prompt/template-boundary.js';
import { commonPrefixLength } from '../tokens.js';

/**
 * Returns the tokens with which the next prompt of a conversation begins, whatever the next message is. These tokens
 * are the common prefix of prompts with several probe messages. The template boundary is found in the same way.
 */
export async function sharedPrefix(
  messages: readonly ChatMessage[],
  render: (messages: readonly ChatMessage[]) => Promise<Pick<Prompt, 'tokens'>>,
): Promise<Int32Array> {
  let shared: Int32Array | undefined;
  for (const content of PROBES) {
    const { tokens } = await render([...messages, ...continuation(messages, content)]);
    shared = shared === undefined ? tokens : shared.slice(0, commonPrefixLength(shared, tokens));
  }
  return shared as Int32Array;
}
