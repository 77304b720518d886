// Finds out by rendering short conversations how a chat template begins and ends turns.
import { unlessRefused } from './chat-template.js';
import type { ChatMessage } from './messages.js';
import type { RenderedText, Renderer, TextOptions } from './renderer.js';

/** How a chat template writes turns. */
export interface TurnMarkup {
  /**
   * Whether llama.cpp reports the whole generation prompt. If true, a prompt without its generation prompt ends where
   * its last message ends, unless this message is a reply. Some chat templates (RWKV, Command R7B) write the generation
   * prompt even if it is not requested, and llama.cpp then cannot report it.
   */
  reportsOpening: boolean;
  /** The text between the end of the previous turn and the content of a user's message; undefined if unknown. */
  userStart: string | undefined;
  /** Whether a reply ends in the same way at the end of a conversation as in the middle. */
  closesLastReply: boolean;
}

/** Texts that no chat template contains. */
const FIRST = 'headstart first 3a7c';
const REPLY = 'headstart reply 3a7c';
const SECOND = 'headstart second 3a7c';

const first: ChatMessage = { role: 'user', content: FIRST };
const reply: ChatMessage = { role: 'assistant', content: REPLY };
const second: ChatMessage = { role: 'user', content: SECOND };

/**
 * @param bos the text of the BOS token, which some chat templates write at the beginning
 * @throws HeadstartError as {@link Renderer.text}, except `CHAT_TEMPLATE_FAILED`.
 */
export async function findTurnMarkup(
  renderer: Renderer,
  options: Pick<TextOptions, 'reasoning' | 'textOnly'>,
  bos: string,
): Promise<TurnMarkup> {
  const render = (messages: readonly ChatMessage[], addGenerationPrompt = true) =>
    unlessRefused(renderer.text({}, messages, { ...options, addGenerationPrompt }));
  /**
   * The text after the last message. Undefined if `prompt` is not the text without a generation prompt, followed by the
   * reported generation prompt.
   */
  const end = async (message: string, prompt: RenderedText | undefined, messages: readonly ChatMessage[]) => {
    const history = (await render(messages, false))?.text;
    return prompt?.text === `${history}${prompt?.opening}` ? textAfter(history, message) : undefined;
  };
  const beginning = await render([first]);
  const afterUser = await end(FIRST, beginning, [first]);
  const afterReply = await end(REPLY, await render([first, reply]), [first, reply]);
  const replyToUser = textBetween((await render([first, reply, second]))?.text, REPLY, SECOND);
  const userToUser = textBetween((await render([first, second]))?.text, FIRST, SECOND);
  const reportsOpening =
    afterUser !== undefined && (beginning?.opening !== '' || withoutStart(replyToUser, afterReply) !== undefined);
  const head = headOf(beginning?.text, bos);
  const userStart = agreed(
    [
      head,
      withoutStart(userToUser, reportsOpening ? afterUser : undefined),
      startAfterReply(head, afterReply, replyToUser),
    ],
    replyToUser,
  );
  const closesLastReply = reportsOpening && userStart !== undefined && `${afterReply}${userStart}` === replyToUser;
  return { reportsOpening, userStart, closesLastReply };
}

/** A prompt without its generation prompt. */
export function historyOf({ text, opening }: RenderedText): string {
  return text.slice(0, text.length - opening.length);
}

/** The text in front of the first message. The text may contain a system prompt that the chat template adds. */
function headOf(text: string | undefined, bos: string): string | undefined {
  const head = text?.slice(0, Math.max(0, text.indexOf(FIRST)));
  return bos !== '' && head?.startsWith(bos) ? head.slice(bos.length) : head;
}

/**
 * The text between a reply and a user's message, without the end of the reply. The same text must be in front of the
 * first message.
 */
function startAfterReply(
  head: string | undefined,
  afterReply: string | undefined,
  replyToUser: string | undefined,
): string | undefined {
  const start = afterReply === '' ? undefined : withoutStart(replyToUser, afterReply);
  return start !== undefined && head?.endsWith(start) ? start : undefined;
}

/** The only text among `candidates` with which `text` ends. Undefined if there are several such texts, or none. */
function agreed(candidates: readonly (string | undefined)[], text: string | undefined): string | undefined {
  const [start, ...others] = new Set(candidates.filter((each) => each && text?.endsWith(each)));
  return others.length === 0 ? start : undefined;
}

function withoutStart(text: string | undefined, start: string | undefined): string | undefined {
  return start !== undefined && text?.startsWith(start) ? text.slice(start.length) : undefined;
}

function textAfter(text: string | undefined, content: string): string | undefined {
  const at = text?.lastIndexOf(content) ?? -1;
  return at < 0 ? undefined : text?.slice(at + content.length);
}

function textBetween(text: string | undefined, content: string, next: string): string | undefined {
  const after = textAfter(text, content);
  const end = after?.indexOf(next) ?? -1;
  return end < 0 ? undefined : after?.slice(0, end);
}
