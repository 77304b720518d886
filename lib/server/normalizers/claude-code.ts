// Claude Code sends text that differs between sessions at the beginning of its prompts. Without these rules, the
// sessions would share no prefix.
import { type Block, blocksOf, type MessageBody } from '../anthropic/message-request.js';
import type { Normalizer } from './normalizer.js';

const SEEN_IN = '2.1.332';
/** The first block of the system prompt names the version of the client, with digits that depend on the user's words. */
const BILLING = /^x-anthropic-billing-header:/;
/** The last paragraph of the system message is a sentence with the date. */
const DATE = /^[^\n]{0,60}\b\d{4}-\d{2}-\d{2}\b[^\n]{0,10}$/;
/** The first paragraph of the system message describes the directory, with an absolute path. */
const DIRECTORY = /(?:^|[\s`"'])(?:\/|[A-Za-z]:\\)[^\s`"']+/;

/** The rules for Claude Code. */
export const CLAUDE_CODE: Normalizer<MessageBody> = {
  recognizes: (body, headers) => headers.has('x-claude-code-session-id') || hasBillingBlock(body),
  rules: [
    { name: 'claude-code/billing-block', seenIn: SEEN_IN, apply: withoutBillingBlock },
    { name: 'claude-code/late-system-message', seenIn: SEEN_IN, apply: withEarlySystemMessage },
  ],
};

function hasBillingBlock({ system }: MessageBody): boolean {
  return Array.isArray(system) && BILLING.test(textOf(system[0]));
}

function withoutBillingBlock(body: MessageBody): MessageBody | undefined {
  return hasBillingBlock(body) ? { ...body, system: body.system?.slice(1) as Block[] } : undefined;
}

/**
 * Moves the system message that follows the first user message to the end of the system prompt. The paragraphs with the
 * directory and the date move into the user message instead, in front of its last block.
 */
function withEarlySystemMessage(body: MessageBody): MessageBody | undefined {
  const [first, late, ...others] = body.messages;
  if (first?.role !== 'user' || late?.role !== 'system') {
    return undefined;
  }
  const { stable, volatile } = divided(blocksOf(late.content).map(textOf).join('\n\n'));
  const system = [...blocksOf(body.system), ...(stable === '' ? [] : [{ type: 'text', text: stable }])];
  const content = blocksOf(first.content);
  const words = content.slice(-1);
  const before = [...content.slice(0, -1), ...volatile.map((text) => ({ type: 'text', text: `${text}\n\n` }))];
  return { ...body, system, messages: [{ ...first, content: [...before, ...words] }, ...others] };
}

/** Divides a text into the paragraphs that are the same in each session, and those with the directory and the date. */
function divided(text: string): { stable: string; volatile: string[] } {
  const paragraphs = text.split(/\n{2,}/).filter((each) => each !== '');
  const isVolatile = (paragraph: string, index: number) =>
    (index === 0 && DIRECTORY.test(paragraph)) || (index === paragraphs.length - 1 && DATE.test(paragraph));
  return {
    stable: paragraphs.filter((each, index) => !isVolatile(each, index)).join('\n\n'),
    volatile: paragraphs.filter(isVolatile),
  };
}

function textOf(block: Block | undefined): string {
  return typeof block?.text === 'string' ? block.text : '';
}
