import { HeadstartError } from '../errors.js';
import type { Sampler } from '../native/sampler.js';
import { describe } from '../options.js';
import { Sequence } from './sequence.js';

/** Options of a prefill. */
export interface PrefillOptions {
  /** Stops the prefill between two decodes, with `ABORTED`. */
  signal?: AbortSignal | undefined;
}

/** Tokens to append to a sequence. */
export interface DecodeRequest extends PrefillOptions {
  /** A leased sequence. */
  sequence: Sequence;
  /** At least one token. Do not change the array while the request runs. */
  tokens: Int32Array;
  /** Chooses the next token. @default chooses the most likely token */
  sampler?: Sampler | null | undefined;
  /** The number of most likely next tokens to return with their log-probabilities. @default 0 */
  logProbabilities?: number | undefined;
  /** Return the logits after the last token: one float per vocabulary entry. @default false */
  logits?: boolean | undefined;
}

/** The result of a decode. */
export interface Decoded {
  /** The chosen next token. */
  token: number;
  /** The most likely next tokens, the most likely first. Present if {@link DecodeRequest.logProbabilities} is set. */
  logProbabilities?: {
    /** Token ids. */
    tokens: Int32Array;
    /** The natural logarithm of each token's probability. */
    values: Float32Array;
  };
  /** The logits after the last token. Present if {@link DecodeRequest.logits} is set. */
  logits?: Float32Array;
}

/** A request in progress, with its promise and the number of tokens decoded so far. */
export class PendingRequest {
  readonly request: DecodeRequest;
  /** Order of arrival; smaller is older. If KV cells run out, the youngest request is preempted. */
  readonly age: number;
  readonly promise: Promise<Decoded>;
  /** How many tokens of the request are in the sequence. */
  done = 0;
  /**
   * Whether the request was in a batch that failed. Such a request is decoded alone next, to find the request that
   * caused the failure.
   */
  suspect = false;
  /** Whether the request was preempted. Its sequence is then empty. */
  emptied = false;
  /** After a preemption: KV cells that the sequence needs to hold its earlier tokens and the request. */
  cellsNeeded = 0;
  /**
   * Whether the request begins an empty sequence, so that the scheduler can decode the request again from its start.
   */
  readonly restartable: boolean;
  resolve!: (decoded: Decoded) => void;
  reject!: (error: unknown) => void;

  constructor(request: DecodeRequest, age: number) {
    this.request = request;
    this.age = age;
    this.restartable = request.sequence.isEmpty;
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  get remaining(): number {
    return this.request.tokens.length - this.done;
  }
}

export function youngestOf(candidates: readonly PendingRequest[]): PendingRequest | undefined {
  return candidates.reduce<PendingRequest | undefined>(
    (youngest, pending) => (youngest === undefined || pending.age > youngest.age ? pending : youngest),
    undefined,
  );
}

/** The limits of the context, for {@link requestProblem}. */
export interface RequestLimits {
  vocabularySize: number;
}

/**
 * Finds problems that would make a whole batch fail, or affect another request. Token ids out of range are not among
 * them: the context reports such ids when it decodes.
 */
export function requestProblem(request: DecodeRequest, limits: RequestLimits): HeadstartError | undefined {
  const { sequence, tokens, signal, logProbabilities = 0 } = request;
  if (!(tokens instanceof Int32Array) || tokens.length === 0) {
    const received = tokens instanceof Int32Array ? 'an empty one' : describe(tokens);
    return new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected \`tokens\` to be an Int32Array with at least one token, got ${received}`,
    );
  }
  if (!(sequence instanceof Sequence) || !sequence.isLeased) {
    const received = sequence instanceof Sequence ? 'one that was released or evicted' : describe(sequence);
    return new HeadstartError('INVALID_ARGUMENT', `Expected \`sequence\` to be a leased sequence, got ${received}`);
  }
  if (!isIntegerBelow(logProbabilities, limits.vocabularySize + 1)) {
    const expected = `an integer from 0 to ${limits.vocabularySize}`;
    const got = describe(logProbabilities);
    return new HeadstartError('INVALID_ARGUMENT', `Expected \`logProbabilities\` to be ${expected}, got ${got}`);
  }
  return signal === undefined || typeof signal?.aborted === 'boolean'
    ? undefined
    : new HeadstartError('INVALID_ARGUMENT', `Expected \`signal\` to be an AbortSignal, got ${describe(signal)}`);
}

function isIntegerBelow(value: unknown, limit: number): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < limit;
}
