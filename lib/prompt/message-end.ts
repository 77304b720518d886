// Where the last message of a prompt ends. What follows opens the reply, and many chat templates leave a part of that opening out
// (`<think>`) once the reply is history.
import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import { commonPrefixLength } from '../tokens.js';
import type { ChatMessage } from './messages.js';
import type { Prompt, Renderer, ReplyOptions } from './renderer.js';
import { MERGE_MARGIN } from './template-boundary.js';

/** A text that no chat template holds. */
const PROBE = 'headstart_probe_3a7c';
const USER: ChatMessage = { role: 'user', content: PROBE };
const HISTORY: readonly ChatMessage[] = [USER, { role: 'assistant', content: 'Yes' }, USER];

/** Finds the ends of messages in the prompts of one renderer. */
export class MessageEnds {
  readonly #model: Model;
  readonly #renderer: Renderer;
  /** What prompts end with and histories do not repeat: with and without reasoning. */
  readonly #unrepeated = new Map<boolean, Promise<Int32Array>>();

  constructor(model: Model, renderer: Renderer) {
    this.#model = model;
    this.#renderer = renderer;
  }

  /**
   * How many tokens of a prompt its messages take, cut so that no merge of tokens crosses the end. The next prompt of the conversation
   * most likely begins with them.
   *
   * Some chat templates (RWKV's, Command R7B's) open the reply whether they are asked to or not. How they open it is found by
   * rendering a history, and remembered.
   *
   * @throws HeadstartError as {@link Renderer.prompt}.
   */
  async in({ tokens, opening }: Prompt, { reasoning = true }: ReplyOptions = {}): Promise<number> {
    if (opening !== '') {
      return this.#cut(tokens, tokens.length - (await this.#renderer.tokensBehind(opening)).length);
    }
    const unrepeated = await this.#unrepeatedOpening(reasoning);
    return this.#cut(tokens, endsWith(tokens, unrepeated) ? tokens.length - unrepeated.length : tokens.length);
  }

  /** A little in front of `end`: just after a control token if there is one, else so far that no merge crosses the place. */
  #cut(prompt: Int32Array, end: number): number {
    const unmerged = this.#model.controlTokens();
    for (let cut = end; cut >= end - MERGE_MARGIN; cut--) {
      if (unmerged.has(prompt[cut - 1] as number)) {
        return cut;
      }
    }
    return Math.max(0, end - MERGE_MARGIN);
  }

  #unrepeatedOpening(reasoning: boolean): Promise<Int32Array> {
    let known = this.#unrepeated.get(reasoning);
    if (known === undefined) {
      known = this.#findUnrepeated(reasoning);
      known.catch(() => this.#unrepeated.delete(reasoning));
      this.#unrepeated.set(reasoning, known);
    }
    return known;
  }

  /** If more differs than the opening, what is found holds the text of the probe, and no other prompt ends with it. */
  async #findUnrepeated(reasoning: boolean): Promise<Int32Array> {
    try {
      const { tokens } = await this.#renderer.prompt({}, [USER], { reasoning });
      const next = await this.#renderer.prompt({}, HISTORY, { reasoning });
      return tokens.slice(commonPrefixLength(tokens, next.tokens));
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CHAT_TEMPLATE_FAILED')) {
        return new Int32Array(); // some refuse a conversation like this one
      }
      throw error;
    }
  }
}

function endsWith(tokens: Int32Array, end: Int32Array): boolean {
  const from = tokens.length - end.length;
  return from >= 0 && end.every((token, index) => tokens[from + index] === token);
}
