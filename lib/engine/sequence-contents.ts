// What belongs to a sequence besides its tokens: its options, and its contents outside the KV cache.
import { isPrefix } from '../tokens.js';
import type { Arrival } from './overtaking.js';
import type { PrefillChunk } from './reproducible/prefill-log.js';
import type { Sequence } from './sequence.js';
import type { ContentsCopy } from './sequence-states.js';
import type { StateKind, StoredState } from './state-store.js';

export interface SequenceOptions {
  /**
   * Number of tokens at the start that a template provides. If the sequence holds no other tokens, its state is not
   * kept.
   */
  templateLength?: number | undefined;
  /** How long the tokens are worth keeping. @default 'conversation' */
  kind?: StateKind | undefined;
  /** The client's name for the conversation, unique within the tenant. @default none */
  affinity?: string | undefined;
  /** The tenant of the tokens. @default none */
  tenant?: string | undefined;
  /** See `Sequence.epoch`. @default 0 */
  epoch?: number | undefined;
  /** The arrival of the request. @default the request neither overtakes nor is overtaken */
  arrival?: Arrival | undefined;
  /** Called after the engine has evicted the sequence. */
  onEvicted?: (() => void) | undefined;
}

/** The contents of a sequence that was evicted or copied. */
export interface SwappedContents {
  tokens: Int32Array;
  /** See `Sequence.group`. */
  group: string;
  /** The batches in which the tokens were decoded; empty if they were not recorded. */
  chunks: readonly PrefillChunk[];
  /** The state, if it was captured and fitted into the store. The store may have dropped the state since. */
  stored: StoredState | undefined;
  /** Whether the contents were copied from another sequence or from a file. */
  isCopy: boolean;
  /** Settles when the capture of the state has ended, successfully or not. */
  ready: Promise<unknown>;
}

/**
 * The checkpoints of a conversation. The chat template decides which one the next turn can continue from. If the
 * template leaves out the reasoning of earlier turns, the next prompt differs from the current one after the message
 * that began the current turn. If the template repeats all steps of a turn, the next prompt also contains the newest
 * tool result.
 */
export interface SequenceCheckpoints {
  /** Captured at the message that began the newest turn. */
  turn?: StoredState | undefined;
  /**
   * Captured at the newest tool result of that turn. Before the first result: an older checkpoint, which is used if the
   * turn is aborted.
   */
  step?: StoredState | undefined;
  /** Captured where other prompts branch off. The newest is the last. */
  branches?: readonly StoredState[] | undefined;
  /** Captured at the places that the newest request with cache hints asked for. The newest is the last. */
  hints?: readonly StoredState[] | undefined;
}

/**
 * Called after each decode of a sequence.
 *
 * @param length number of tokens in the sequence
 * @param decoded number of tokens that the decode added
 */
export type DecodeListener = (length: number, decoded: number) => void;

/** What is known about the next prompt of a conversation, whatever the next message will be. */
export interface NextPrompt {
  /** Settles when the other fields are known, or cannot be found. */
  ready: Promise<unknown>;
  /** Number of tokens in the newest prompt. */
  promptLength: number;
  /** Number of tokens up to the end of the message that began the newest turn. */
  messageEnd?: number;
  /** Number of tokens of the sequence with which the next prompt begins. */
  shared?: number;
}

/** The checkpoints that a sequence has. The store may have dropped some of them. */
export function checkpointsOf({ checkpoints }: { checkpoints: SequenceCheckpoints }): StoredState[] {
  const { turn, step, branches = [], hints = [] } = checkpoints;
  return [turn, step, ...branches, ...hints].filter((each) => each !== undefined);
}

/**
 * The place at which a checkpoint was captured:
 * - `turn`: the end of the first prompt of a turn.
 * - `step`: the end of a later prompt of a turn.
 * - `branch`: the place at which other prompts begin to differ.
 * - `hint`: the place of a cache hint.
 */
export type CheckpointKind = 'turn' | 'step' | 'branch' | 'hint';

/** Maximum number of checkpoints that a sequence keeps where other prompts branch off. */
const MAX_BRANCHES = 4;

/**
 * Adds a checkpoint. It replaces an older one of its kind. An older checkpoint stays only if its tokens are a prefix of
 * the new tokens.
 */
export function withCheckpoint(
  { turn, step, branches = [], hints = [] }: SequenceCheckpoints,
  stored: StoredState,
  kind: CheckpointKind,
): SequenceCheckpoints {
  const isOlder = ({ tokens, isDropped }: StoredState) =>
    !isDropped && tokens.length < stored.tokens.length && isPrefix(tokens, stored.tokens);
  const [olderBranches, olderHints] = [branches.filter(isOlder), hints.filter(isOlder)];
  if (kind === 'branch') {
    return { turn, step, branches: [...olderBranches.slice(1 - MAX_BRANCHES), stored], hints: olderHints };
  }
  if (kind === 'hint') {
    return { turn, step, branches: olderBranches, hints: [...olderHints, stored] };
  }
  const older = checkpointsOf({ checkpoints: { turn, step } })
    .filter(isOlder)
    .sort((a, b) => b.tokens.length - a.tokens.length);
  const isStep = kind === 'step' && turn !== undefined && older.includes(turn);
  return {
    ...(isStep ? { turn, step: stored } : { turn: stored, step: older[0] }),
    branches: olderBranches,
    hints: olderHints,
  };
}

/** The checkpoints that are whole states. */
export function withoutPartial({ turn, step, branches, hints }: SequenceCheckpoints): SequenceCheckpoints {
  const isWhole = (stored: StoredState) => !stored.isPartial;
  const whole = (stored: StoredState | undefined) => (stored?.isPartial ? undefined : stored);
  return {
    turn: whole(turn),
    step: whole(step),
    branches: branches?.filter(isWhole),
    hints: hints?.filter(isWhole),
  };
}

/** The tokens of a sequence or of a state, with the checkpoints that belong to them. */
interface Checkpointed {
  checkpoints: SequenceCheckpoints;
  tokens: Int32Array;
}

/** The longest checkpoint that holds a prefix of the tokens and that `accept` accepts. */
export function longestCheckpoint(
  sequence: Checkpointed,
  accept: (checkpoint: StoredState) => boolean,
): StoredState | undefined {
  return checkpointsOf(sequence)
    .filter((checkpoint) => !checkpoint.isDropped && accept(checkpoint))
    .filter(({ tokens }) => isPrefix(tokens, sequence.tokens))
    .sort((a, b) => b.tokens.length - a.tokens.length)[0];
}

/** The partial checkpoint that trims a sequence to exactly `length` tokens. */
export function partialCheckpointAt(sequence: Checkpointed, length: number): StoredState | undefined {
  return longestCheckpoint(sequence, ({ isPartial, tokens }) => isPartial === true && tokens.length === length);
}

/** The largest length up to `length` to which a partial checkpoint can trim a sequence. 0 if there is none. */
export function partialCheckpointLength(sequence: Checkpointed, length: number): number {
  const accept = ({ isPartial, tokens }: StoredState) => isPartial === true && tokens.length <= length;
  return longestCheckpoint(sequence, accept)?.tokens.length ?? 0;
}

/** Writes the states of conversations to disk. */
export interface ConversationSaver {
  /**
   * Called before an eviction, while the sequence still holds its tokens. May shorten the sequence to the part that the
   * next prompt can continue from, unless another sequence takes over the tokens.
   *
   * @returns a function that saves the captured state; undefined if the state is not worth a file
   */
  onEvict(
    sequence: Sequence,
    isTakenOver: boolean,
  ): ((captured: Promise<ContentsCopy | undefined>) => void) | undefined;
  /** Called when a sequence became idle. */
  onIdle(): void;
}
