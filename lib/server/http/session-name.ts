/** Headers in which clients name their session, the most specific first. */
const HEADERS = [
  'thread-id',
  'x-claude-code-agent-id',
  'x-claude-code-session-id',
  'x-session-id',
  'x-session-affinity',
  'session-id',
];

/** The client's name for a conversation; undefined if the client sends none. */
export function sessionNameOf(headers: Headers): string | undefined {
  for (const name of HEADERS) {
    const value = headers.get(name);
    if (value) {
      return value;
    }
  }
  return undefined;
}
