import { group, integer, type OptionsOf } from '../option-types.js';

const REPETITION_GUARD = {
  /** Maximum length of a repeated run of tokens, 1 to 512. Repetitions of longer runs are not detected. @default 64 */
  maxRunTokens: integer(1, 512).default(64),
  /** How many times in succession a run of tokens must occur to end the reply, 2 to 1,000. @default 4 */
  repeats: integer(2, 1000).default(4),
  /**
   * How many tokens all occurrences of the run must have together, 1 to 65,536. So a short run must occur more often.
   * @default 64
   */
  minTokens: integer(1, 65_536).default(64),
};

/** When a reply that repeats itself is ended. */
export interface RepetitionGuardOptions extends OptionsOf<typeof REPETITION_GUARD> {}

export const REPETITION_GUARD_OPTIONS = group(REPETITION_GUARD);

/** Detects whether the newest tokens repeat one run of tokens. Makes `maxRunTokens` comparisons for each token. */
export class RepetitionGuard {
  readonly #tokens: number[] = [];
  /** For each run length (index + 1): the number of newest tokens that equal the token one run length earlier. */
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
