import type { ChatRequest } from '../../chat/chat.js';
import type { WantedRules } from '../normalizers/normalizer.js';
import { withPortableHead } from '../normalizers/portable-heads.js';
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

/** A request of a client, and the names of the rules that changed it. */
export interface ClientRequest {
  request: ChatRequest;
  rules: readonly string[];
}

/**
 * Adds the tenant of the client and the name of its session. A header that names the session overrides the body. With
 * the option `portableHeads`, also moves text of the client's system prompt.
 */
export function clientRequest(
  read: ChatRequest,
  { headers, client: { tenant }, wantedRules }: { headers: Headers; client: Client; wantedRules: WantedRules },
): ClientRequest {
  const { body, rules } = wantedRules.portableHeads ? withPortableHead(read) : { body: read, rules: [] };
  const affinity = sessionNameOf(headers) ?? body.affinity;
  const request = { ...body, ...(tenant !== undefined && { tenant }), ...(affinity !== undefined && { affinity }) };
  return { request, rules };
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
