// Hashes of token prefixes, to find entries that share a head with a template. They only propose: whoever uses an entry
// compares its own tokens.

/** The shortest prefix worth a restore. */
export const MIN_SHARED_TOKENS = 16;

/** Prefix lengths that an entry of `length` tokens is found by: two an octave. */
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

/** The hash of every prefix, by its length: `length + 1` numbers. */
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

/** What an index keeps of a template's tokens. */
export interface PrefixHashes {
  tokens: number;
  /** At {@link hashPositions}. */
  hashes: readonly number[];
  /** Of all tokens. */
  whole: number;
}

export function hashPrefixes(tokens: Int32Array): PrefixHashes {
  const all = prefixHashes(tokens);
  return {
    tokens: tokens.length,
    hashes: hashPositions(tokens.length).map((position) => all[position] as number),
    whole: all[tokens.length] as number,
  };
}

/** How many tokens an entry seems to share with a template from their start, rounded down to a hashed length. */
export function likelyShared(facts: PrefixHashes, template: Uint32Array): number {
  if (facts.tokens < template.length && template[facts.tokens] === facts.whole) {
    return facts.tokens;
  }
  const positions = hashPositions(facts.tokens);
  for (let index = positions.length - 1; index >= 0; index--) {
    const position = positions[index] as number;
    if (position < template.length && template[position] === facts.hashes[index]) {
      return position;
    }
  }
  return 0;
}
