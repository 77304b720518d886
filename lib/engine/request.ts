import type { Sampler } from '../native/sampler.js';

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
export class Pending {
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
  get needed(): number {
    return this.request.from + this.request.tokens.length;
  }

  /** Nobody has been told what of it is in the sequence: it can begin again unnoticed. */
  get restartable(): boolean {
    return this.request.from === 0 && this.request.onDecoded === undefined;
  }
}
