import type { ChatRequest } from '../../chat/chat.js';
import type { Client } from './access.js';

/** Headers in which clients name their session, the most specific first. */
const HEADERS = [
  'thread-id',
  'x-claude-code-agent-id',
  'x-claude-code-session-id',
  'x-session-id',
  'x-session-affinity',
  'session-id',
];

/** Adds the tenant of the client and the name of its session. A header that names the session overrides the body. */
export function clientRequest(
  request: ChatRequest,
  { headers, client: { tenant } }: { headers: Headers; client: Client },
): ChatRequest {
  const affinity = sessionNameOf(headers) ?? request.affinity;
  return { ...request, ...(tenant !== undefined && { tenant }), ...(affinity !== undefined && { affinity }) };
}

/** The client's name for a conversation; undefined if the client sends none. */
function sessionNameOf(headers: Headers): string | undefined {
  for (const name of HEADERS) {
    const value = headers.get(name);
    if (value) {
      return value;
    }
  }
  return undefined;
}
