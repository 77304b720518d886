import type { Generated, Generation } from '../generate/generation.js';
import { ReasoningCounter } from '../generate/reasoning-counter.js';
import type { ReplyDelta } from '../generate/reply-reader.js';
import type { StreamPart } from '../generate/stream-parts.js';
import type { FinishedCall, ToolInputs } from '../generate/tool-input.js';
import type { UsageCounter } from '../generate/usage-counter.js';
import type { VisibleReply } from '../generate/visible-reply.js';
import type { ReplyToolCall } from '../native/reply.js';

/** Turns the pieces of one generated reply into parts of a stream. */
export class ReplyStream {
  readonly #generation: Generation;
  readonly #reader: VisibleReply;
  readonly #inputs: ToolInputs;
  readonly #reasoning: ReasoningCounter;
  /** Parts that came with the last piece and were not returned yet. */
  #ready: StreamPart[] = [];
  #failure: { error: unknown } | undefined;

  constructor(generation: Generation, reader: VisibleReply, inputs: ToolInputs, usage: UsageCounter) {
    this.#generation = generation;
    this.#reader = reader;
    this.#inputs = inputs;
    this.#reasoning = new ReasoningCounter(reader, usage);
  }

  /** Returns undefined at the end of the reply, also if it failed: {@link result} throws the error. */
  async next(): Promise<StreamPart | undefined> {
    try {
      while (this.#ready.length === 0) {
        const piece = await this.#generation.next();
        if (piece === undefined) {
          return undefined;
        }
        const read = this.#reader.push(piece);
        const delta = read instanceof Promise ? await read : read;
        this.#reasoning.update();
        this.#ready = [...textParts(delta), ...this.#inputs.read(this.#reader.begunCalls)];
      }
    } catch (error) {
      this.#failure = { error };
      return undefined;
    }
    return this.#ready.shift();
  }

  /**
   * Ends the reply and returns the rest of its text, and its calls.
   *
   * @param cut as {@link VisibleReply.finish} has it
   */
  async finish(cut: boolean): Promise<{ parts: StreamPart[]; toolCalls: readonly ReplyToolCall[] }> {
    const { toolCalls, ...rest } = await this.#reader.finish(cut);
    this.#reasoning.update();
    return { parts: textParts(rest), toolCalls };
  }

  /** Ends the calls, which are some of those that {@link finish} returned: all up to one of them. */
  finishCalls(written: readonly ReplyToolCall[]): FinishedCall[] {
    return this.#inputs.finish(written);
  }

  /**
   * The end of the reply, once {@link next} returned undefined.
   *
   * @throws HeadstartError what generating and reading throw.
   */
  get result(): Generated {
    if (this.#failure !== undefined) {
      throw this.#failure.error;
    }
    return this.#generation.result;
  }
}

function textParts({ text, reasoning }: ReplyDelta): StreamPart[] {
  return [
    ...(reasoning === '' ? [] : [{ type: 'reasoning-delta', text: reasoning } as const]),
    ...(text === '' ? [] : [{ type: 'text-delta', text } as const]),
  ];
}
