// Cache hints: the places up to which a client expects later requests to have the same prompt.
import { group, integer, type OptionsOf, value } from '../option-types.js';
import { unlessRefused } from '../prompt/chat-template.js';
import { toolsInHead } from '../prompt/deferred-tools.js';
import type { ReplyOptions, TemplateSource } from '../prompt/renderer.js';
import type { Boundary } from '../prompt/template-boundary.js';
import type { ChatRequest } from './chat.js';
import type { ChatHost } from './chat-host.js';
import { isSystemMessage } from './message-reader.js';
import { readTolerantHistory } from './tolerant-history.js';
import type { TurnHints } from './turn.js';

const MAX_CACHE_HINTS = 8;
const DEFAULT_TTL_MS = 300_000;
/** A day, in ms. */
const MAX_TTL_MS = 86_400_000;

const HINT = {
  /** The place is the end of the message with this index in `messages`. */
  message: integer(0).optional(),
  /** The place is the end of the tool with this index in `tools`. */
  tool: integer(0).optional(),
  /** The place is the end of the system prompt. */
  system: value<true>((input) => input === true, 'true').optional(),
  /**
   * Time that the pin of the template lasts, in ms, up to a day, measured from the newest request with the hint. Has an
   * effect only on hints of tools and of the system prompt. If these hints of a request differ, the longest time
   * counts. @default 300000
   */
  ttlMs: integer(1, MAX_TTL_MS).optional(),
};

/**
 * A place in a request up to which later requests probably have the same prompt. It has exactly one of `message`,
 * `tool` and `system`.
 */
export interface CacheHint extends OptionsOf<typeof HINT> {}

export const CACHE_HINT_OPTIONS = group(HINT);

/** @returns undefined if all hints are valid. Otherwise the expectation, see `checked`. */
export function checkCacheHints(hints: unknown): string | undefined {
  if (!Array.isArray(hints) || hints.length > MAX_CACHE_HINTS) {
    return `an array of at most ${MAX_CACHE_HINTS} cache hints`;
  }
  const wrong = hints.findIndex((hint) => {
    const { data } = CACHE_HINT_OPTIONS.safeParse(hint);
    return (
      data === undefined || [data.message, data.tool, data.system].filter((each) => each !== undefined).length !== 1
    );
  });
  return wrong < 0
    ? undefined
    : `an array of cache hints, and the hint at index ${wrong} to be { message }, { tool } or { system: true }, with an ` +
        `optional ttlMs from 1 to ${MAX_TTL_MS}`;
}

type HintedRequest = Pick<ChatRequest, 'messages' | 'tools' | 'tenant' | 'affinity'> & {
  cacheHints: readonly CacheHint[];
};

/** The hints of a request. Undefined if there are none, or if `reproducible` forbids states at other places. */
export function hintsOf(host: ChatHost, request: ChatRequest, source: TemplateSource): RequestHints | undefined {
  const { cacheHints } = request;
  return cacheHints === undefined || host.engine.reproducible !== undefined
    ? undefined
    : new RequestHints(host, { ...request, cacheHints }, source);
}

/** The hints of one request. Hints whose place does not exist have no effect. */
class RequestHints implements TurnHints {
  readonly #host: ChatHost;
  readonly #request: HintedRequest;
  readonly #source: TemplateSource;
  /** The names of the tools to which the indices of hints refer. */
  readonly #toolNames: readonly string[];
  /** The hints in the template. */
  readonly #ofTemplate: readonly CacheHint[];
  /** The indices of the hinted messages, ascending, without the last message, which always has a checkpoint. */
  readonly #messages: readonly number[];
  #boundary: Boundary | undefined;

  constructor(host: ChatHost, request: HintedRequest, source: TemplateSource) {
    this.#host = host;
    this.#request = request;
    this.#source = source;
    const { cacheHints, messages, tools = host.defaults.tools.definitions } = request;
    this.#toolNames = tools.map(({ name }) => name);
    const isOfSystem = ({ system, message = -1 }: CacheHint) =>
      system || (message >= 0 && messages.slice(0, message + 1).every(isSystemMessage));
    this.#ofTemplate = cacheHints.filter((hint) =>
      hint.tool === undefined ? isOfSystem(hint) && source.systemPrompt !== undefined : hint.tool < tools.length,
    );
    const indices = cacheHints.flatMap((hint) =>
      hint.message === undefined || isOfSystem(hint) ? [] : [hint.message],
    );
    this.#messages = [...new Set(indices)].filter((index) => index < messages.length - 1).sort((a, b) => a - b);
  }

  /** Whether a hint is on a tool or on the system prompt. */
  get isOfTemplate(): boolean {
    return this.#ofTemplate.length > 0;
  }

  /**
   * The template of the request. If the memory cannot be trimmed, its breakpoints include the hinted places.
   *
   * @throws HeadstartError as `Templates.find`.
   */
  async template(): Promise<Boundary> {
    const { templates, engine } = this.#host;
    const counts = engine.canTrim ? [] : this.#ofTemplate.map((hint) => this.#toolsUpTo(hint)).sort((a, b) => a - b);
    this.#boundary = await templates.find(this.#source, [...new Set(counts)]);
    return this.#boundary;
  }

  /** Number of tools in the template that are in front of a hinted place. */
  #toolsUpTo({ tool = -1 }: CacheHint): number {
    const names = new Set(this.#toolNames.slice(0, tool + 1));
    const inHead = toolsInHead(this.#source.tools ?? []);
    const end = inHead.findIndex(({ name }) => !names.has(name));
    return end < 0 ? inHead.length : end;
  }

  /** Pins the template and its hinted beginnings. Call it when the template has been loaded. */
  pin(): void {
    const { tokens = new Int32Array(), breakpoints = [] } = this.#boundary ?? {};
    if (this.isOfTemplate && tokens.length > 0) {
      const { tenant, affinity } = this.#request;
      const ttlMs = Math.max(...this.#ofTemplate.map((hint) => hint.ttlMs ?? DEFAULT_TTL_MS));
      this.#host.cache.pinFor({ tenant, affinity }, tokens, breakpoints, ttlMs);
    }
  }

  /**
   * The numbers of tokens of the prompt in front of the ends of the hinted messages. To find an end, renders the
   * conversation up to this message.
   */
  async placesIn(prompt: Int32Array, options: ReplyOptions): Promise<number[]> {
    const { messageEnds } = this.#host;
    const places: number[] = [];
    for (const index of this.#messages) {
      const { messages } = readTolerantHistory(this.#request.messages.slice(0, index + 1));
      const place = await unlessRefused(messageEnds.after(this.#source, messages, prompt, options));
      places.push(place ?? 0); // some chat templates refuse a conversation that ends there
    }
    return places;
  }
}
