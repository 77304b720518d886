import type { Sequence } from '../engine/sequence.js';
import { prefixOfAtLeast } from '../tokens.js';
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

/** A wait may take this many times as long as decoding the tokens that it saves. */
const MAX_WAIT_FACTOR = 2;

export interface WaitTerms {
  /** Number of tokens that are available without a wait. */
  available: number;
  /** How many tokens the wait must save. */
  minimumGain: number;
  /** Whether a prefill must be cut at the end of a shared beginning, because its memory cannot be trimmed. */
  needsCut: boolean;
}

/**
 * The prompts that will soon be in the KV cache. A prompt can wait until another prompt with the same beginning was
 * decoded, and then copy the sequence of that prompt. If the memory cannot be trimmed, the prefill of the other prompt
 * is cut at the end of the shared beginning, and a checkpoint is kept there.
 */
export class PromptsInProgress {
  readonly #prompts = new Map<Sequence, Prompt>();

  /** Registers a prompt that will soon be known. */
  expect(sequence: Sequence, group: string): void {
    this.#set(sequence, { state: 'expected', group, notice: new Notice() });
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
    this.#set(sequence, { state: 'running', group, tokens, ...place, notice: new Notice() });
  }

  /** Removes the prompt of a sequence, and lets the prompts that wait for it continue. Idempotent. */
  end(sequence: Sequence): void {
    const prompt = this.#prompts.get(sequence);
    if (prompt !== undefined) {
      this.#prompts.delete(sequence);
      resolveNotice(prompt);
    }
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
    const { available, minimumGain, needsCut } = terms;
    for (const [sequence, prompt] of this.#prompts) {
      if (prompt.group === group && prompt.state === 'running') {
        const shared = prefixOfAtLeast(available + minimumGain, prompt.tokens, tokens);
        const saved = shared - available;
        const remaining = (needsCut ? shared : prompt.tokens.length) - Math.max(prompt.available, sequence.length);
        const isLate = needsCut && (shared < prompt.pieceEnd || shared - prompt.kept < minimumGain);
        if (saved > 0 && remaining <= MAX_WAIT_FACTOR * saved && !isLate) {
          return prompt.notice.promise;
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

  #set(sequence: Sequence, prompt: Prompt): void {
    this.end(sequence);
    this.#prompts.set(sequence, prompt);
  }
}

function resolveNotice(prompt: Prompt): void {
  if (prompt.state !== 'waiting') {
    prompt.notice.resolve();
  }
}
