// Changes a conversation so that the chat template shows all of its messages. A change depends only on the chat template
// and on the messages up to the changed one. So a message that is added at the end changes no earlier message, except
// that it may be appended to the last one.
import { createHash } from 'node:crypto';
import {
  type AssistantMessage,
  type ChatMessage,
  callsOf,
  PORTABLE_CALL_ID,
  type ToolCall,
  type ToolMessage,
} from './messages.js';
import { joined, needsEscape, withoutFalseMarks, withSystemNotes } from './system-notes.js';
import type { HistoryFeature, TemplateLimits } from './template-limits.js';

interface Change {
  /** The feature that the chat template may not show. */
  feature: HistoryFeature;
  /** Whether messages have the feature. */
  concerns: (messages: readonly ChatMessage[]) => boolean;
  /** Writes the messages without the feature. */
  apply: (messages: readonly ChatMessage[]) => readonly ChatMessage[];
}

/** The order matters, because a change may add a feature that a later change removes. */
const CHANGES: readonly Change[] = [
  {
    feature: 'textArguments',
    concerns: (messages) => messages.flatMap(callsOf).some(hasTextArguments),
    apply: (messages) => messages.map((message) => withCalls(message, withArgumentsObject)),
  },
  {
    feature: 'anyCallIds',
    concerns: (messages) => messages.some(hasOtherId),
    apply: (messages) => messages.map(withPortableIds),
  },
  { feature: 'severalCalls', concerns: (messages) => messages.some(hasSeveralCalls), apply: withSingleCalls },
  {
    feature: 'systemMessageFirst',
    concerns: ([first]) => first?.role === 'system',
    apply: withSystemNotes,
  },
  {
    feature: 'systemMessages',
    concerns: (messages) => messages.some(({ role }) => role === 'system'),
    apply: withSystemNotes,
  },
  { feature: 'repeatedRoles', concerns: (messages) => messages.some(repeatsRole), apply: withMergedTurns },
  {
    feature: 'replyFirst',
    concerns: ([first]) => first?.role === 'assistant',
    apply: (messages) => [{ role: 'user', content: '' }, ...messages],
  },
  { feature: 'userAfterResults', concerns: (messages) => messages.some(isUserAfterResults), apply: withEmptyReplies },
];

/** Changes the features of a conversation that the chat template does not show. */
export async function fitHistory(
  limits: TemplateLimits,
  messages: readonly ChatMessage[],
): Promise<readonly ChatMessage[]> {
  if (messages.every(isOrdinary)) {
    return messages;
  }
  let fitted = messages;
  for (const { feature, concerns, apply } of CHANGES) {
    if (concerns(fitted) && !(await limits.shows(feature))) {
      fitted = apply(fitted);
    }
  }
  return fitted;
}

/** Alters text of users and tools that looks like a system note, if the prompt may contain system notes. */
export async function withoutFalseNotes(
  limits: TemplateLimits,
  messages: readonly ChatMessage[],
): Promise<readonly ChatMessage[]> {
  return messages.some(needsEscape) && (await mayWriteNotes(limits, messages))
    ? messages.map(withoutFalseMarks)
    : messages;
}

async function mayWriteNotes(limits: TemplateLimits, [first]: readonly ChatMessage[]): Promise<boolean> {
  return (
    !(await limits.shows('systemMessages')) || (first?.role === 'system' && !(await limits.shows('systemMessageFirst')))
  );
}

/** Whether a message is a user's message or a reply without calls, and these alternate, beginning with the user. */
function isOrdinary(message: ChatMessage, index: number): boolean {
  return index % 2 === 0 ? message.role === 'user' : message.role === 'assistant' && callsOf(message).length === 0;
}

/** Changes each call in a message. */
export function withCalls(message: ChatMessage, change: (call: ToolCall) => ToolCall): ChatMessage {
  return message.role === 'assistant' && message.toolCalls !== undefined
    ? { ...message, toolCalls: message.toolCalls.map(change) }
    : message;
}

function hasTextArguments({ input }: ToolCall): boolean {
  return typeof input === 'string';
}

function withArgumentsObject(call: ToolCall): ToolCall {
  return hasTextArguments(call) ? { ...call, input: { arguments: call.input } } : call;
}

function hasOtherId(message: ChatMessage): boolean {
  const ids = message.role === 'tool' ? [message.toolCallId] : callsOf(message).map(({ toolCallId }) => toolCallId);
  return ids.some((id) => !PORTABLE_CALL_ID.test(id));
}

function withPortableIds(message: ChatMessage): ChatMessage {
  return message.role === 'tool'
    ? { ...message, toolCallId: portableId(message.toolCallId) }
    : withCalls(message, (call) => ({ ...call, toolCallId: portableId(call.toolCallId) }));
}

function portableId(id: string): string {
  return PORTABLE_CALL_ID.test(id) ? id : createHash('sha256').update(id).digest('hex').slice(0, 9);
}

function hasSeveralCalls(message: ChatMessage): boolean {
  return callsOf(message).length > 1;
}

/** Writes each call of a message as a separate message, with the result of the call after it. */
function withSingleCalls(messages: readonly ChatMessage[]): ChatMessage[] {
  const written: ChatMessage[] = [];
  let index = 0;
  while (index < messages.length) {
    const message = messages[index] as ChatMessage;
    let end = index + 1;
    while (hasSeveralCalls(message) && messages[end]?.role === 'tool') {
      end++;
    }
    const results = messages.slice(index + 1, end) as ToolMessage[];
    written.push(...(hasSeveralCalls(message) ? singleCalls(message as AssistantMessage, results) : [message]));
    index = end;
  }
  return written;
}

function singleCalls(message: AssistantMessage, results: readonly ToolMessage[]): ChatMessage[] {
  const remaining = [...results];
  const written = callsOf(message).flatMap((call, index): ChatMessage[] => {
    const at = remaining.findIndex(({ toolCallId }) => toolCallId === call.toolCallId);
    const single: AssistantMessage = { ...(index === 0 ? message : EMPTY_REPLY), toolCalls: [call] };
    return [single, ...(at < 0 ? [] : remaining.splice(at, 1))];
  });
  return [...written, ...remaining];
}

/** Whether a message and the message in front of it are both messages of the user, or both replies. */
function repeatsRole({ role }: ChatMessage, index: number, messages: readonly ChatMessage[]): boolean {
  return index > 0 && messages[index - 1]?.role === role && (role === 'user' || role === 'assistant');
}

/** Merges messages of the user in a row, and replies in a row. */
function withMergedTurns(messages: readonly ChatMessage[]): ChatMessage[] {
  const written: ChatMessage[] = [];
  for (const [index, message] of messages.entries()) {
    if (repeatsRole(message, index, messages)) {
      written.push(merged(written.pop() as ChatMessage, message));
    } else {
      written.push(message);
    }
  }
  return written;
}

/** Merges two messages of one role. */
export function merged(first: ChatMessage, second: ChatMessage): ChatMessage {
  const content = joined(first.content, second.content);
  if (first.role !== 'assistant' || second.role !== 'assistant') {
    return { ...first, content };
  }
  const reasoning = joined(first.reasoning ?? '', second.reasoning ?? '');
  const toolCalls = [...callsOf(first), ...callsOf(second)];
  return {
    role: 'assistant',
    content,
    ...(reasoning !== '' && { reasoning }),
    ...(toolCalls.length > 0 && { toolCalls }),
  };
}

function isUserAfterResults({ role }: ChatMessage, index: number, messages: readonly ChatMessage[]): boolean {
  return role === 'user' && messages[index - 1]?.role === 'tool';
}

const EMPTY_REPLY: AssistantMessage = { role: 'assistant', content: '' };

/** Puts an empty reply between the results of calls and a message of the user. */
function withEmptyReplies(messages: readonly ChatMessage[]): ChatMessage[] {
  return messages.flatMap((message, index) =>
    isUserAfterResults(message, index, messages) ? [EMPTY_REPLY, message] : [message],
  );
}
