import { templateSource } from '../chat/chat-host.js';
import { readConversation } from '../chat/conversation.js';
import type { ConversationMessage } from '../chat/message-input.js';
import { group } from '../option-types.js';
import { parseOptions } from '../parse-options.js';
import type { SessionHost } from './open-session.js';
import { type SessionOptions, TEMPLATE } from './session-options.js';

const COUNT_OPTIONS = group(TEMPLATE);

/** What the prompt contains in front of the messages. */
export type CountOptions = Pick<SessionOptions, 'systemPrompt' | 'tools'>;

/**
 * Counts the tokens of a text, or of the prompt of a session with these messages.
 *
 * @throws HeadstartError as `AgentServer.countTokens`.
 */
export async function countTokens(
  host: SessionHost,
  input: string | readonly ConversationMessage[],
  options: CountOptions,
): Promise<number> {
  const { tools, systemPrompt: ownPrompt } = parseOptions(COUNT_OPTIONS, options, { where: 'the options' });
  if (typeof input === 'string') {
    return (await host.renderer.plainTokens(input)).length;
  }
  const { systemPrompt, messages } = readConversation(input, ownPrompt);
  const { source } = await templateSource(host, { tools, systemPrompt, messages });
  return (await host.renderer.tokens(source, messages)).tokens.length;
}
