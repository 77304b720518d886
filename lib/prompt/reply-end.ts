import type { Model } from '../native/model.js';
import { unlessRefused } from './chat-template.js';
import type { ChatMessage } from './messages.js';
import type { Renderer } from './renderer.js';

/** A text that no chat template contains. */
const REPLY = 'headstart reply 9e02';
const HISTORY: readonly ChatMessage[] = [
  { role: 'user', content: 'x' },
  { role: 'assistant', content: REPLY },
  { role: 'user', content: 'x' },
];

/**
 * The control token with which a chat template ends replies in the history. Most models end their replies with this
 * token. An exception is gpt-oss: its replies end with `<|return|>`, and its histories contain `<|end|>` instead.
 *
 * @returns undefined if text follows a reply, or if the chat template refuses the test conversation
 * @throws HeadstartError as {@link Renderer.text}, except `CHAT_TEMPLATE_FAILED`.
 */
export async function findReplyEnd(model: Model, renderer: Renderer): Promise<number | undefined> {
  const { text = '' } = (await unlessRefused(renderer.text({}, HISTORY, { textOnly: true }))) ?? {};
  const at = text.indexOf(REPLY);
  const after = at < 0 ? [] : await renderer.tokensAfterText(text.slice(at + REPLY.length));
  const controlTokens = model.controlTokens();
  const textOf = (token: number) => new TextDecoder().decode(model.tokenToBytes(token, { special: true }));
  const first = after.find((token) => controlTokens.has(token) || textOf(token).trim() !== '');
  return first !== undefined && controlTokens.has(first) ? first : undefined;
}
