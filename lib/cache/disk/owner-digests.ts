// Digests of names. A file with digests can be compared with a tenant and an affinity, but does not contain these names.
import { createHash, randomBytes } from 'node:crypto';
import type { ContentOwner } from '../../engine/forget-calls.js';

/** Digests of a tenant and of an affinity. A name that is absent has no digest. */
export interface OwnerDigests {
  /** Random digits, which make these digests differ from those of other files. */
  salt: string;
  tenant?: string;
  affinity?: string;
}

const FIELDS = ['tenant', 'affinity'] as const;

export function digestsOf(owner: ContentOwner): OwnerDigests {
  const salt = randomBytes(16).toString('hex');
  const digests = FIELDS.map((field) => [field, digest(salt, owner[field])]).filter(([, value]) => value !== undefined);
  return { salt, ...Object.fromEntries(digests) };
}

/** Whether the owner with these digests has all names in `names`. */
export function hasNames(owner: OwnerDigests, names: ContentOwner): boolean {
  return FIELDS.every((field) => names[field] === undefined || owner[field] === digest(owner.salt, names[field]));
}

/** Whether all digests are those of names of the owner. */
export function areNamesOf(digests: OwnerDigests, owner: ContentOwner): boolean {
  return FIELDS.every((field) => digests[field] === undefined || digests[field] === digest(digests.salt, owner[field]));
}

export function isOwnerDigests(value: unknown): value is OwnerDigests {
  const digests = (value ?? {}) as Partial<OwnerDigests>;
  return (
    typeof digests.salt === 'string' &&
    FIELDS.every((field) => digests[field] === undefined || typeof digests[field] === 'string')
  );
}

function digest(salt: string, name: string | undefined): string | undefined {
  return name === undefined ? undefined : createHash('sha256').update(`${salt}\0${name}`).digest('hex');
}
