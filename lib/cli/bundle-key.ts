// The keys that sign bundles.
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { HeadstartError } from '../errors.js';

/** @throws HeadstartError `INVALID_ARGUMENT`, `READ_FAILED`. */
export function readPrivateKey(path: string): Promise<KeyObject> {
  return readKey(path, 'a private', createPrivateKey);
}

/** @throws HeadstartError `INVALID_ARGUMENT`, `READ_FAILED`. */
export function readPublicKey(path: string): Promise<KeyObject> {
  return readKey(path, 'a public', createPublicKey);
}

async function readKey(path: string, kind: string, parse: (pem: Buffer) => KeyObject): Promise<KeyObject> {
  const pem = await readFile(path).catch((cause: Error) => {
    throw new HeadstartError('READ_FAILED', `Could not read the key "${path}": ${cause.message}.`, { cause });
  });
  let key: KeyObject | undefined;
  try {
    key = parse(pem);
  } catch {
    // The code below reports that the file contains no key.
  }
  if (key?.asymmetricKeyType !== 'ed25519') {
    const found = key === undefined ? 'other content' : `a key of type ${key.asymmetricKeyType}`;
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected ${kind} Ed25519 key in PEM form in "${path}", got ${found}.`,
    );
  }
  return key;
}
