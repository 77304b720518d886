import { HeadstartError } from '../errors.js';
import type { ToolCall } from '../template/messages.js';
import type { Reply, StreamPart, ToolResult } from './parts.js';

/** Reads a stream to its end. */
export async function collectReply(parts: AsyncIterable<StreamPart>): Promise<Reply> {
  let text = '';
  let reasoning = '';
  const toolCalls: ToolCall[] = [];
  const toolResults: ToolResult[] = [];
  let reply: Reply | undefined;
  let inCalls = false;
  for await (const part of parts) {
    if (inCalls && (part.type === 'text' || part.type === 'reasoning')) {
      text = ''; // the next step's reply begins
      reasoning = '';
      inCalls = false;
    }
    switch (part.type) {
      case 'text':
        text += part.text;
        break;
      case 'reasoning':
        reasoning += part.text;
        break;
      case 'tool-call': {
        const { type: _, ...call } = part;
        toolCalls.push(call);
        inCalls = true;
        break;
      }
      case 'tool-result': {
        const { type: _, ...result } = part;
        toolResults.push(result);
        break;
      }
      case 'finish': {
        const { type: _, ...finish } = part;
        reply = { text, reasoning, toolCalls, toolResults, ...finish };
      }
    }
  }
  if (reply === undefined) {
    throw new HeadstartError('INTERNAL', 'The stream ended without a finish part');
  }
  return reply;
}
