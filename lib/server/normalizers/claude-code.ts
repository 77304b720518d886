// Claude Code sends text that differs between sessions at the beginning of its prompts. Without these rules, the
// sessions would share no prefix.
import { type Block, blocksOf, type MessageBody } from '../anthropic/message-request.js';
import type { Normalizer } from './normalizer.js';

const SEEN_IN = '2.1.332';
/** The first block of the system prompt names the version of the client, with digits that depend on the user's words. */
const BILLING = /^x-anthropic-billing-header:/;
/** The first lines of the list with which the system message after the first user message begins. */
const DIRECTORY = /(?<=^# Environment\n.*\n) - Primary working directory: .*\n(?: - Is a git repository: .*\n)?/;
/** The last paragraph of this system message. */
const DATE = /\n\nToday's date is \d{4}-\d{2}-\d{2}\.\s*$/;
/** In the system prompt: the directory of the memory, which depends on the user and the directory. */
const MEMORY = /^You have a persistent file-based memory at `[^`\n]+`\. This directory already exists[^\n]*?\)\. /m;
/** The index of the block with {@link MEMORY}, after the billing block was removed. */
const MEMORY_BLOCK = 1;

/** The rules for Claude Code. */
export const CLAUDE_CODE: Normalizer<MessageBody> = {
  recognizes: (body, headers) => headers.has('x-claude-code-session-id') || hasBillingBlock(body),
  rules: [
    { name: 'claude-code/billing-block', seenIn: SEEN_IN, apply: withoutBillingBlock },
    { name: 'claude-code/late-system-message', seenIn: SEEN_IN, apply: withEarlySystemMessage },
    { name: 'claude-code/memory-directory', seenIn: SEEN_IN, isPortableHead: true, apply: withLateMemoryDirectory },
  ],
};

function hasBillingBlock({ system }: MessageBody): boolean {
  return Array.isArray(system) && BILLING.test(textOf(system[0]));
}

function withoutBillingBlock(body: MessageBody): MessageBody | undefined {
  return hasBillingBlock(body) ? { ...body, system: body.system?.slice(1) as Block[] } : undefined;
}

/**
 * Moves the system message that follows the first user message to the end of the system prompt. The lines with the
 * directory and the date move into the user message instead, in front of its last block.
 */
function withEarlySystemMessage(body: MessageBody): MessageBody | undefined {
  const [first, late, ...others] = body.messages;
  if (first?.role !== 'user' || late?.role !== 'system') {
    return undefined;
  }
  const { rest, cut } = cutOut(blocksOf(late.content).map(textOf).join('\n\n'), [DIRECTORY, DATE]);
  const system = [...blocksOf(body.system), ...(rest === '' ? [] : [{ type: 'text', text: rest }])];
  return withTextBeforeWords({ ...body, system, messages: [first, ...others] }, cut);
}

/** Moves the sentence with the directory of the memory into the first user message, in front of its last block. */
function withLateMemoryDirectory(body: MessageBody): MessageBody | undefined {
  const system = [...blocksOf(body.system)];
  const block = system[MEMORY_BLOCK];
  const { rest, cut } = cutOut(textOf(block), [MEMORY]);
  if (block === undefined || cut.length === 0 || body.messages[0]?.role !== 'user') {
    return undefined;
  }
  system[MEMORY_BLOCK] = { ...block, text: rest };
  return withTextBeforeWords({ ...body, system }, cut);
}

/** Cuts the first match of each pattern out of a text. */
function cutOut(text: string, patterns: readonly RegExp[]): { rest: string; cut: string[] } {
  let rest = text;
  const cut: string[] = [];
  for (const pattern of patterns) {
    const found = pattern.exec(rest);
    if (found !== null) {
      rest = rest.slice(0, found.index) + rest.slice(found.index + found[0].length);
      cut.push(found[0].trim());
    }
  }
  return { rest, cut };
}

/** Puts texts into the first message, in front of its last block, which has the user's words. */
function withTextBeforeWords(body: MessageBody, texts: readonly string[]): MessageBody {
  const [first, ...others] = body.messages as [MessageBody['messages'][0], ...MessageBody['messages']];
  const content = [...blocksOf(first.content)];
  content.splice(-1, 0, ...texts.map((text) => ({ type: 'text', text: `${text}\n\n` })));
  return { ...body, messages: [{ ...first, content }, ...others] };
}

function textOf(block: Block | undefined): string {
  return typeof block?.text === 'string' ? block.text : '';
}
