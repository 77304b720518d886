// Puts the files that a prompt names by `@path` into the prompt.
import { readFile, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { HeadstartError } from '../../errors.js';

/** `@path` or `@"path with spaces"` at the beginning of a word. */
const MENTION = /(?<=^|\s)@(?:"([^"]+)"|(\S+))/g;
/** Characters at the end of a word that belong to the sentence and not to the path. */
const PUNCTUATION = /[.,;:!?)\]}'"]+$/;

/** A prompt with its files. */
export interface PromptWithFiles {
  text: string;
  /** The paths of the files whose texts are in the prompt. */
  files: string[];
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
  const result: PromptWithFiles = { text: prompt, files: [], missing: [] };
  for (const [, quoted, plain = ''] of prompt.matchAll(MENTION)) {
    const path = quoted ?? ((await exists(resolve(directory, plain))) ? plain : plain.replace(PUNCTUATION, ''));
    if (!(await exists(resolve(directory, path)))) {
      result.missing.push(path);
    } else if (!result.files.includes(path)) {
      result.files.push(path);
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

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function readText(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw new HeadstartError('READ_FAILED', `Could not read "${path}": ${(cause as Error).message}`, { cause });
  }
  if (bytes.includes(0)) {
    throw new HeadstartError('READ_FAILED', `Expected a text file at "${path}", got a file with binary data`);
  }
  return bytes.toString('utf8');
}
