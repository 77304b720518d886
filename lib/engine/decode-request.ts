import { HeadstartError } from '../errors.js';
import type { Sampler } from '../native/sampler.js';
import { describe } from '../options.js';

/** How a prompt is decoded. */
export interface PrefillOptions {
  /** Ends it with `ABORTED`, between two decodes. */
  signal?: AbortSignal | undefined;
  /** Called after each batch with the tokens that are now in the sequence. */
  onDecoded?: ((tokens: Int32Array) => void) | undefined;
}

/** Tokens to decode into a sequence. */
export interface DecodeRequest extends PrefillOptions {
  /** The id of a sequence that the caller has leased. */
  sequence: number;
  /** At least one. Do not change the array while this runs. */
  tokens: Int32Array;
  /** The position of the first: where the sequence ends. */
  from: number;
  /** Chooses the token after the last. @default the likeliest */
  sampler?: Sampler | null | undefined;
  /** How many of the likeliest next tokens to tell, with their log-probabilities. @default 0 */
  logProbabilities?: number | undefined;
  /** Tell the logits behind the last token: vocabulary size floats. @default false */
  logits?: boolean | undefined;
}

/** What came of a decode. */
export interface Decoded {
  /** The token chosen to follow the last. */
  token: number;
  /** Likeliest first; natural logarithms. Where {@link DecodeRequest.logProbabilities} asked for them. */
  logProbabilities?: {
    /** Token ids. */
    tokens: Int32Array;
    /** The logarithm of the probability of each. */
    values: Float32Array;
  };
  /** Where {@link DecodeRequest.logits} asked for them. */
  logits?: Float32Array;
}

/** A request on its way: how much of it is decoded, and its promise. */
export class PendingRequest {
  readonly request: DecodeRequest;
  /** Requests of who began earlier have a smaller one: the last to come gives way where cells are short. */
  readonly age: number;
  readonly promise: Promise<Decoded>;
  /** Tokens of the request that are in the sequence. */
  done = 0;
  /** Its batch failed for a reason that may be another's: it is tried alone. */
  suspect = false;
  /** Its sequence was emptied to make room. */
  emptied = false;
  resolve!: (decoded: Decoded) => void;
  reject!: (error: unknown) => void;

  constructor(request: DecodeRequest, age: number) {
    this.request = request;
    this.age = age;
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  get remaining(): number {
    return this.request.tokens.length - this.done;
  }

  /** Cells that the sequence will have taken in the end. */
  get cellsNeeded(): number {
    return this.request.from + this.request.tokens.length;
  }

  /** Nobody has been told what of it is in the sequence: it can begin again unnoticed. */
  get restartable(): boolean {
    return this.request.from === 0 && this.request.onDecoded === undefined;
  }
}

/** What a request may name: of its context. */
export interface RequestLimits {
  maxSequences: number;
  vocabularySize: number;
}

const MOST_POSITIONS = 2 ** 31 - 1;

/**
 * What is wrong with a request that would spoil a batch, or be read as another one. The rest is the context's to refuse: whose
 * tokens are out of range or do not follow what their sequence holds is found when the batch fails.
 */
export function requestProblem(request: DecodeRequest, limits: RequestLimits): HeadstartError | undefined {
  const { sequence, tokens, from, signal, onDecoded, logProbabilities = 0 } = request;
  if (!(tokens instanceof Int32Array) || tokens.length === 0) {
    const got = tokens instanceof Int32Array ? 'an empty one' : describe(tokens);
    return new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected \`tokens\` to be an Int32Array of at least one, got ${got}`,
    );
  }
  if (!isIntegerBelow(sequence, limits.maxSequences)) {
    const expected = `an integer from 0 to ${limits.maxSequences - 1}`;
    return new HeadstartError(
      'SEQUENCE_OUT_OF_RANGE',
      `Expected \`sequence\` to be ${expected}, got ${describe(sequence)}`,
    );
  }
  if (!isIntegerBelow(from, MOST_POSITIONS)) {
    const expected = 'where the sequence ends, an integer from 0 on';
    return new HeadstartError('POSITION_INVALID', `Expected \`from\` to be ${expected}, got ${describe(from)}`);
  }
  if (!isIntegerBelow(logProbabilities, limits.vocabularySize + 1)) {
    const expected = `an integer from 0 to ${limits.vocabularySize}`;
    const got = describe(logProbabilities);
    return new HeadstartError('INVALID_ARGUMENT', `Expected \`logProbabilities\` to be ${expected}, got ${got}`);
  }
  if (signal !== undefined && typeof signal?.aborted !== 'boolean') {
    return new HeadstartError('INVALID_ARGUMENT', `Expected \`signal\` to be an AbortSignal, got ${describe(signal)}`);
  }
  return onDecoded === undefined || typeof onDecoded === 'function'
    ? undefined
    : new HeadstartError('INVALID_ARGUMENT', `Expected \`onDecoded\` to be a function, got ${describe(onDecoded)}`);
}

function isIntegerBelow(value: unknown, limit: number): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < limit;
}
