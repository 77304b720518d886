import type { Compacted, TurnCompaction } from '../../chat/turn.js';
import { HeadstartError } from '../../errors.js';
import type { ChatMessage } from '../../prompt/messages.js';
import { type CompactionJob, compactDuringTurn, needsCompaction } from './compaction.js';

/** The compaction of one turn. */
export class AutomaticCompaction implements TurnCompaction {
  readonly #job: CompactionJob;
  /** Whether the model failed to write a summary. The model would most likely fail again at the next step. */
  #hasNoSummary = false;

  /** @param job its signal fires at the deadline of the reply, which also limits the summary */
  constructor(job: CompactionJob) {
    this.#job = job;
  }

  async shorten(conversation: readonly ChatMessage[], promptTokens: number): Promise<Compacted | undefined> {
    const { contextSize, options, sequence } = this.#job;
    if (!needsCompaction(promptTokens, contextSize, options)) {
      return undefined;
    }
    const fits = promptTokens < contextSize;
    if (fits && this.#hasNoSummary) {
      return undefined;
    }
    try {
      return await compactDuringTurn(this.#job, conversation);
    } catch (error) {
      if (fits && HeadstartError.isInstance(error) && NO_SUMMARY.has(error.code)) {
        sequence.afterFailure();
        this.#hasNoSummary = true;
        return undefined;
      }
      throw error;
    }
  }
}

/** Codes of summary errors after which the turn can continue if its prompt fits. */
const NO_SUMMARY: ReadonlySet<string> = new Set(['REPLY_INVALID', 'CONTEXT_FULL']);
