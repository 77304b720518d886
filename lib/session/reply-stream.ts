import type { Generated, Generation } from '../generate/generation.js';
import { ReasoningCounter } from '../generate/reasoning-counter.js';
import type { StreamPart } from '../generate/stream-parts.js';
import type { UsageCounter } from '../generate/usage-counter.js';
import type { ReplyRest, VisibleReply } from '../generate/visible-reply.js';

/** A reply on its way: pieces of it in, parts of a stream out. */
export class ReplyStream {
  readonly #generation: Generation;
  readonly #reader: VisibleReply;
  /** Text that came with reasoning: the next part. */
  #text = '';
  readonly #reasoning: ReasoningCounter;
  #failure: { error: unknown } | undefined;

  constructor(generation: Generation, reader: VisibleReply, usage: UsageCounter) {
    this.#generation = generation;
    this.#reader = reader;
    this.#reasoning = new ReasoningCounter(reader, usage);
  }

  /** Undefined where there is none any more, also because it failed: {@link result} says so. */
  async next(): Promise<StreamPart | undefined> {
    try {
      while (this.#text === '') {
        const piece = await this.#generation.next();
        if (piece === undefined) {
          return undefined;
        }
        const read = this.#reader.push(piece);
        const { text, reasoning } = read instanceof Promise ? await read : read;
        this.#reasoning.update();
        this.#text = text;
        if (reasoning !== '') {
          return { type: 'reasoning-delta', text: reasoning };
        }
      }
    } catch (error) {
      this.#failure = { error };
      return undefined;
    }
    const text = this.#text;
    this.#text = '';
    return { type: 'text-delta', text };
  }

  /** Ends the reply and returns the rest, as {@link VisibleReply.finish} does. */
  async finish(cut: boolean): Promise<ReplyRest> {
    const rest = await this.#reader.finish(cut);
    this.#reasoning.update();
    return rest;
  }

  /**
   * What it came to, once {@link next} gave the last part.
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
