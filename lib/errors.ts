import type { Usage } from './usage.js';

/** The codes of errors. Programs should test the code, because messages are written for people. */
export type ErrorCode =
  // arguments and configuration
  | 'INVALID_ARGUMENT'
  | 'CONFIG_INVALID'
  | 'CACHE_DIR_SHARED'
  // the addon and the machine
  | 'ADDON_NOT_FOUND'
  | 'ADDON_LOADED'
  | 'OUT_OF_MEMORY'
  | 'INTERNAL'
  // models
  | 'MODEL_NOT_FOUND'
  | 'MODEL_INVALID'
  | 'UNSUPPORTED_MODEL'
  | 'NO_TOKENIZER'
  | 'NO_CHAT_TEMPLATE'
  | 'CHAT_TEMPLATE_INVALID'
  | 'CHAT_TEMPLATE_FAILED'
  | 'JSON_TOO_DEEP'
  | 'TEXT_TOO_LONG'
  | 'TEXT_UNBREAKABLE'
  | 'LORA_NOT_FOUND'
  | 'LORA_INVALID'
  // downloads
  | 'DOWNLOAD_FAILED'
  | 'DOWNLOAD_CORRUPT'
  | 'UNAUTHORIZED'
  // servers of the Model Context Protocol
  | 'MCP_FAILED'
  // samplers, grammars, schemas and replies
  | 'GRAMMAR_INVALID'
  | 'GRAMMAR_DEAD_END'
  | 'NO_CANDIDATES'
  | 'LOGITS_INVALID'
  | 'SAMPLER_BUSY'
  | 'SAMPLER_DEAD'
  | 'SAMPLER_FAILED'
  | 'SCHEMA_INVALID'
  | 'REPLY_INVALID'
  | 'SCHEMA_MISMATCH'
  // contexts, batches and sequences
  | 'CONTEXT_FAILED'
  | 'CONTEXT_FULL'
  | 'TOKEN_OUT_OF_RANGE'
  | 'SEQUENCE_OUT_OF_RANGE'
  | 'SEQUENCE_NOT_EMPTY'
  | 'SEQUENCE_EMPTY'
  | 'POSITION_INVALID'
  | 'BATCH_SIZE'
  | 'ROW_HAS_NO_OUTPUT'
  | 'NOT_UNIFIED'
  | 'NO_KV_SLOT'
  | 'PREEMPTED'
  | 'DECODE_FAILED'
  // sequence states and their files
  | 'TOKENS_MISMATCH'
  | 'CAPTURE_FAILED'
  | 'STATE_TOO_LARGE'
  | 'RESTORE_FAILED'
  | 'STATE_INCOMPATIBLE'
  | 'ENTRY_MISSING'
  | 'ENTRY_CORRUPT'
  | 'ENTRY_FOREIGN'
  | 'READ_FAILED'
  | 'WRITE_FAILED'
  | 'DISK_FULL'
  | 'BUNDLE_INVALID'
  | 'BUNDLE_UNTRUSTED'
  | 'LOCK_UNSUPPORTED'
  // lifetime
  | 'ABORTED'
  | 'CLOSED'
  | 'SESSION_BUSY'
  | 'STREAM_USED'
  | 'QUEUE_FULL'
  | 'NOT_REPRODUCIBLE';

/** The only error class of this package. The native addon throws it too. */
export class HeadstartError extends Error {
  /** Identifies errors of this class, even if another copy of the package threw them. */
  override readonly name = 'HeadstartError';
  /** The kind of error, for programs. */
  readonly code: ErrorCode;
  /** If a sampler failed in a decode: the token chosen for each output row. -1 marks a row whose sampler failed. */
  declare readonly picks?: Int32Array;
  /**
   * The sequences that a failed or aborted decode changed. In recurrent and hybrid models these sequences are now
   * empty. In other models, read with `positionRange()` which tokens are left.
   */
  declare readonly sequences?: readonly number[];
  /** The cost of a turn or completion up to its failure. */
  declare usage?: Usage;
  /** If a prompt is too long (`CONTEXT_FULL`): its length in tokens. */
  declare readonly tokens?: number;
  /** If a prompt is too long (`CONTEXT_FULL`): the maximum length of a prompt in tokens. */
  declare readonly maxTokens?: number;

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      cause?: unknown;
      picks?: Int32Array;
      sequences?: readonly number[] | undefined;
      tokens?: number;
      maxTokens?: number;
    } = {},
  ) {
    const { picks, sequences, tokens, maxTokens, ...rest } = options;
    super(message, rest);
    this.code = code;
    if (picks !== undefined) {
      this.picks = picks;
    }
    if (sequences !== undefined && sequences.length > 0) {
      this.sequences = sequences;
    }
    if (tokens !== undefined && maxTokens !== undefined) {
      this.tokens = tokens;
      this.maxTokens = maxTokens;
    }
  }

  /**
   * Whether `error` is an error of this class, even if another copy of the package threw it. With `code`, the error
   * must also have that code.
   */
  static isInstance(error: unknown, code?: ErrorCode): error is HeadstartError {
    if (!(error instanceof Error) || error.name !== 'HeadstartError' || !('code' in error)) {
      return false;
    }
    return code === undefined || error.code === code;
  }
}
