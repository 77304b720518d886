import { HeadstartError } from '../errors.js';
import type { Reply, StreamPart, ToolResult, TurnPart } from '../generate/stream-parts.js';
import type { ToolCall } from '../prompt/messages.js';

/** A step is text, then calls, then results; each may be missing. */
type Stage = 'reply' | 'calls' | 'results';

const STAGES: Partial<Record<StreamPart['type'], Stage>> = { 'tool-call': 'calls', 'tool-result': 'results' };

function beginsStep(part: StreamPart, stage: Stage, steps: number): boolean {
  switch (part.type) {
    case 'tool-result':
      return false;
    case 'tool-input-start':
    case 'tool-input-delta':
    case 'tool-call':
      return stage === 'results';
    case 'finish':
      return part.usage.steps > steps; // the last step said nothing
    default:
      return stage !== 'reply';
  }
}

/** Reads a stream to its end. */
export async function collectReply(parts: AsyncIterable<TurnPart>): Promise<Reply> {
  let text = '';
  let reasoning = '';
  const toolCalls: ToolCall[] = [];
  const toolResults: ToolResult[] = [];
  let reply: Reply | undefined;
  let steps = 1;
  let stage: Stage = 'reply';
  for await (const part of parts) {
    if (part.type === 'again' || beginsStep(part, stage, steps)) {
      text = '';
      reasoning = '';
      steps++;
      stage = 'reply';
    }
    if (part.type === 'again') {
      continue;
    }
    stage = STAGES[part.type] ?? stage;
    switch (part.type) {
      case 'text-delta':
        text += part.text;
        break;
      case 'reasoning-delta':
        reasoning += part.text;
        break;
      case 'tool-call': {
        const { type: _, ...call } = part;
        toolCalls.push(call);
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
