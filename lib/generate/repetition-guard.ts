import { group, integer, type OptionsOf } from '../option-types.js';

const REPETITION_GUARD = {
  /** The length of the longest repeated run of tokens that is detected. 1 to 512 tokens. @default 64 */
  maxRunTokens: integer(1, 512).default(64),
  /** How many times a run must occur in direct succession. 2 to 1,000. @default 4 */
  repeats: integer(2, 1000).default(4),
  /**
   * How many tokens all repetitions must have together, so that short runs must occur more often. 1 to 65,536.
   * @default 64
   */
  minTokens: integer(1, 65_536).default(64),
};

/** Ends a reply that repeats itself. */
export interface RepetitionGuardOptions extends OptionsOf<typeof REPETITION_GUARD> {}

export const REPETITION_GUARD_OPTIONS = group(REPETITION_GUARD);

/** Detects that the newest tokens are repetitions of one run of tokens. Makes `maxRunTokens` comparisons per token. */
export class RepetitionGuard {
  readonly #tokens: number[] = [];
  /** For each run length (index + 1): how many of the newest tokens equal the token one run length in front of them. */
  readonly #matches: Uint32Array;
  readonly #repeats: number;
  readonly #minTokens: number;

  constructor(options: RepetitionGuardOptions = {}) {
    const { maxRunTokens, repeats, minTokens } = REPETITION_GUARD_OPTIONS.parse(options);
    this.#matches = new Uint32Array(maxRunTokens);
    this.#repeats = repeats;
    this.#minTokens = minTokens;
  }

  /** @returns whether the reply repeats itself */
  push(token: number): boolean {
    const position = this.#tokens.length;
    this.#tokens.push(token);
    let repeating = false;
    for (let index = 0; index < this.#matches.length; index++) {
      const run = index + 1;
      const same = position >= run && this.#tokens[position - run] === token;
      const matched = same ? (this.#matches[index] as number) + 1 : 0;
      this.#matches[index] = matched;
      repeating ||= matched + run >= Math.max(run * this.#repeats, this.#minTokens) && matched >= run;
    }
    return repeating;
  }
}
