// A bundle: one file with several cached templates, for other machines.
//
//   LLAMA-HEADSTART-BUNDLE 1\n
//   <length of the manifest in bytes> <Ed25519 signature of the manifest in base64, or -> \n
//   <manifest: JSON>
//   <the files of the entries, one after another, in the order of the manifest>
//
// A bundle contains no names of files. The importer derives each name from the entry's key, so that a bundle cannot
// write outside the directory. The manifest has the size and the SHA-256 of each file, so its signature covers all bytes.
import { type KeyObject, sign, verify } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { z } from 'zod';
import { HeadstartError } from '../../errors.js';

const MAGIC = 'LLAMA-HEADSTART-BUNDLE';
export const BUNDLE_VERSION = 1;
/** The first two lines are shorter than this. */
const MAX_HEAD_BYTES = 256;
const MAX_MANIFEST_BYTES = 64 * 1024 ** 2;
const NO_SIGNATURE = '-';

const hex = (digits: number) => z.string().regex(new RegExp(`^[0-9a-f]{${digits}}$`));
const count = () => z.int().min(1).max(Number.MAX_SAFE_INTEGER);

const MANIFEST = z.strictObject({
  /** The version of the package that wrote the bundle. */
  package: z.string(),
  createdAt: z.string(),
  entries: z
    .array(
      z.strictObject({
        key: hex(64),
        /** Size of the entry's file. */
        bytes: count(),
        sha256: hex(64),
        tokens: count(),
        /** The fingerprint of the model. */
        fingerprint: z.string(),
      }),
    )
    .min(1),
});

export type BundleManifest = z.output<typeof MANIFEST>;
export type BundleEntry = BundleManifest['entries'][number];

/** A bundle whose manifest has been read and checked. */
export interface OpenBundle {
  manifest: BundleManifest;
  /** The exact bytes of the manifest, which the signature covers. */
  manifestBytes: Buffer;
  /** Undefined if the bundle is not signed. */
  signature: Buffer | undefined;
  /** For each entry: the offset of its file in the bundle. */
  offsets: readonly number[];
}

/** The first bytes of a bundle, up to the first file. @param privateKey an Ed25519 key */
export function bundleHead(manifest: BundleManifest, privateKey: KeyObject | undefined): Buffer {
  const json = Buffer.from(JSON.stringify(manifest));
  const signature = privateKey === undefined ? NO_SIGNATURE : sign(null, json, privateKey).toString('base64');
  return Buffer.concat([Buffer.from(`${MAGIC} ${BUNDLE_VERSION}\n${json.length} ${signature}\n`), json]);
}

/**
 * Reads and checks the manifest. The sizes in it must add up to the size of the file.
 *
 * @throws HeadstartError `BUNDLE_INVALID`.
 */
export async function openBundle(file: FileHandle, path: string): Promise<OpenBundle> {
  const stats = await file.stat();
  const problem = (why: string, cause?: unknown) =>
    new HeadstartError('BUNDLE_INVALID', `Expected a bundle of cached templates in "${path}": ${why}.`, { cause });
  if (!stats.isFile()) {
    throw problem('it is not a regular file');
  }
  const [length, signature, start] = readHead(await readBytes(file, 0, MAX_HEAD_BYTES), problem);
  if (length > MAX_MANIFEST_BYTES || start + length > stats.size) {
    throw problem('it is truncated, or its first line is damaged');
  }
  const manifestBytes = await readBytes(file, start, length);
  const manifest = parseManifest(manifestBytes, problem);
  const offsets: number[] = [];
  let end = start + length;
  for (const { bytes } of manifest.entries) {
    offsets.push(end);
    end += bytes;
  }
  if (end !== stats.size) {
    throw problem(`its manifest describes ${end} bytes, but the file has ${stats.size}`);
  }
  const signed = signature === NO_SIGNATURE ? undefined : Buffer.from(signature, 'base64');
  return { manifest, manifestBytes, signature: signed, offsets };
}

type Problem = (why: string, cause?: unknown) => HeadstartError;

/** @returns length of the manifest, its signature, and the offset of its first byte */
function readHead(head: Buffer, problem: Problem): [number, string, number] {
  const text = head.toString('latin1');
  const [, version] = new RegExp(`^${MAGIC} (\\d{1,9})\n`).exec(text) ?? [];
  if (version === undefined) {
    throw problem('it does not begin like one');
  }
  if (Number(version) !== BUNDLE_VERSION) {
    throw problem(`its version is ${version}, and this program reads version ${BUNDLE_VERSION}`);
  }
  const [whole = '', length = '', signature = ''] = /^[^\n]*\n(\d{1,9}) (-|[A-Za-z0-9+/]{86}==)\n/.exec(text) ?? [];
  if (whole === '') {
    throw problem('its second line is damaged');
  }
  return [Number(length), signature, whole.length];
}

function parseManifest(bytes: Buffer, problem: Problem): BundleManifest {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw problem('its manifest is damaged', cause);
  }
  const result = MANIFEST.safeParse(json);
  if (!result.success) {
    const [issue] = result.error.issues;
    throw problem(`its manifest is wrong at ${issue?.path.join('.') || 'the top'}: ${issue?.message}`);
  }
  const keys = new Set(result.data.entries.map(({ key }) => key));
  if (keys.size !== result.data.entries.length) {
    throw problem('its manifest names an entry twice');
  }
  return result.data;
}

/** Whether the manifest was signed with the private key that belongs to this public key. */
export function isSignedBy({ manifestBytes, signature }: OpenBundle, publicKey: KeyObject): boolean {
  return signature !== undefined && verify(null, manifestBytes, publicKey, signature);
}

async function readBytes(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(buffer, done, length - done, offset + done);
    if (bytesRead === 0) {
      break;
    }
    done += bytesRead;
  }
  return buffer.subarray(0, done);
}
