// The models in the directory of downloads.
import { readdir, readFile, rm, rmdir, stat } from 'node:fs/promises';
import { basename, dirname, join, relative, sep } from 'node:path';
import { HeadstartError } from '../errors.js';
import { shardPaths } from '../model/fingerprint.js';
import { modelsDirectory } from '../model/models-directory.js';
import { nearestName } from '../options.js';

/** A downloaded model. */
export interface DownloadedModel {
  /** What commands accept as the model: `hf:owner/name/file.gguf`, or the path. */
  name: string;
  /** The path of the file, or of the first part of a split model. */
  path: string;
  /** Size of all parts in bytes. */
  bytes: number;
  /** The time of the download, in ISO 8601. */
  modifiedAt: string;
  /** Whether parts of a split model are missing. */
  isComplete: boolean;
}

/** An unfinished download. The next download of the same model continues it. */
export interface UnfinishedDownload {
  path: string;
  bytes: number;
}

export interface ModelsListing {
  directory: string;
  models: DownloadedModel[];
  unfinished: UnfinishedDownload[];
}

/** Lists the downloaded models by name. An absent directory contains none. */
export async function listModels(named: string | undefined): Promise<ModelsListing> {
  const directory = named ?? modelsDirectory();
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  const paths = entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
  const first = paths.filter((path) => isModel(path) && firstPart(path) === path);
  const models = await Promise.all(first.map((path) => describeModel(directory, path)));
  const parts = await Promise.all(paths.filter((path) => path.endsWith('.gguf.part')).map(withSize));
  return {
    directory,
    models: models.filter((model) => model !== undefined).sort((a, b) => (a.name < b.name ? -1 : 1)),
    unfinished: parts.filter((part) => part !== undefined),
  };
}

/** Whether a file is a model, and not a projector or an importance matrix that belongs to a model. */
function isModel(path: string): boolean {
  return path.endsWith('.gguf') && !/(^|[-._])(mmproj|imatrix)\b/i.test(basename(path));
}

/** The first part of a split model; the path itself for a single file. */
function firstPart(path: string): string {
  return shardPaths(path)[0] ?? path;
}

async function describeModel(directory: string, path: string): Promise<DownloadedModel | undefined> {
  const parts = await Promise.all(shardPaths(path).map((part) => stat(part).catch(() => undefined)));
  const present = parts.filter((part) => part !== undefined);
  const [file] = present;
  if (file === undefined || !file.isFile()) {
    return undefined;
  }
  return {
    name: (await hubName(directory, path)) ?? path,
    path,
    bytes: present.reduce((sum, { size }) => sum + size, 0),
    modifiedAt: file.mtime.toISOString(),
    isComplete: present.length === parts.length,
  };
}

/**
 * The name of a model of the Hub; undefined for other files. The saved listing of the repository
 * contains the file's folder.
 */
async function hubName(directory: string, path: string): Promise<string | undefined> {
  const [kind, owner, name, folder, file, ...rest] = relative(directory, path).split(sep);
  if (kind !== 'huggingface' || owner === undefined || name === undefined || !folder || file === undefined || rest[0]) {
    return undefined;
  }
  const inside = await pathInRepository(join(directory, kind, owner, name, 'refs'), file);
  return `hf:${owner}/${name}/${inside ?? file}`;
}

async function pathInRepository(refs: string, file: string): Promise<string | undefined> {
  for (const name of await readdir(refs).catch(() => [])) {
    try {
      const { files } = JSON.parse(await readFile(join(refs, name), 'utf8')) as { files: { path: string }[] };
      const found = files.find(({ path }) => path === file || path.endsWith(`/${file}`));
      if (found !== undefined) {
        return found.path;
      }
    } catch {
      // The listing is damaged. The next download writes it again.
    }
  }
  return undefined;
}

async function withSize(path: string): Promise<UnfinishedDownload | undefined> {
  const file = await stat(path).catch(() => undefined);
  return file && { path, bytes: file.size };
}

/**
 * The downloaded models that a user means: by their name or path, by a repository such as `hf:owner/name`, or by their
 * file name.
 *
 * @throws HeadstartError `MODEL_NOT_FOUND`.
 */
export function findModels({ models, directory }: ModelsListing, wanted: string): DownloadedModel[] {
  const repository = /^hf:[^/]+\/[^/:]+/.exec(wanted)?.[0];
  const quantization = /^hf:[^/]+\/[^/]+:(.+)$/.exec(wanted)?.[1]?.toLowerCase();
  const found = models.filter(
    ({ name, path }) =>
      name === wanted ||
      path === wanted ||
      basename(path) === wanted ||
      (wanted === repository && name.startsWith(`${repository}/`)) ||
      (quantization !== undefined &&
        name.startsWith(`${repository}/`) &&
        basename(path).toLowerCase().includes(quantization)),
  );
  if (found.length === 0) {
    const nearest = nearestName(
      wanted,
      models.flatMap(({ name, path }) => [name, basename(path)]),
    );
    throw new HeadstartError(
      'MODEL_NOT_FOUND',
      `No downloaded model in ${directory} is named "${wanted}".${nearest === undefined ? '' : ` Did you mean "${nearest}"?`}`,
    );
  }
  return found;
}

/** Deletes the files of a model, and the folders that are empty afterwards. */
export async function removeModel(directory: string, { path }: DownloadedModel): Promise<void> {
  for (const part of shardPaths(path)) {
    await rm(part, { force: true });
  }
  const folder = dirname(path);
  const left = await readdir(folder).catch(() => []);
  if (folder !== directory && left.every((name) => name === 'generation_config.json' || name.endsWith('.lock'))) {
    await rm(folder, { recursive: true, force: true });
    await removeEmptyParents(dirname(folder), directory);
  }
}

/** Deletes a directory if it contains nothing but the saved listings of a repository, and then its parents likewise. */
async function removeEmptyParents(path: string, until: string): Promise<void> {
  const isInside = path.startsWith(`${until}${sep}`);
  const left = isInside ? await readdir(path).catch(() => ['?']) : ['?'];
  if (left.every((name) => name === 'refs')) {
    await rm(join(path, 'refs'), { recursive: true, force: true });
    await rmdir(path).catch(() => undefined);
    await removeEmptyParents(dirname(path), until);
  }
}
