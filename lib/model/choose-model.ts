// Chooses the files of a model from the files of a folder or repository.
import { HeadstartError } from '../errors.js';
import { nearestName } from '../options.js';
import { shardPaths } from './fingerprint.js';

const DEFAULT_QUANTIZATION = 'Q4_K_M';
const MAX_NAMES = 20;

export interface ModelSelection {
  filename?: string | undefined;
  quantization?: string | undefined;
  folder?: string | undefined;
}

/**
 * Returns the paths of the model's files: all parts of a split model in order, or one file.
 *
 * @param paths all files of the folder or repository, with forward slashes
 * @param where what error messages call the folder or repository
 * @throws HeadstartError `MODEL_NOT_FOUND`; the message lists the models that were found.
 */
export function chooseModel(paths: readonly string[], selection: ModelSelection, where: string): string[] {
  const all = selection.folder === undefined ? paths : paths.filter((path) => path.startsWith(`${selection.folder}/`));
  const chosen =
    selection.filename === undefined ? byQuantization(all, selection, where) : byName(all, selection, where);
  const parts = shardPaths(chosen);
  const missing = parts.filter((part) => !paths.includes(part));
  if (missing.length > 0) {
    throw new HeadstartError(
      'MODEL_NOT_FOUND',
      `Expected all ${parts.length} parts of the split model in ${where}, missing: ${list(missing)}`,
    );
  }
  return parts;
}

function byName(paths: readonly string[], { filename = '', folder }: ModelSelection, where: string): string {
  const match = [filename, `${folder}/${filename}`].find((path) => paths.includes(path));
  if (match !== undefined) {
    return match;
  }
  const models = paths.filter((path) => path.endsWith('.gguf'));
  const nearest = nearestName(filename, models);
  throw new HeadstartError(
    'MODEL_NOT_FOUND',
    `Expected "${filename}" in ${where}${nearest ? `: did you mean "${nearest}"?` : `, found ${list(models)}`}`,
  );
}

function byQuantization(paths: readonly string[], { quantization }: ModelSelection, where: string): string {
  const models = distinctModels(paths);
  if (models.length === 1 && quantization === undefined) {
    return models[0] as string;
  }
  const wanted = quantization ?? DEFAULT_QUANTIZATION;
  const matching = models.filter((path) => hasQuantization(path, wanted));
  if (matching.length === 1) {
    return matching[0] as string;
  }
  if (matching.length === 0) {
    const expected =
      quantization === undefined
        ? 'one GGUF file, or one with Q4_K_M in its name,'
        : `a GGUF file with "${quantization}" in its name`;
    throw new HeadstartError('MODEL_NOT_FOUND', `Expected ${expected} in ${where}, found ${list(models)}`);
  }
  throw new HeadstartError(
    'MODEL_NOT_FOUND',
    `Expected one model with "${wanted}" in its name in ${where}, found ${list(matching)}: name one with \`filename\``,
  );
}

/**
 * The models among the files. A split model appears only as its first part. Leaves out projectors and importance
 * matrices.
 */
function distinctModels(paths: readonly string[]): string[] {
  return paths.filter(
    (path) => path.endsWith('.gguf') && shardPaths(path)[0] === path && !/(^|[-._/])(mmproj|imatrix)\b/i.test(path),
  );
}

/** Whether the file name contains the quantization as a whole word: Q4_K does not match Q4_K_M. */
function hasQuantization(path: string, quantization: string): boolean {
  const name = path.slice(path.lastIndexOf('/') + 1).toLowerCase();
  const wanted = quantization.toLowerCase();
  const isWord = (character: string | undefined) => character !== undefined && /[a-z0-9_]/.test(character);
  for (let at = name.indexOf(wanted); at !== -1; at = name.indexOf(wanted, at + 1)) {
    if (!isWord(name[at - 1]) && !isWord(name[at + wanted.length])) {
      return true;
    }
  }
  return false;
}

function list(paths: readonly string[]): string {
  if (paths.length === 0) {
    return 'none';
  }
  const shown = paths.slice(0, MAX_NAMES).map((path) => `"${path}"`);
  return shown.join(', ') + (paths.length > MAX_NAMES ? ` and ${paths.length - MAX_NAMES} more` : '');
}
