import { HeadstartError } from '../errors.js';
import type { FinishPart, Reply, StreamPart, ToolResult, TurnPart } from '../generate/stream-parts.js';
import type { ToolCall } from '../prompt/messages.js';

/** A step consists of text, then calls, then results. Each of them may be missing. */
type Stage = 'text' | 'calls' | 'results';

/** Collects the parts of a turn. Text and reasoning are those of the last step. */
class ReplyCollector {
  #text = '';
  #reasoning = '';
  readonly #toolCalls: ToolCall[] = [];
  readonly #toolResults: ToolResult[] = [];
  #steps = 1;
  #stage: Stage = 'text';

  add(part: TurnPart): void {
    if (part.type === 'retry' || this.#isNextStep(part)) {
      this.#text = '';
      this.#reasoning = '';
      this.#steps++;
      this.#stage = 'text';
    }
    if (part.type === 'text-delta') {
      this.#text += part.text;
    } else if (part.type === 'reasoning-delta') {
      this.#reasoning += part.text;
    } else if (part.type === 'tool-call') {
      const { type, ...call } = part;
      this.#toolCalls.push(call);
      this.#stage = 'calls';
    } else if (part.type === 'tool-result') {
      const { type, ...result } = part;
      this.#toolResults.push(result);
      this.#stage = 'results';
    }
  }

  reply({ type, ...finish }: FinishPart): Reply {
    const [text, reasoning] = [this.#text, this.#reasoning];
    return { text, reasoning, toolCalls: this.#toolCalls, toolResults: this.#toolResults, ...finish };
  }

  #isNextStep(part: StreamPart): boolean {
    switch (part.type) {
      case 'tool-result':
        return false;
      case 'tool-input-start':
      case 'tool-input-delta':
      case 'tool-call':
        return this.#stage === 'results';
      case 'finish':
        return part.usage.steps > this.#steps; // the last step had no parts
      default:
        return this.#stage !== 'text';
    }
  }
}

/** Reads a stream to its end. */
export async function collectReply(parts: AsyncIterable<TurnPart>): Promise<Reply> {
  const collector = new ReplyCollector();
  let reply: Reply | undefined;
  for await (const part of parts) {
    collector.add(part);
    if (part.type === 'finish') {
      reply = collector.reply(part);
    }
  }
  if (reply === undefined) {
    throw new HeadstartError('INTERNAL', 'The stream ended without a finish part');
  }
  return reply;
}
