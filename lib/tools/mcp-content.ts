// What MCP servers answer, as text for the model.

/** A piece of a result or a prompt's message, as far as it is looked at here. */
export interface McpContent {
  type: string;
  text?: unknown;
  data?: unknown;
  mimeType?: unknown;
  uri?: unknown;
  name?: unknown;
  resource?: { text?: unknown; blob?: unknown; uri?: unknown; mimeType?: unknown };
}

export interface McpResult {
  content?: unknown;
  structuredContent?: unknown;
}

/** Text as it is; of what a text model cannot see, that it was there. */
export function resultText({ content, structuredContent }: McpResult): string {
  const pieces = Array.isArray(content) ? (content as McpContent[]).map(contentText) : [];
  if (pieces.length === 0 && structuredContent !== undefined) {
    return JSON.stringify(structuredContent);
  }
  return pieces.join('\n');
}

export function contentText(content: McpContent): string {
  const { type, text, resource } = content;
  if (type === 'text') {
    return String(text ?? '');
  }
  if (type === 'resource' && typeof resource?.text === 'string') {
    return resource.text;
  }
  const { data, mimeType, uri } = { ...content, ...resource, data: content.data ?? resource?.blob };
  const facts = [mimeType, uri, typeof data === 'string' && `${Math.floor((data.length * 3) / 4)} bytes`];
  return `[${[type, ...facts.filter((fact) => typeof fact === 'string')].join(', ')}]`;
}
