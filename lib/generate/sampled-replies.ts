// Keeps replies as they were sampled, and puts them into later prompts. Clients send a reply back in another form: with
// other white space in arguments, or without the white space around reasoning. The tokens of the rendered reply then
// differ from the sampled ones, although the values are the same.
import { isDeepStrictEqual } from 'node:util';
import { LRUCache } from 'lru-cache';
import type { Model } from '../native/model.js';
import type { ChatMessage } from '../prompt/messages.js';
import type {
  Prompt,
  Renderer,
  ReplyOptions,
  TemplateSource,
  TextOptions,
  TokenizedPrompt,
} from '../prompt/renderer.js';
import { commonPrefixLength, concatTokens, sameTokens, TokenHash } from '../tokens.js';
import { type Conversation, type KnownReply, type ReplyOwner, TurnMatcher } from './rendered-turn.js';
import type { ReplyValues } from './reply-reader.js';
import { readSampledReply, type SampledReply } from './sampled-reply.js';

/** Maximum size of all kept replies, in bytes of an estimate: about 2,000 replies of 1,000 tokens. */
const MAX_BYTES = 32 * 1024 ** 2;

/** Maximum number of replies to one prompt. */
const MAX_SAMPLES = 8;

/** The end of a generation, as {@link ConversationPrompt.remember} needs it. */
export interface GeneratedReply extends Pick<SampledReply, 'tokens' | 'isWhole'> {
  values: ReplyValues;
  /** As in `ReplyReader`. */
  isStructured: boolean;
}

/** Which replies the prompts of a conversation may contain, and whom new replies belong to. */
export interface ReplyScope extends ReplyOwner {
  /** The key group of the conversation. Replies of other groups are not used. */
  group: string;
}

/** A conversation whose replies are kept. */
export interface ReplyKeeper {
  /** Undefined if replies are neither kept nor used. Another group means that the adapters have changed. */
  readonly replyScope: ReplyScope | undefined;
}

/** A prompt in which earlier replies have the tokens that were sampled. */
export interface ConversationPrompt extends Prompt {
  /** The scope of the replies that may be in the prompt; undefined if all replies are as rendered. */
  scope: ReplyScope | undefined;
  /** Keeps a reply to this prompt, so that later prompts contain its tokens. */
  remember: (reply: GeneratedReply) => void;
}

/** Replies that were saved together with KV states. */
export interface SavedReplies {
  /** Adds the replies of a key group that were not read yet. Returns undefined if there are none. */
  loadReplies(group: string, add: (records: readonly unknown[]) => void): Promise<void> | undefined;
}

/** The sampled replies of an agent. */
export class SampledReplies {
  readonly #model: Model;
  readonly #renderer: Renderer;
  readonly #saved: SavedReplies | undefined;
  readonly #matcher: TurnMatcher;
  /** Replies by their group and the hash of their prompts' beginnings; the newest ones first. */
  readonly #known = new LRUCache<string, KnownReply[]>({ maxSize: MAX_BYTES, sizeCalculation: sizeOf });

  constructor(model: Model, renderer: Renderer, saved?: SavedReplies) {
    this.#model = model;
    this.#renderer = renderer;
    this.#saved = saved;
    this.#matcher = new TurnMatcher(model, renderer);
  }

  /**
   * Renders the prompt of a conversation, and puts the sampled tokens into it.
   *
   * @throws HeadstartError as {@link Renderer.prompt}.
   */
  async prompt(
    keeper: ReplyKeeper,
    source: TemplateSource,
    messages: readonly ChatMessage[],
    options: ReplyOptions = {},
  ): Promise<ConversationPrompt> {
    const rendered = await this.#renderer.prompt(source, messages, options);
    const scope = keeper.replyScope;
    const prompt = await this.#withReplies(keeper, { source, messages }, rendered);
    const remember = (reply: GeneratedReply) => {
      if (scope !== undefined && scope.group === keeper.replyScope?.group) {
        this.#remember(keeper, scope, prompt, options, reply);
      }
    };
    return Object.assign(prompt, { scope, remember }); // a copy would find the text of the prompt
  }

  /**
   * Like {@link prompt}, without the format of the reply. Does not count as a use of the replies.
   *
   * @throws HeadstartError as {@link Renderer.tokens}.
   */
  async tokens(
    keeper: ReplyKeeper,
    source: TemplateSource,
    messages: readonly ChatMessage[],
    options: TextOptions = {},
  ): Promise<TokenizedPrompt> {
    const rendered = await this.#renderer.tokens(source, messages, options);
    return this.#withReplies(keeper, { source, messages }, rendered, false);
  }

  /**
   * The replies that are in a list of tokens, which need not contain the end of the last one.
   *
   * @param group the key group of the tokens
   */
  recordsFor(group: string, tokens: Int32Array): SampledReply[] {
    const records: SampledReply[] = [];
    const hash = new TokenHash();
    for (let at = 0; at < tokens.length; ) {
      const token = tokens[at++] as number;
      hash.push(token);
      const rest = tokens.subarray(at);
      const inside = this.#after(group, hash, at, token).filter(({ reply }) => isAtStart(reply, rest));
      records.push(...inside.map(({ reply }) => reply));
    }
    return records;
  }

  /**
   * Adds the result of {@link recordsFor} after it was saved. Ignores records that are damaged.
   *
   * @param group the key group of the tokens
   * @param owner undefined if unknown
   */
  addRecords(group: string, records: readonly unknown[], owner?: ReplyOwner): void {
    const { size } = this.#model.info.vocabulary;
    for (const record of [...records].reverse()) {
      const reply = readSampledReply(record);
      if (reply !== undefined && [...reply.opening, ...reply.tokens].every((token) => token < size)) {
        this.#add(group, { reply, owner, keepers: new WeakSet(), isContinued: true });
      }
    }
  }

  /** Drops the replies of some owners, and those of unknown owners. */
  forget(isForgotten: (owner: ReplyOwner) => boolean): void {
    for (const [key, known] of [...this.#known]) {
      const kept = known.filter(({ owner }) => owner !== undefined && !isForgotten(owner));
      if (kept.length === 0) {
        this.#known.delete(key);
      } else if (kept.length < known.length) {
        this.#known.set(key, kept);
      }
    }
  }

  /** @internal All replies, with their groups. */
  all(): { group: string; replies: SampledReply[] }[] {
    return [...this.#known].map(([key, known]) => ({
      group: key.slice(0, key.lastIndexOf(' ')),
      replies: known.map(({ reply }) => reply),
    }));
  }

  /**
   * Replaces the turns of a rendered prompt that are known replies.
   *
   * @param isUse whether this counts as a use of the replies
   */
  async #withReplies<Rendered extends TokenizedPrompt>(
    keeper: ReplyKeeper,
    conversation: Conversation,
    prompt: Rendered,
    isUse = true,
  ): Promise<Rendered> {
    const scope = keeper.replyScope;
    const loading = scope && this.#saved?.loadReplies(scope.group, (records) => this.addRecords(scope.group, records));
    if (loading !== undefined) {
      await loading;
    }
    if (scope === undefined || this.#known.size === 0) {
      return prompt;
    }
    const rendered = prompt.tokens;
    const parts: ArrayLike<number>[] = [];
    const hash = new TokenHash();
    let copied = 0;
    let length = 0;
    for (let at = 0; at < rendered.length; ) {
      const token = rendered[at++] as number;
      hash.push(token);
      length++;
      const replies = preferred(this.#after(scope.group, hash, length, token, isUse), keeper);
      const match = replies.length === 0 ? undefined : await this.#matcher.find(rendered, at, replies, conversation);
      if (match !== undefined) {
        if (isUse) {
          match.known.isContinued = true;
          match.known.keepers.add(keeper);
        }
        const { tokens, end } = match;
        hash.add(tokens);
        length += tokens.length;
        if (!sameTokens(tokens, rendered.subarray(at, end))) {
          parts.push(rendered.subarray(copied, at), tokens);
          copied = end;
        }
        at = end;
      }
    }
    return parts.length === 0 ? prompt : this.#withTokens(prompt, concatTokens([...parts, rendered.subarray(copied)]));
  }

  /** Changes the tokens of a prompt. Its text is found only if a caller needs it. */
  #withTokens<Rendered extends TokenizedPrompt>(prompt: Rendered, tokens: Int32Array): Rendered {
    const textOf = () => this.#textOf(tokens);
    let text: string | undefined;
    return {
      ...prompt,
      tokens,
      get text() {
        text ??= textOf();
        return text;
      },
    };
  }

  #textOf(tokens: Int32Array): string {
    const { bos, addsBos } = this.#model.info.vocabulary;
    const written = addsBos && tokens[0] === bos ? tokens.subarray(1) : tokens;
    const bytes = Array.from(written, (token) => this.#model.tokenToBytes(token, { special: true }));
    return new TextDecoder().decode(Buffer.concat(bytes));
  }

  /** The replies to prompts that have `length` tokens with this hash, the last one `token`, in front of the opening. */
  #after(group: string, hash: TokenHash, length: number, token: number, isUse = true): readonly KnownReply[] {
    if (!this.#model.controlTokens().has(token)) {
      return NONE;
    }
    const key = keyOf(group, hash.value);
    const known = (isUse ? this.#known.get(key) : this.#known.peek(key)) ?? NONE;
    return known.filter(({ reply }) => reply.after.tokens === length);
  }

  #remember(
    keeper: ReplyKeeper,
    { group, ...owner }: ReplyScope,
    prompt: Prompt,
    options: ReplyOptions,
    reply: GeneratedReply,
  ): void {
    const { tokens, isWhole, values, isStructured } = reply;
    const { toolChoice = 'auto', parallelToolCalls = false, reasoning = true } = options;
    const length = this.#lastControlToken(prompt.tokens) + 1;
    if (length === 0 || tokens.length === 0 || this.#hasForeignControlToken(tokens, prompt)) {
      return;
    }
    const hash = new TokenHash();
    hash.add(prompt.tokens.subarray(0, length));
    const sampled: SampledReply = {
      after: { tokens: length, hash: hash.value },
      opening: [...prompt.tokens.subarray(length)],
      tokens: [...tokens],
      isWhole,
      values,
      format: { toolChoice, parallelToolCalls, reasoning, isStructured },
    };
    this.#add(group, { reply: sampled, owner, keepers: new WeakSet(), isContinued: false }).keepers.add(keeper);
  }

  /** The position of the newest control token. Tokens of white space do not count, because text may merge with them. */
  #lastControlToken(tokens: Int32Array): number {
    const controlTokens = this.#model.controlTokens();
    const decoder = new TextDecoder();
    const isControl = (token: number) =>
      controlTokens.has(token) && decoder.decode(this.#model.tokenToBytes(token, { special: true })).trim() !== '';
    return tokens.findLastIndex(isControl);
  }

  /**
   * Whether the model wrote a control token that does not belong to replies of this format. Later prompts must not
   * contain such a token.
   */
  #hasForeignControlToken(tokens: readonly number[], { format }: Prompt): boolean {
    const preserved = this.#renderer.preservedTokens(format);
    const controlTokens = this.#model.controlTokens();
    return tokens.some((token) => controlTokens.has(token) && !preserved.has(token) && this.#model.isControl(token));
  }

  /** Puts a reply in front of others to the same prompt. */
  #add(group: string, known: KnownReply): KnownReply {
    const key = keyOf(group, known.reply.after.hash);
    const earlier = this.#known.get(key) ?? [];
    const equal = earlier.find(({ reply }) => isDeepStrictEqual(reply, known.reply));
    const newest = equal ?? known;
    this.#known.set(key, [newest, ...earlier.filter((each) => each !== newest)].slice(0, MAX_SAMPLES));
    return newest;
  }
}

const NONE: KnownReply[] = [];

/** The replies of the conversation first, then those of other conversations, and then those without a conversation. */
function preferred(replies: readonly KnownReply[], keeper: ReplyKeeper): readonly KnownReply[] {
  const rank = ({ keepers, isContinued }: KnownReply) => (keepers.has(keeper) ? 2 : Number(isContinued));
  return replies.length < 2 ? replies : [...replies].sort((a, b) => rank(b) - rank(a));
}

function keyOf(group: string, hash: number): string {
  return `${group} ${hash}`;
}

/** Whether the tokens begin with the reply, or end inside it. */
function isAtStart({ opening, tokens }: SampledReply, rest: Int32Array): boolean {
  const reply = [...opening, ...tokens];
  const shared = commonPrefixLength(reply, rest);
  return shared > opening.length && (shared === reply.length || shared === rest.length);
}

/** The approximate size in bytes. */
function sizeOf(known: readonly KnownReply[]): number {
  return known.reduce((total, { reply: { opening, tokens, values } }) => {
    const { text, reasoning, toolCalls } = values;
    const calls = toolCalls.reduce((sum, call) => sum + call.name.length + call.arguments.length + 64, 0);
    // The list `compared` of a known reply has about as many tokens as the reply.
    return total + 512 + 12 * (opening.length + tokens.length) + 2 * (text.length + reasoning.length + calls);
  }, 0);
}
