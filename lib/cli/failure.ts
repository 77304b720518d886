// Turns errors into what a command prints, and into exit codes.
import { type ErrorCode, HeadstartError } from '../errors.js';

/** The exit codes of every command. */
export const EXIT_CODES: Readonly<Record<number, string>> = {
  0: 'success, even if the reader of the output stops early',
  1: 'the command failed',
  2: 'a command, an option, an argument or the configuration is wrong',
  129: 'ended by SIGHUP',
  130: 'ended by SIGINT (Ctrl-C)',
  143: 'ended by SIGTERM',
};

/** An error as `--json` prints it, in the field `error`. */
export interface Failure {
  /** The code of a `HeadstartError`, or of an error of the system such as `ENOENT`. */
  code: string;
  /** What was expected, what was received, and what to do. */
  message: string;
}

/** The codes of errors whose cause is in the command line or in the configuration. */
const USAGE_CODES: readonly string[] = ['INVALID_ARGUMENT', 'CONFIG_INVALID'] satisfies ErrorCode[];

/** What to do after errors whose message does not say it. */
const ADVICE: Partial<Record<ErrorCode, string>> = {
  MODEL_NOT_FOUND: '`llama-headstart models list` shows the downloaded models.',
  OUT_OF_MEMORY: 'Use a smaller model or a smaller --context-size.',
  DISK_FULL: '`llama-headstart cache prune` and `llama-headstart models rm` free space.',
};

/** What to do after errors of the system. */
const SYSTEM_ADVICE: Readonly<Record<string, string>> = {
  EADDRINUSE: 'Another program uses this port. Choose another one with --port, or stop that program.',
  EACCES: 'This user may not do that. Choose another path, or change its permissions.',
  EROFS: 'The file system is read-only. Choose another path.',
  ENOSPC: 'The disk is full. `llama-headstart cache prune` and `llama-headstart models rm` free space.',
};

export function failureOf(error: unknown): Failure {
  const message = sentence(error instanceof Error ? error.message : String(error));
  const code = String((error as { code?: unknown } | undefined)?.code ?? 'INTERNAL');
  const advice = HeadstartError.isInstance(error) ? ADVICE[error.code] : SYSTEM_ADVICE[code];
  return { code, message: advice === undefined || message.includes(advice) ? message : `${message} ${advice}` };
}

export function exitCodeOf(error: unknown): number {
  return USAGE_CODES.includes(failureOf(error).code) ? 2 : 1;
}

/** A message with a full stop at its end. Messages of several lines stay as they are. */
function sentence(message: string): string {
  return /[.!?]$/.test(message) || message.includes('\n') ? message : `${message}.`;
}
