// Converts the messages of the AI SDK to those of llama-headstart.
import { UnsupportedFunctionalityError } from '@ai-sdk/provider';
import type { CacheHint, RequestMessage } from 'llama-headstart';
import { boundariesOfMessage } from './provider-options.js';
import type { Message, Part, ToolCallPart, ToolOutput, ToolResultPart, Warning } from './specification.js';

/** The messages of a request, and the cache boundaries in them. */
export interface ReadPrompt {
  messages: RequestMessage[];
  boundaries: CacheHint[];
}

/**
 * Converts a prompt. One message with several tool results becomes several messages.
 *
 * @throws UnsupportedFunctionalityError if the prompt contains a file or an image.
 */
export function readPrompt(prompt: readonly Message[], warnings: Warning[]): ReadPrompt {
  const messages: RequestMessage[] = [];
  const boundaries: CacheHint[] = [];
  for (const message of prompt) {
    messages.push(...messagesOf(message, warnings));
    boundaries.push(...boundariesOfMessage(message, Math.max(0, messages.length - 1), warnings));
  }
  return { messages, boundaries };
}

function messagesOf(message: Message, warnings: Warning[]): RequestMessage[] {
  if (message.role === 'system') {
    return [{ role: 'system', content: message.content }];
  }
  const parts = message.content.filter((part) => isReadable(part, warnings));
  const results = parts.filter((part) => part.type === 'tool-result').map(resultMessage);
  switch (message.role) {
    case 'user':
      return [{ role: 'user', content: textOf(parts, 'text') }];
    case 'assistant':
      return [replyMessage(parts), ...results];
    case 'tool':
      return results;
  }
}

function replyMessage(parts: readonly Part[]): RequestMessage {
  const reasoning = textOf(parts, 'reasoning');
  const calls = parts.filter((part) => part.type === 'tool-call');
  return {
    role: 'assistant',
    content: textOf(parts, 'text'),
    ...(reasoning !== '' && { reasoning }),
    ...(calls.length > 0 && { toolCalls: calls.map(callOf) }),
  };
}

function textOf(parts: readonly Part[], type: 'text' | 'reasoning'): string {
  return parts.map((part) => (part.type === type ? part.text : '')).join('');
}

function callOf({ toolCallId, toolName, input }: ToolCallPart) {
  return { toolCallId, toolName, input };
}

function resultMessage({ toolCallId, toolName, output }: ToolResultPart): RequestMessage {
  return { role: 'tool', toolCallId, toolName, content: outputText(output) };
}

/** The result of a tool, as text for the model. */
function outputText(output: ToolOutput): string {
  switch (output.type) {
    case 'text':
    case 'error-text':
      return output.value;
    case 'json':
    case 'error-json':
      return JSON.stringify(output.value ?? null);
    case 'execution-denied':
      return output.reason ?? 'The user denied the execution of this tool.';
    case 'content':
      return output.value.map((part) => (part.type === 'text' ? part.text : refuse(part, 'in a tool result'))).join('');
  }
}

/**
 * Whether the model can read a part.
 *
 * @throws UnsupportedFunctionalityError for files and images.
 */
function isReadable(part: Part, warnings: Warning[]): boolean {
  switch (part.type) {
    case 'text':
    case 'reasoning':
    case 'tool-call':
    case 'tool-result':
      return true;
    case 'tool-approval-response':
      return false; // the AI SDK has already acted on it
    case 'custom':
      warnings.push({ type: 'unsupported', feature: 'custom content', details: 'The content of another provider.' });
      return false;
    default:
      return refuse(part, 'in a message');
  }
}

/** @throws UnsupportedFunctionalityError. */
function refuse({ type, mediaType }: { type: string; mediaType?: string }, where: string): never {
  const kind = mediaType === undefined ? type : `${type} (${mediaType})`;
  throw new UnsupportedFunctionalityError({ functionality: `${kind} ${where}` });
}
