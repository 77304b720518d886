// Moves text that differs between directories, days and users from the system prompt to a system message after the tools.
import type { CacheHint } from '../../chat/cache-hints.js';
import type { ChatRequest } from '../../chat/chat.js';
import type { RequestMessage } from '../../chat/message-input.js';
import { isObject } from '../../json.js';
import type { Normalized } from './normalizer.js';
import { PORTABLE_TEXTS } from './portable-texts.js';

/** Moves the texts of the client that wrote the system prompt. Only system messages at the beginning are searched. */
export function withPortableHead(request: ChatRequest): Normalized<ChatRequest> {
  const { messages } = request;
  const end = messages.findIndex(({ role }) => role !== 'system' && role !== 'developer');
  const system = messages.slice(0, Math.max(0, end));
  const opening = textsOf(system[0])[0] ?? '';
  const client = PORTABLE_TEXTS.find((each) => opening.startsWith(each.opening));
  const rules: string[] = [];
  const moved: string[] = [];
  for (const { name, message, part, text } of client?.texts ?? []) {
    const old = textsOf(system[message])[part] ?? '';
    const found = text.exec(old);
    if (found !== null) {
      const rest = old.slice(0, found.index) + old.slice(found.index + found[0].length);
      system[message] = withText(system[message] as RequestMessage, part, rest);
      rules.push(name);
      moved.push(found[0].trimEnd());
    }
  }
  const isMovable = client?.place === 'system' || hasWords(messages[end]);
  if (client === undefined || moved.length === 0 || !isMovable) {
    return { body: request, rules: [] };
  }
  const insert = client.place === 'system' ? afterSystemPrompt : beforeWords;
  const others = { ...request, messages: messages.slice(end) };
  return { body: insert(others, system, moved.join('\n\n')), rules };
}

type Insert = (request: ChatRequest, system: readonly RequestMessage[], text: string) => ChatRequest;

/** Adds a system message after the system prompt. */
const afterSystemPrompt: Insert = (request, system, text) => {
  const { messages, cacheHints } = request;
  const hints = cacheHints?.map((hint) => shifted(hint, system.length));
  return {
    ...request,
    messages: [...system, { role: 'system', content: text, volatile: true }, ...messages],
    ...(hints !== undefined && { cacheHints: hints }),
  };
};

/** Adds a part to the first message after the system prompt, in front of its last part, which has the user's words. */
const beforeWords: Insert = (request, system, text) => {
  const [first, ...others] = request.messages as [RequestMessage, ...RequestMessage[]];
  const { content: old } = first;
  const content = Array.isArray(old) ? [...old] : [{ type: 'text', text: old }];
  content.splice(-1, 0, { type: 'text', text: `${text}\n\n` });
  return { ...request, messages: [...system, { ...first, content } as RequestMessage, ...others] };
};

/** Whether a message is of the user and has content. */
function hasWords(message: RequestMessage | undefined): boolean {
  return message?.role === 'user' && (typeof message.content === 'string' || Array.isArray(message.content));
}

/** The texts of a message's parts. A text counts as one part. Content of a wrong type counts as empty. */
function textsOf(message: RequestMessage | undefined): readonly string[] {
  const content: unknown = message?.content;
  const texts = Array.isArray(content) ? content.map((part) => (isObject(part) ? part.text : undefined)) : [content];
  return texts.map((text) => (typeof text === 'string' ? text : ''));
}

function withText(message: RequestMessage, part: number, text: string): RequestMessage {
  const { content } = message;
  const changed = Array.isArray(content) ? content.with(part, { ...content[part], text }) : text;
  return { ...message, content: changed } as RequestMessage;
}

/** A hint, with the new index of its message. @param added the index of the added message */
function shifted(hint: CacheHint, added: number): CacheHint {
  return hint.message !== undefined && hint.message >= added ? { ...hint, message: hint.message + 1 } : hint;
}
