// The messages that the user typed in earlier chats.
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeDirectory, replaceText } from '../../files.js';
import { userCache } from '../../native/places.js';

/** Reads the history, the newest line first. Empty if there is none, or if the user has no home directory. */
export async function readHistory(): Promise<string[]> {
  try {
    const lines: unknown = JSON.parse(await readFile(historyFile(), 'utf8'));
    return Array.isArray(lines) ? lines.filter((line) => typeof line === 'string') : [];
  } catch {
    return [];
  }
}

/** Saves the history. A failure only costs the history. */
export async function saveHistory(lines: readonly string[]): Promise<void> {
  try {
    const path = historyFile();
    await makeDirectory(dirname(path), 0o700);
    await replaceText(path, JSON.stringify(lines), { durable: false });
  } catch {
    // The next chat has an older history.
  }
}

function historyFile(): string {
  return join(userCache(), 'chat-history.json');
}
