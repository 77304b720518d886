import { orAborted } from '../abort.js';
import type { Sequence } from '../engine/sequence.js';
import type { CheckpointKind } from '../engine/sequence-contents.js';
import { HeadstartError } from '../errors.js';
import { MIN_SHARED_TOKENS } from './prefix-hash.js';
import type { PrefixQuery } from './prefix-index.js';
import type { PrefixSetup } from './prefix-setup.js';

/**
 * Handles the waits and the cuts of one sequence in prefills that several prompts share. A prompt waits until another
 * prompt has decoded their common beginning. If the memory cannot be trimmed, a copy of a sequence can start only from
 * a checkpoint. So a prefill is then cut where other prompts branch off, and a checkpoint is kept there.
 */
export class SharedPrefill {
  readonly #setup: PrefixSetup;
  readonly #sequence: Sequence;
  /** The lengths at which cache hints of the request ask for a checkpoint, ascending. Undefined without hints. */
  #hints: readonly number[] | undefined;

  constructor(setup: PrefixSetup, sequence: Sequence) {
    this.#setup = setup;
    this.#sequence = sequence;
  }

  /** The key group of the sequence's tokens. */
  get group(): string {
    const { cache, tenant } = this.#setup;
    return cache.keyring(tenant).group;
  }

  /**
   * Asks for checkpoints at these lengths of the prompt, ascending. They replace the ones that earlier requests of the
   * conversation asked for.
   */
  keepHints(lengths: readonly number[]): void {
    this.#hints = lengths;
  }

  /** Call it before a prompt is rendered, so that other prefills wait for the prompt before they begin. */
  expect(): void {
    if (this.#isCut) {
      this.#prompts.expect(this.#sequence, this.group);
    }
  }

  /** Call it when the prompt is known, before the sequence may wait for an id. */
  announce(prompt: Int32Array): void {
    if (this.#isCut) {
      this.#prompts.wait(this.#sequence, this.group, prompt.subarray(0, -1));
    } else {
      this.#prompts.end(this.#sequence); // no other prompt may wait for a sequence that is itself waiting
    }
  }

  /**
   * Returns a promise that resolves when the prompts of all turns that have begun are known; undefined if these prompts
   * are already known.
   */
  arrivals(): Promise<unknown> | undefined {
    return this.#isCut ? this.#prompts.arrivals(this.#sequence.group) : undefined;
  }

  /**
   * Returns a promise if another sequence is decoding most of these tokens and can then be copied. The promise resolves
   * when more tokens of that sequence can be copied, or when it has failed.
   *
   * @param available number of tokens that are available without a wait
   */
  worthWaitingFor(query: PrefixQuery, available: number): Promise<void> | undefined {
    const needsCut = !this.#setup.engine.canTrim;
    return query.ownOnly || (needsCut && !this.#isCut)
      ? undefined
      : this.#prompts.worthWaitingFor(query, { available, minimumGain: MIN_SHARED_TOKENS, needsCut });
  }

  /**
   * Call it when the prefix of the prompt is loaded.
   *
   * @param branch see `LongestPrefix`
   */
  begin(tokens: Int32Array, { available, branch }: { available: number; branch: number }): void {
    const { branches } = this.#setup.cache.index;
    const { group } = this.#sequence;
    if (this.#isCut && branch - available >= MIN_SHARED_TOKENS) {
      branches.note(group, tokens, branch);
    }
    this.#prompts.begin(this.#sequence, tokens, available, this.#isCut ? this.#cutsIn(tokens) : []);
  }

  /** The lengths at which to cut the prefill of a prompt, ascending. */
  #cutsIn(tokens: Int32Array): number[] {
    const branches = this.#setup.cache.index.branches.in(this.#sequence.group, tokens);
    return this.#hints === undefined ? branches : [...branches, ...this.#hints].sort((a, b) => a - b);
  }

  /** Call it when the prompt was decoded or has failed, so that prompts with the same beginning continue. */
  end(): void {
    this.#prompts.end(this.#sequence);
    if (this.#hints !== undefined) {
      this.#setup.engine.states.keepHints(this.#sequence, this.#hints);
    }
  }

  /**
   * Decodes the next piece of a prompt, unless this piece is the last.
   *
   * @param tokens the tokens that the sequence does not hold yet
   * @returns whether a piece was decoded
   */
  async decodePiece(tokens: Int32Array, signal: AbortSignal): Promise<boolean> {
    const { engine } = this.#setup;
    if (engine.canTrim) {
      return false;
    }
    const { length } = this.#sequence;
    const { batchSize } = engine.context.info;
    const { end, isBranch } = this.#prompts.nextPiece(this.#sequence, length + tokens.length, batchSize);
    if (end === length + tokens.length) {
      return false;
    }
    await engine.prefill(this.#sequence, tokens.subarray(0, end - length), { signal });
    if (isBranch) {
      await this.keepCheckpoint(this.#hints?.includes(end) ? 'hint' : 'branch');
    }
    return true;
  }

  /** Captures the sequence as a checkpoint, from which a later prompt can continue: see {@link SequenceCheckpoints}. */
  async keepCheckpoint(kind: CheckpointKind): Promise<void> {
    const { states } = this.#setup.engine;
    try {
      await states.keepCheckpoint(this.#sequence, kind);
      this.#prompts.noteKept(this.#sequence);
    } catch (error) {
      if (HeadstartError.isInstance(error, 'CLOSED')) {
        throw error;
      }
      states.setCheckpoints(this.#sequence, {}); // a checkpoint only saves work
    }
  }

  /**
   * Waits until `shared` resolves. During the wait, the engine can evict this sequence, because the awaited sequence may
   * need cells.
   */
  async waitIdle(shared: Promise<void>, signal: AbortSignal): Promise<void> {
    this.#setup.engine.sessions.setIdle(this.#sequence);
    try {
      await orAborted(shared, signal);
    } finally {
      this.#sequence.busy = true;
    }
  }

  get #prompts() {
    return this.#setup.cache.index.prompts;
  }

  /**
   * Whether checkpoints are useful: only if sequences cannot be trimmed (`engine.canTrim` is false). Without a
   * checkpoint, a prompt that differs after an earlier message would then decode the whole conversation again. In
   * `reproducible` mode, checkpoints are never kept: the prompt would be cut into other chunks.
   */
  get wantsCheckpoints(): boolean {
    const { canTrim, reproducible, states } = this.#setup.engine;
    return !canTrim && reproducible === undefined && states.captures.mayFit(0, this.#sequence.hasAttention);
  }

  /** Whether prefills are cut where other prompts branch off. */
  get #isCut(): boolean {
    return this.#setup.useCache && this.wantsCheckpoints;
  }
}
