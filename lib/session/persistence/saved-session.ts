// Saves a session to a file: its messages, system prompt, tool definitions and options. On request, a second file
// receives the KV state.
import { createHash, randomUUID } from 'node:crypto';
import { lstat, open, rm, stat } from 'node:fs/promises';
import { readHistory } from '../../chat/conversation.js';
import type { MessageInput } from '../../chat/message-input.js';
import type { ContentsCopy } from '../../engine/sequence-states.js';
import { HeadstartError } from '../../errors.js';
import { replaceFile, replaceText } from '../../files.js';
import { SequenceState } from '../../native/state.js';
import { describe } from '../../options.js';
import type { ChatMessage } from '../../prompt/messages.js';
import type { ToolDefinition } from '../../prompt/renderer.js';
import { checkTools } from '../../tools/tool.js';
import { optionsToSave, type SavedOptions, savedOptions } from './saved-options.js';

const FORMAT = 'llama-headstart-session-1';

/** Maximum size of a session's file in bytes. The text of a whole context is far smaller. */
const MAX_FILE_BYTES = 512 * 1024 ** 2;

/** The contents of a session's file. */
export interface SavedSession {
  id: string;
  systemPrompt?: string | undefined;
  tools: readonly ToolDefinition[];
  messages: readonly ChatMessage[];
  options?: SavedOptions | undefined;
  /** The id of the state file that belongs to this save. A state file with another id is not used. */
  stateId?: string | undefined;
  /** The replies as they were sampled, and the key group of their tokens. */
  replies?: { group: string; records: readonly unknown[] } | undefined;
  /** In `reproducible` mode: the batches in which the conversation was decoded. */
  history?: History | undefined;
}

/** The tokens of a sequence and the batches that decoded them, as JSON. */
interface History {
  /**
   * The cache key of the tokens. The key depends on the model, the adapters and everything else that changes KV bytes.
   */
  key: string;
  tokens: number[];
  /**
   * For each batch: the position of its first token, its tokens, and how many of these tokens stayed in the sequence.
   */
  pieces: [from: number, tokens: number[], keep: number][];
}

/** The checkpoint of a saved session. */
export interface KeyedCheckpoint extends Omit<ContentsCopy, 'end'> {
  /** The cache key of the tokens. */
  key: string;
}

/**
 * Writes the files of a session. Each file is replaced as a whole or left unchanged.
 *
 * @param checkpoint the contents from which the restored session continues. Its state is written if `withState` is
 *   true.
 * @throws HeadstartError `WRITE_FAILED`, `DISK_FULL`.
 */
export async function saveSession(
  path: string,
  session: Omit<SavedSession, 'stateId' | 'history'>,
  checkpoint: (KeyedCheckpoint & { withState: boolean }) | undefined,
): Promise<void> {
  const history = checkpoint && historyOf(checkpoint);
  if (!checkpoint?.withState || checkpoint.state === undefined) {
    await writeSession(path, { ...session, history });
    await rm(statePath(path), { force: true }).catch(() => undefined); // an earlier save may have left a state file
    return;
  }
  const { key, state } = checkpoint;
  const stateId = randomUUID();
  await replaceFile(statePath(path), (temporary) => state.writeFile(temporary, { stateId, key }));
  await writeSession(path, { ...session, stateId, history });
}

function historyOf({ key, tokens, chunks }: KeyedCheckpoint): History | undefined {
  return chunks.length === 0
    ? undefined
    : { key, tokens: [...tokens], pieces: chunks.map((chunk) => [chunk.from, [...chunk.tokens], chunk.keep]) };
}

async function writeSession(path: string, session: SavedSession): Promise<void> {
  // `grammarSchema` is not saved, because it is derived from `parameters`.
  const tools = session.tools.map(({ grammarSchema: _, ...definition }) => definition);
  const text = JSON.stringify({ ...session, tools, options: optionsToSave(session.options ?? {}) });
  const content = JSON.stringify({ format: FORMAT, sha256: sha256(text), session: text });
  await replaceText(path, content);
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
export function requirePath(path: unknown): void {
  if (typeof path !== 'string' || path === '') {
    throw new HeadstartError('INVALID_ARGUMENT', `Expected \`path\` to be the path of a file, got ${describe(path)}`);
  }
}

/**
 * Refuses a path at which something other than a regular file exists. A save renames a new file to the path, and the
 * rename would replace a device, pipe or link with a regular file.
 *
 * @throws HeadstartError `WRITE_FAILED` if the path of the session or of its state exists and is not a regular file.
 */
export async function requireReplaceable(path: string): Promise<void> {
  for (const file of [path, statePath(path)]) {
    const stats = await lstat(file).catch(() => undefined); // if the path is inaccessible, the write fails later
    if (stats !== undefined && !stats.isFile()) {
      const kind = stats.isSymbolicLink()
        ? 'a symbolic link: pass the path of its target'
        : 'a directory, device, socket or named pipe';
      throw new HeadstartError(
        'WRITE_FAILED',
        `Expected a new path or a regular file to save the session to, but "${file}" is ${kind}`,
      );
    }
  }
}

/**
 * Reads and checks the file of a session.
 *
 * @throws HeadstartError `INVALID_ARGUMENT`, `ENTRY_MISSING`, `READ_FAILED`, `ENTRY_FOREIGN` (not a saved session),
 *   `ENTRY_CORRUPT`.
 */
export async function readSession(path: string): Promise<SavedSession> {
  requirePath(path);
  let text: string;
  try {
    text = await readText(path);
  } catch (cause) {
    if (HeadstartError.isInstance(cause)) {
      throw cause;
    }
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw new HeadstartError(
      missing ? 'ENTRY_MISSING' : 'READ_FAILED',
      `Could not read the session "${path}": ${(cause as Error).message}`,
      { cause },
    );
  }
  const file = parse(text) as { format?: unknown; sha256?: unknown; session?: unknown } | undefined;
  if (file === undefined && text.startsWith(`{"format":"${FORMAT}"`)) {
    throw corruptFile(path, 'it is truncated');
  }
  if (file?.format !== FORMAT) {
    throw new HeadstartError('ENTRY_FOREIGN', `Expected "${path}" to be a session saved in the format ${FORMAT}`);
  }
  if (typeof file.session !== 'string' || file.sha256 !== sha256(file.session)) {
    throw corruptFile(path, 'its checksum does not match');
  }
  return requireSession(path, parse(file.session));
}

/**
 * Checks the parts of a session. A correct checksum proves nothing, because another program may have written the file.
 */
function requireSession(path: string, session: unknown): SavedSession {
  const { id, systemPrompt, tools, messages, options, replies, history } = (session ?? {}) as Partial<SavedSession>;
  const hasTexts = typeof id === 'string' && id !== '' && ['string', 'undefined'].includes(typeof systemPrompt);
  const hasLists = checkTools(tools) === undefined && Array.isArray(messages) && typeof (options ?? {}) === 'object';
  const hasReplies = replies === undefined || Array.isArray(replies?.records);
  if (!hasTexts || !hasLists || !hasReplies || !(history === undefined || isHistory(history))) {
    throw corruptFile(path, 'a part of the session is missing or invalid');
  }
  try {
    const checkedMessages = readHistory(messages as MessageInput[]);
    return { ...(session as SavedSession), messages: checkedMessages, options: savedOptions(options ?? {}) };
  } catch (cause) {
    throw corruptFile(path, (cause as Error).message);
  }
}

function isHistory(value: unknown): value is History {
  const { key, tokens, pieces } = (value ?? {}) as Partial<History>;
  const isPiece = (piece: Partial<History['pieces'][number]> | null) =>
    Array.isArray(piece) && isCounts([piece[0], piece[2]]) && isCounts(piece[1]);
  return typeof key === 'string' && isCounts(tokens) && Array.isArray(pieces) && pieces.every(isPiece);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((count) => Number.isSafeInteger(count) && count >= 0);
}

function statePath(path: string): string {
  return `${path}.kv`;
}

/**
 * Reads the checkpoint of a saved session. Ignores a state file that is damaged or belongs to another save, because a
 * state only saves time. The caller must close the checkpoint's state.
 *
 * @returns undefined if there is no checkpoint
 */
export async function readCheckpoint(
  path: string,
  { stateId, history }: SavedSession,
): Promise<KeyedCheckpoint | undefined> {
  const state = stateId === undefined ? undefined : await readState(path, stateId);
  if (history === undefined) {
    return state && { key: String(state.metadata.key), tokens: state.tokens, chunks: [], state };
  }
  const chunks = history.pieces.map(([from, tokens, keep]) => ({ from, tokens: Int32Array.from(tokens), keep }));
  return { key: history.key, tokens: Int32Array.from(history.tokens), chunks, state };
}

async function readState(path: string, stateId: string): Promise<SequenceState | undefined> {
  let state: SequenceState | undefined;
  try {
    state = await SequenceState.readFile(statePath(path));
    if (state.metadata.stateId === stateId) {
      return state;
    }
  } catch {
    // Without the state, the restored session only needs more time.
  }
  state?.close();
  return undefined;
}

async function readText(path: string): Promise<string> {
  if (!(await stat(path)).isFile()) {
    // This check must precede `open`, because `open` waits for the other end of a named pipe.
    throw new HeadstartError(
      'READ_FAILED',
      `Expected "${path}" to be the file of a saved session, but it is not a regular file`,
    );
  }
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    if (size > MAX_FILE_BYTES) {
      throw new HeadstartError(
        'ENTRY_FOREIGN',
        `Expected "${path}" to be a saved session, got a file of ${size} bytes`,
      );
    }
    return await handle.readFile('utf8');
  } finally {
    await handle.close();
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function corruptFile(path: string, why: string): HeadstartError {
  return new HeadstartError('ENTRY_CORRUPT', `The session in "${path}" is damaged: ${why}`);
}
