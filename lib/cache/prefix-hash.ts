// Hashes of token prefixes. With these hashes, the cache finds entries that share a prefix with a template. Hashes may
// collide, so the tokens of an entry are always compared before the entry is used.

/** Minimum length of a shared prefix in tokens. A shorter prefix is not worth a restore. */
export const MIN_SHARED_TOKENS = 16;

/** The prefix lengths that are hashed for an entry of `length` tokens: 16, 24, 32, 48, 64 and so on. */
export function hashPositions(length: number): number[] {
  const positions: number[] = [];
  for (let octave = MIN_SHARED_TOKENS; octave <= length; octave *= 2) {
    positions.push(octave);
    if (octave * 1.5 <= length) {
      positions.push(octave * 1.5);
    }
  }
  return positions;
}

/** The hashes of all prefixes. The array index is the length of the prefix, from 0 to the number of tokens. */
export function prefixHashes(tokens: Int32Array): Uint32Array {
  const hashes = new Uint32Array(tokens.length + 1);
  let hash = 0x811c9dc5;
  for (let index = 0; index < tokens.length; index++) {
    hash = Math.imul(hash ^ (tokens[index] as number), 0x9e3779b1);
    hash ^= hash >>> 15;
    hashes[index + 1] = hash;
  }
  return hashes;
}

/** The hashes that the index stores for the tokens of a template. */
export interface PrefixHashes {
  /** Number of tokens. */
  tokens: number;
  /** Hashes of the prefixes with the lengths of {@link hashPositions}. */
  hashes: readonly number[];
  /** Hash of all tokens. */
  whole: number;
}

export function hashPrefixes(tokens: Int32Array): PrefixHashes {
  const hashes = prefixHashes(tokens);
  return {
    tokens: tokens.length,
    hashes: hashPositions(tokens.length).map((position) => hashes[position] as number),
    whole: hashes[tokens.length] as number,
  };
}

/**
 * The length of the prefix that an entry probably shares with a template, rounded down to a hashed length.
 *
 * @param template the hashes of the template's prefixes, from {@link prefixHashes}
 */
export function likelyShared(entry: PrefixHashes, template: Uint32Array): number {
  if (entry.tokens < template.length && template[entry.tokens] === entry.whole) {
    return entry.tokens;
  }
  const positions = hashPositions(entry.tokens);
  for (let index = positions.length - 1; index >= 0; index--) {
    const position = positions[index] as number;
    if (position < template.length && template[position] === entry.hashes[index]) {
      return position;
    }
  }
  return 0;
}
