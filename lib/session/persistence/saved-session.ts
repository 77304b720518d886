// A session in a file: its messages, its template's source, its options, and beside it, if asked for, its KV state.
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { lstat, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { asWriteFailure } from '../../cache/disk/cache-directory.js';
import type { SwappedSequence } from '../../engine/swap-store.js';
import { HeadstartError } from '../../errors.js';
import { SequenceState } from '../../native/state.js';
import { describe } from '../../options.js';
import type { ChatMessage } from '../../prompt/messages.js';
import type { ToolDefinition } from '../../prompt/renderer.js';
import { checkTools } from '../../tools/tool.js';
import { readHistory } from '../conversation.js';
import type { MessageInput } from '../message-input.js';
import { optionsToSave, type SavedOptions, savedOptions } from './saved-options.js';

const FORMAT = 'llama-headstart-session-1';

/** Larger files are no sessions: a context's text is far smaller. */
const MAX_FILE_BYTES = 512 * 1024 ** 2;

export interface SavedSession {
  id: string;
  systemPrompt?: string | undefined;
  tools: readonly ToolDefinition[];
  messages: readonly ChatMessage[];
  options?: SavedOptions | undefined;
  /** Names the state file that belongs to this save: an older or newer one is not used. */
  stateId?: string | undefined;
  /** In `reproducible` mode: in which batches the model read the conversation. */
  history?: History | undefined;
}

/** What a sequence held, as JSON. */
interface History {
  /** Of its tokens, as the cache has it: what it was computed with. */
  key: string;
  tokens: number[];
  /** From which position, which tokens, and how many of them were kept. */
  pieces: [from: number, tokens: number[], keep: number][];
}

/** What a session goes on from, and what that belongs to. */
export interface KeyedCheckpoint extends Omit<SwappedSequence, 'templateTokens'> {
  key: string;
}

/**
 * Writes the files whole, or leaves what was there.
 *
 * @param past what the session goes on from; its state goes into a file of its own where `withState` says so
 * @throws HeadstartError `WRITE_FAILED`, `DISK_FULL`.
 */
export async function saveSession(
  path: string,
  session: Omit<SavedSession, 'stateId' | 'history'>,
  past: (KeyedCheckpoint & { withState: boolean }) | undefined,
): Promise<void> {
  const history = past && historyOf(past);
  if (!past?.withState || past.state === undefined) {
    await writeSession(path, { ...session, history });
    await rm(statePath(path), { force: true }).catch(() => undefined); // of an older save
    return;
  }
  const { key, state } = past;
  const stateId = randomUUID();
  await replaceFile(statePath(path), (temporary) => state.writeFile(temporary, { stateId, key }));
  await writeSession(path, { ...session, stateId, history });
}

function historyOf({ key, tokens, chunks: pieces }: KeyedCheckpoint): History | undefined {
  return pieces.length === 0
    ? undefined
    : { key, tokens: [...tokens], pieces: pieces.map((each) => [each.from, [...each.tokens], each.keep]) };
}

async function writeSession(path: string, session: SavedSession): Promise<void> {
  const tools = session.tools.map(({ grammarSchema: _, ...told }) => told); // made again of its parameters
  const text = JSON.stringify({ ...session, tools, options: optionsToSave(session.options ?? {}) });
  const content = JSON.stringify({ format: FORMAT, sha256: sha256(text), session: text });
  await replaceFile(path, async (temporary) => {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
  });
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
export function requirePath(path: unknown): void {
  if (typeof path !== 'string' || path === '') {
    throw new HeadstartError('INVALID_ARGUMENT', `Expected \`path\` to be the path of a file, got ${describe(path)}`);
  }
}

/**
 * A save replaces its files by renames, which would put a file in the place of a device, a pipe or a link.
 *
 * @throws HeadstartError `WRITE_FAILED` if something other than a regular file is at the path of the session or of its state.
 */
export async function requireReplaceable(path: string): Promise<void> {
  for (const each of [path, statePath(path)]) {
    const facts = await lstat(each).catch(() => undefined); // what cannot be looked at fails when it is written
    if (facts !== undefined && !facts.isFile()) {
      const found = facts.isSymbolicLink()
        ? 'a link: name the file that it leads to'
        : 'a directory, device, socket or named pipe';
      throw new HeadstartError(
        'WRITE_FAILED',
        `Expected nothing or a regular file at "${each}", to save a session there, found ${found}`,
      );
    }
  }
}

/** @throws HeadstartError `INVALID_ARGUMENT`, `ENTRY_MISSING`, `READ_FAILED`, `ENTRY_FOREIGN` (no session of ours), `ENTRY_CORRUPT`. */
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
  const outer = parse(text) as { format?: unknown; sha256?: unknown; session?: unknown } | undefined;
  if (outer === undefined && text.startsWith(`{"format":"${FORMAT}"`)) {
    throw corruptFile(path, 'it is cut off');
  }
  if (outer?.format !== FORMAT) {
    throw new HeadstartError('ENTRY_FOREIGN', `Expected a session that this version saved in "${path}"`);
  }
  if (typeof outer.session !== 'string' || outer.sha256 !== sha256(outer.session)) {
    throw corruptFile(path, 'its checksum does not match');
  }
  return checked(path, parse(outer.session));
}

/** The checksum says that it was written so; not that it was written by us. */
function checked(path: string, session: unknown): SavedSession {
  const { id, systemPrompt, tools, messages, options, history } = (session ?? {}) as Partial<SavedSession>;
  const isText = typeof id === 'string' && id !== '' && ['string', 'undefined'].includes(typeof systemPrompt);
  const isList = checkTools(tools) === undefined && Array.isArray(messages) && typeof (options ?? {}) === 'object';
  if (!isText || !isList || !(history === undefined || isHistory(history))) {
    throw corruptFile(path, 'it lacks a part of a session');
  }
  try {
    const read = readHistory(messages as MessageInput[]);
    return { ...(session as SavedSession), messages: read, options: savedOptions(options ?? {}) };
  } catch (cause) {
    throw corruptFile(path, (cause as Error).message);
  }
}

function isHistory(value: unknown): value is History {
  const { key, tokens, pieces } = (value ?? {}) as Partial<History>;
  const isPiece = (each: Partial<History['pieces'][number]> | null) =>
    Array.isArray(each) && isCounts([each[0], each[2]]) && isCounts(each[1]);
  return typeof key === 'string' && isCounts(tokens) && Array.isArray(pieces) && pieces.every(isPiece);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && each >= 0);
}

function statePath(path: string): string {
  return `${path}.kv`;
}

/**
 * What a saved session goes on from; undefined where nothing was kept, or what there is is damaged or another save's: it only
 * saves work. Close its state.
 */
export async function readCheckpoint(
  path: string,
  { stateId, history }: SavedSession,
): Promise<KeyedCheckpoint | undefined> {
  const state = stateId === undefined ? undefined : await readState(path, stateId);
  if (history === undefined) {
    return state && { key: String(state.metadata.key), tokens: state.tokens, chunks: [], state };
  }
  const pieces = history.pieces.map(([from, tokens, keep]) => ({ from, tokens: Int32Array.from(tokens), keep }));
  return { key: history.key, tokens: Int32Array.from(history.tokens), chunks: pieces, state };
}

async function readState(path: string, stateId: string): Promise<SequenceState | undefined> {
  let state: SequenceState | undefined;
  try {
    state = await SequenceState.readFile(statePath(path));
    if (state.metadata.stateId === stateId) {
      return state;
    }
  } catch {
    // It only saves work.
  }
  state?.close();
  return undefined;
}

async function replaceFile(path: string, write: (temporary: string) => Promise<unknown>): Promise<void> {
  const temporary = `${path}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    await write(temporary);
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw asWriteFailure(error, path);
  }
}

/** Makes the rename durable, where the file system can. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

async function readText(path: string): Promise<string> {
  if (!(await stat(path)).isFile()) {
    throw new HeadstartError('READ_FAILED', `Expected a saved session in "${path}", which is no file`); // a pipe is waited for
  }
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    if (size > MAX_FILE_BYTES) {
      throw new HeadstartError('ENTRY_FOREIGN', `Expected a saved session in "${path}", got a file of ${size} bytes`);
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
