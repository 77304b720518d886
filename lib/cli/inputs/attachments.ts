// Puts the files that a prompt names by `@path` into the prompt.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { HeadstartError } from '../../errors.js';
import { readTextFile } from './json-file.js';

/** `@path` or `@"path with spaces"` at the beginning of a word. */
const MENTION = /(?<=^|\s)@(?:"([^"]+)"|(\S+))/g;
/** Characters at the end of a word that belong to the sentence and not to the path. */
const PUNCTUATION = /[.,;:!?)\]}'"]+$/;

/** A prompt with its files. */
export interface PromptWithFiles {
  text: string;
  /** Mentions that name no file, and stay as they are. */
  missing: string[];
}

/**
 * Appends the text of each file that the prompt mentions as `@path`.
 *
 * @param directory the directory of relative paths
 * @throws HeadstartError `READ_FAILED` if a file is a directory, has no text, or cannot be read.
 */
export async function withFiles(prompt: string, directory: string): Promise<PromptWithFiles> {
  const result: PromptWithFiles = { text: prompt, missing: [] };
  const appended = new Set<string>();
  for (const [, quoted, plain = ''] of prompt.matchAll(MENTION)) {
    const path = quoted ?? (existsSync(resolve(directory, plain)) ? plain : plain.replace(PUNCTUATION, ''));
    if (!existsSync(resolve(directory, path))) {
      result.missing.push(path);
    } else if (!appended.has(path)) {
      appended.add(path);
      result.text += fileText(path, await readText(resolve(directory, path)));
    }
  }
  return result;
}

function fileText(path: string, content: string): string {
  const longest = Math.max(2, ...[...content.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = '`'.repeat(longest + 1);
  return `\n\n${path}:\n${fence}\n${content}${content.endsWith('\n') ? '' : '\n'}${fence}`;
}

async function readText(path: string): Promise<string> {
  const text = await readTextFile(path);
  if (text.includes('\0')) {
    throw new HeadstartError('READ_FAILED', `Expected a text file at "${path}", got a file with binary data`);
  }
  return text;
}
