// Moves text that differs between directories, days and users from the system prompt to a system message after the tools.
import type { CacheHint } from '../../chat/cache-hints.js';
import type { ChatRequest } from '../../chat/chat.js';
import type { ContentPart, RequestMessage } from '../../chat/message-input.js';
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
  if (client === undefined || moved.length === 0) {
    return { body: request, rules };
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
  const content =
    typeof first.content === 'string' ? [{ type: 'text', text: first.content }] : [...(first.content ?? [])];
  content.splice(-1, 0, { type: 'text', text: `${text}\n\n` });
  return { ...request, messages: [...system, { ...first, content } as RequestMessage, ...others] };
};

/** The texts of a message's parts. A text counts as one part. */
function textsOf(message: RequestMessage | undefined): readonly string[] {
  const content = message?.content ?? '';
  return typeof content === 'string' ? [content] : (content as readonly ContentPart[]).map(({ text }) => text ?? '');
}

function withText(message: RequestMessage, part: number, text: string): RequestMessage {
  const { content } = message;
  const changed = Array.isArray(content) ? content.with(part, { ...content[part], text }) : text;
  return { ...message, content: changed } as RequestMessage;
}

/** A hint on a message behind the added one. */
function shifted(hint: CacheHint, added: number): CacheHint {
  return hint.message !== undefined && hint.message >= added ? { message: hint.message + 1 } : hint;
}
