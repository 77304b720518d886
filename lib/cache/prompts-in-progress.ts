import type { Sequence } from '../engine/sequence.js';
import { commonPrefixLength, prefixOfAtLeast } from '../tokens.js';
import { MIN_SHARED_TOKENS } from './prefix-hash.js';
import type { PrefixQuery } from './prefix-index.js';

/** A promise that the class settles itself. */
class Notice {
  resolve: () => void = () => undefined;
  readonly promise = new Promise<void>((resolve) => {
    this.resolve = resolve;
  });
}

/** A prompt that is being rendered. */
interface ExpectedPrompt {
  state: 'expected';
  group: string;
  /** Resolves when the prompt is known or could not be rendered. */
  notice: Notice;
}

/** A prompt that waits for a sequence id or for another prompt. */
interface WaitingPrompt {
  state: 'waiting';
  group: string;
  tokens: Int32Array;
}

/** A prompt that is being loaded or decoded. */
interface RunningPrompt {
  state: 'running';
  sequence: Sequence;
  group: string;
  tokens: Int32Array;
  /** Number of tokens at the start that are not decoded, because the sequence loads them. */
  available: number;
  /** The end of the piece that is being decoded. The prefill cannot be cut in front of it. */
  pieceEnd: number;
  /** The newest place at which a checkpoint was kept. */
  kept: number;
  /** Lengths at which earlier prompts have branched off. */
  branches: readonly number[];
  /** Resolves at the next checkpoint, or when the prompt was decoded or has failed. */
  notice: Notice;
}

type Prompt = ExpectedPrompt | WaitingPrompt | RunningPrompt;

/**
 * A prompt may wait until this many times the tokens that it saves were decoded. Without this limit, a prompt that has
 * most of the common beginning already would wait until another prompt has decoded it again.
 */
const MAX_WAIT_FACTOR = 2;

export interface WaitTerms {
  /** Number of tokens that are available without a wait. */
  available: number;
  /** How many tokens the wait must save. */
  minimumGain: number;
  /**
   * Whether the memory cannot be trimmed. A prefill must then be cut at the end of a shared beginning. Otherwise a
   * sequence can be copied as soon as it holds the shared beginning.
   */
  needsCut: boolean;
}

/**
 * The prompts, or the templates, that will soon be in the KV cache. A prompt can wait until another prompt has decoded
 * their common beginning, and then copy the sequence of that prompt. If the memory cannot be trimmed, the prefill of the
 * other prompt is cut at the end of the common beginning, and a checkpoint is kept there.
 */
export class PromptsInProgress {
  /** The prompts by their sequences. A prompt that is being rendered may have another key. */
  readonly #prompts = new Map<object, Prompt>();

  /** Registers a prompt that will soon be known. */
  expect(key: object, group: string): void {
    this.#set(key, { state: 'expected', group, notice: new Notice() });
  }

  /** Registers a prompt that may have to wait. */
  wait(sequence: Sequence, group: string, tokens: Int32Array): void {
    this.#set(sequence, { state: 'waiting', group, tokens });
  }

  /**
   * Registers the prompt of a sequence that is loaded now. Call {@link end} when the prompt was decoded or has failed.
   *
   * @param available number of tokens that the sequence need not decode
   * @param branches lengths at which to cut the prefill for later prompts, ascending
   */
  begin(sequence: Sequence, tokens: Int32Array, available: number, branches: readonly number[] = []): void {
    const { group } = sequence;
    const place = { available, pieceEnd: available, kept: 0, branches };
    this.#set(sequence, { state: 'running', sequence, group, tokens, ...place, notice: new Notice() });
  }

  /** Removes a prompt, and lets the prompts that wait for it continue. Idempotent. */
  end(key: object): void {
    const prompt = this.#prompts.get(key);
    if (prompt !== undefined) {
      this.#prompts.delete(key);
      resolveNotice(prompt);
    }
  }

  /** Whether the prompt of this sequence is being loaded or decoded. */
  isRunning(sequence: Sequence): boolean {
    return this.#prompts.get(sequence)?.state === 'running';
  }

  /** Resolves when all prompts of this group that are expected now are known. Undefined if no prompt is expected. */
  arrivals(group: string): Promise<unknown> | undefined {
    const known: Promise<void>[] = [];
    for (const prompt of this.#prompts.values()) {
      if (prompt.state === 'expected' && prompt.group === group) {
        known.push(prompt.notice.promise);
      }
    }
    return known.length === 0 ? undefined : Promise.all(known);
  }

  /**
   * Finds a prompt that is worth waiting for.
   *
   * @returns a promise that resolves when more tokens of that prompt can be copied, or when that prompt has failed;
   *   undefined if there is no such prompt
   */
  worthWaitingFor({ group, tokens }: PrefixQuery, terms: WaitTerms): Promise<void> | undefined {
    for (const prompt of this.#prompts.values()) {
      if (prompt.group === group && prompt.state === 'running') {
        const shared = prefixOfAtLeast(terms.available + terms.minimumGain, prompt.tokens, tokens);
        if (shared > 0 && isWorthWaitingFor(prompt, shared, terms)) {
          const { promise } = prompt.notice;
          return terms.needsCut ? promise : Promise.race([promise, prompt.sequence.untilGrownTo(shared)]);
        }
      }
    }
    return undefined;
  }

  /**
   * Returns the end of the next piece of a prefill on memory that cannot be trimmed. A piece ends at a batch, so that
   * other prompts can still choose a later cut, or where another prompt branches off.
   *
   * @param end number of tokens to which the prefill continues
   */
  nextPiece(sequence: Sequence, end: number, batchSize: number): { end: number; isBranch: boolean } {
    const prompt = this.#prompts.get(sequence);
    if (prompt?.state !== 'running') {
      return { end, isBranch: false };
    }
    const branch = this.#nextBranch(sequence, prompt);
    prompt.pieceEnd = Math.min(end, branch, sequence.length + batchSize);
    return { end: prompt.pieceEnd, isBranch: prompt.pieceEnd === branch };
  }

  /** Call it when a checkpoint of the sequence was kept. Prompts that wait for this sequence can copy it now. */
  noteKept(sequence: Sequence): void {
    const prompt = this.#prompts.get(sequence);
    if (prompt?.state === 'running') {
      prompt.kept = sequence.length;
      prompt.notice.resolve();
      prompt.notice = new Notice();
    }
  }

  /** The next length at which another prompt branches off; infinite if there is none. */
  #nextBranch(sequence: Sequence, { group, tokens, branches, kept }: RunningPrompt): number {
    const from = sequence.length + 1;
    let next = branches.find((length) => length >= from) ?? Number.POSITIVE_INFINITY;
    for (const other of this.#prompts.values()) {
      if (other.state === 'waiting' && other.group === group) {
        const shared = prefixOfAtLeast(from, other.tokens, tokens);
        next = shared - kept >= MIN_SHARED_TOKENS ? Math.min(next, shared) : next;
      }
    }
    return next;
  }

  #set(key: object, prompt: Prompt): void {
    this.end(key);
    this.#prompts.set(key, prompt);
  }
}

/** @param shared number of tokens that the waiting prompt shares with `prompt` */
function isWorthWaitingFor(prompt: RunningPrompt, shared: number, terms: WaitTerms): boolean {
  const { available, minimumGain, needsCut } = terms;
  const held = commonPrefixLength(prompt.sequence.tokens, prompt.tokens);
  const remaining = shared - Math.max(prompt.available, held);
  if (remaining > MAX_WAIT_FACTOR * (shared - available)) {
    return false;
  }
  return needsCut ? shared >= prompt.pieceEnd && shared - prompt.kept >= minimumGain : shared > held;
}

function resolveNotice(prompt: Prompt): void {
  if (prompt.state !== 'waiting') {
    prompt.notice.resolve();
  }
}
