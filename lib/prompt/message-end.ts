// Finds the end of the last message in a prompt. The generation prompt follows this message. Many chat templates leave
// out a part of the generation prompt (`<think>`) once the reply is in the history. From that part on, the next prompt
// of the conversation differs.
import type { Model } from '../native/model.js';
import { remembered } from '../remembered.js';
import { commonPrefixLength } from '../tokens.js';
import { unlessRefused } from './chat-template.js';
import type { ChatMessage } from './messages.js';
import type { Prompt, Renderer, ReplyOptions, TemplateSource, TextOptions } from './renderer.js';
import { MERGE_MARGIN } from './template-boundary.js';

/** A text that no chat template contains. */
const PROBE = 'headstart_probe_3a7c';
const USER: ChatMessage = { role: 'user', content: PROBE };
const HISTORY: readonly ChatMessage[] = [USER, { role: 'assistant', content: 'Yes' }, USER];

/** Finds the ends of messages in the prompts of one renderer. */
export class MessageEnds {
  readonly #model: Model;
  readonly #renderer: Renderer;
  /** The part of the generation prompt that histories leave out, with and without reasoning. */
  readonly #unrepeated = new Map<boolean, Promise<Int32Array>>();

  constructor(model: Model, renderer: Renderer) {
    this.#model = model;
    this.#renderer = renderer;
  }

  /**
   * The number of tokens up to the end of the last message, cut so that no merge of tokens crosses the end. The next
   * prompt of the conversation most likely begins with these tokens.
   *
   * Some chat templates (RWKV, Command R7B) write the generation prompt even if llama.cpp does not request it.
   * llama.cpp then cannot report the generation prompt. This class then renders a history once, to find the part of the
   * generation prompt that histories leave out.
   *
   * @throws HeadstartError as {@link Renderer.prompt}.
   */
  async in({ tokens, opening }: Prompt, { reasoning = true }: ReplyOptions = {}): Promise<number> {
    if (opening !== '') {
      return this.#cut(tokens, tokens.length - (await this.#renderer.tokensAfterText(opening)).length);
    }
    const unrepeated = await this.#unrepeatedOpening(reasoning);
    return this.#cut(tokens, endsWith(tokens, unrepeated) ? tokens.length - unrepeated.length : tokens.length);
  }

  /**
   * The number of tokens of a prompt up to the end of an earlier message, cut like the result of {@link in}.
   *
   * @param messages the conversation up to that message
   * @throws HeadstartError as {@link Renderer.tokens}.
   */
  async after(
    source: TemplateSource,
    messages: readonly ChatMessage[],
    prompt: Int32Array,
    options: TextOptions,
  ): Promise<number> {
    const { tokens } = await this.#renderer.tokens(source, messages, { ...options, addGenerationPrompt: false });
    return this.#cut(prompt, commonPrefixLength(tokens, prompt));
  }

  /**
   * Returns the position right after a control token near `end`. If there is no such token, returns `end` minus a
   * margin, so that no merge crosses the position.
   */
  #cut(prompt: Int32Array, end: number): number {
    const controlTokens = this.#model.controlTokens();
    for (let cut = end; cut >= end - MERGE_MARGIN; cut--) {
      if (controlTokens.has(prompt[cut - 1] as number)) {
        return cut;
      }
    }
    return Math.max(0, end - MERGE_MARGIN);
  }

  #unrepeatedOpening(reasoning: boolean): Promise<Int32Array> {
    return remembered(this.#unrepeated, reasoning, async () => {
      const opening = await unlessRefused(this.#findUnrepeated(reasoning));
      return opening ?? new Int32Array(); // some chat templates refuse such a conversation
    });
  }

  /**
   * Returns the part of the generation prompt that histories leave out. If more than the generation prompt differs, the
   * result contains the probe, and then no real prompt ends with the result.
   */
  async #findUnrepeated(reasoning: boolean): Promise<Int32Array> {
    const { tokens } = await this.#renderer.prompt({}, [USER], { reasoning });
    const next = await this.#renderer.prompt({}, HISTORY, { reasoning });
    return tokens.slice(commonPrefixLength(tokens, next.tokens));
  }
}

function endsWith(tokens: Int32Array, end: Int32Array): boolean {
  const from = tokens.length - end.length;
  return from >= 0 && end.every((token, index) => tokens[from + index] === token);
}
