// Converts the replies of llama-headstart to those of the AI SDK.
import type {
  FinishReason as CoreFinishReason,
  StreamPart as CorePart,
  Usage as CoreUsage,
  Reply,
  ToolCall,
} from 'llama-headstart';
import { PROVIDER } from './provider-options.js';
import type { Ending, FinishReason, GenerateResult, StreamPart, Usage } from './specification.js';

type End = Pick<Reply, 'finishReason' | 'detail' | 'usage' | 'cache'>;

const FINISH_REASONS: Readonly<Record<CoreFinishReason, FinishReason['unified']>> = {
  stop: 'stop',
  length: 'length',
  'tool-calls': 'tool-calls',
  aborted: 'other',
};

/**
 * The end of a reply.
 *
 * @param isHinted whether the request has cache boundaries. Its prefilled tokens then count as written to the cache.
 */
export function endingOf({ finishReason, detail, usage, cache }: End, isHinted: boolean): Ending {
  return {
    finishReason: { unified: FINISH_REASONS[finishReason], raw: detail ?? finishReason },
    usage: usageOf(usage, isHinted),
    providerMetadata: { [PROVIDER]: { cache: json(cache) } },
  };
}

/** @param usage undefined if the cost is unknown */
export function usageOf(usage: CoreUsage | undefined, isHinted: boolean): Usage {
  if (usage === undefined) {
    return UNKNOWN;
  }
  const { inputTokens, cachedInputTokens, outputTokens, reasoningTokens } = usage;
  const prefilled = inputTokens - cachedInputTokens;
  return {
    inputTokens: {
      total: inputTokens,
      noCache: isHinted ? 0 : prefilled,
      cacheRead: cachedInputTokens,
      cacheWrite: isHinted ? prefilled : 0,
    },
    outputTokens: { total: outputTokens, text: outputTokens - reasoningTokens, reasoning: reasoningTokens },
    raw: json(usage),
  };
}

const UNKNOWN: Usage = {
  inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: undefined, text: undefined, reasoning: undefined },
};

/** The content of a whole reply. */
export function contentOf({ text, reasoning, toolCalls }: Reply): GenerateResult['content'] {
  return [
    ...(reasoning === '' ? [] : [{ type: 'reasoning' as const, text: reasoning }]),
    ...(text === '' ? [] : [{ type: 'text' as const, text }]),
    ...toolCalls.map(callOf),
  ];
}

function callOf({ toolCallId, toolName, input }: ToolCall) {
  // If the model wrote no JSON, `input` is its text.
  return {
    type: 'tool-call' as const,
    toolCallId,
    toolName,
    input: typeof input === 'string' ? input : JSON.stringify(input),
  };
}

/** A copy without undefined values, as the type of JSON objects requires. */
function json(value: object): Record<string, never> {
  return JSON.parse(JSON.stringify(value));
}

/** Converts the parts of a stream. Deltas in a row get one start and one end. */
export class PartConverter {
  readonly #isHinted: boolean;
  #open: { kind: 'text' | 'reasoning'; id: string } | undefined;
  #blocks = 0;
  /** The calls that have begun and not ended. */
  readonly #inputs = new Set<string>();

  constructor(isHinted: boolean) {
    this.#isHinted = isHinted;
  }

  convert(part: CorePart): StreamPart[] {
    switch (part.type) {
      case 'text-delta':
        return this.#delta('text', part.text);
      case 'reasoning-delta':
        return this.#delta('reasoning', part.text);
      case 'tool-input-start':
        this.#inputs.add(part.toolCallId);
        return [...this.#endBlock(), { type: part.type, id: part.toolCallId, toolName: part.toolName }];
      case 'tool-input-delta':
        return [{ type: part.type, id: part.toolCallId, delta: part.delta }];
      case 'tool-call':
        return [...this.#endBlock(), ...this.#endInput(part.toolCallId), callOf(part)];
      case 'finish':
        return [...this.end(), { type: 'finish', ...endingOf(part, this.#isHinted) }];
      default:
        return [];
    }
  }

  /** Ends everything that has begun. The calls that were cut off have no part `tool-call`. */
  end(): StreamPart[] {
    return [...this.#endBlock(), ...[...this.#inputs].flatMap((id) => this.#endInput(id))];
  }

  #delta(kind: 'text' | 'reasoning', delta: string): StreamPart[] {
    const isNew = this.#open?.kind !== kind;
    const ended = isNew ? this.#endBlock() : [];
    this.#open = isNew ? { kind, id: `${this.#blocks++}` } : this.#open;
    const { id } = this.#open as { id: string };
    return [...ended, ...(isNew ? [{ type: `${kind}-start` as const, id }] : []), { type: `${kind}-delta`, id, delta }];
  }

  #endBlock(): StreamPart[] {
    const open = this.#open;
    this.#open = undefined;
    return open === undefined ? [] : [{ type: `${open.kind}-end`, id: open.id }];
  }

  #endInput(id: string): StreamPart[] {
    return this.#inputs.delete(id) ? [{ type: 'tool-input-end', id }] : [];
  }
}
