// Words for error messages about options: a suggestion for an unknown name, and a description of the received value.

/** The option names of another object. Users may put these options into the wrong object. */
export interface Place {
  names: readonly string[];
  /** Completes "it belongs", for example "in `model`". */
  where: string;
}

/** Copies the options, without those whose value is undefined. */
export function definedOptions<Options extends object>(options: Options): Options {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Options;
}

/** Maps names that other programs use to the names of our options. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  maxBytes: 'maxDiskBytes',
  cacheDir: 'dir',
  directory: 'dir',
  cacheDirectory: 'dir',
  gpuLayers: 'nGpuLayers',
  n_ctx: 'contextSize',
  maxOutputTokens: 'maxTokens',
  stopSequences: 'stop',
};

/** Returns a suggestion to append to an error message about an unknown name, or '' if no known name is similar. */
export function suggestionFor(name: string, known: readonly string[], places: readonly Place[]): string {
  const renamed = newName(name, known);
  if (renamed !== undefined) {
    return `: did you mean \`${renamed}\`?`;
  }
  const owner = places.find(({ names }) => names.includes(name));
  if (owner !== undefined) {
    return `: it belongs ${owner.where}`;
  }
  const here = nearestName(name, known);
  if (here !== undefined) {
    return `: did you mean \`${here}\`?`;
  }
  for (const { names, where } of places) {
    const there = nearestName(name, names);
    if (there !== undefined) {
      return `: did you mean \`${there}\`, which belongs ${where}?`;
    }
  }
  return '';
}

function newName(name: string, known: readonly string[]): string | undefined {
  const meant = Object.hasOwn(OTHER_NAMES, name) ? OTHER_NAMES[name] : undefined;
  return meant !== undefined && known.includes(meant) ? meant : undefined;
}

/** Describes a value in an error message. */
export function describe(value: unknown): string {
  if (typeof value === 'string') {
    return JSON.stringify(value);
  }
  return value === null || ['number', 'boolean', 'undefined'].includes(typeof value)
    ? String(value)
    : `a value of type ${typeof value}`;
}

/**
 * Guesses which known name an unknown name means. Tries in this order:
 *
 * 1. the option for which other programs use the unknown name,
 * 2. the only known name that begins with the unknown name, if the unknown name has at least three characters,
 * 3. the nearest known name, if the edit distance is at most two or a third of the unknown name's length.
 *
 * Ignores upper and lower case.
 */
export function nearestName(name: string, known: readonly string[]): string | undefined {
  const renamed = newName(name, known);
  if (renamed !== undefined) {
    return renamed;
  }
  const longer = known.filter((candidate) => candidate.toLowerCase().startsWith(name.toLowerCase()));
  if (name.length >= 3 && longer.length === 1) {
    return longer[0];
  }
  const scored = known.map((candidate) => ({
    candidate,
    distance: editDistance(name.toLowerCase(), candidate.toLowerCase()),
  }));
  scored.sort((a, b) => a.distance - b.distance);
  const best = scored[0];
  return best !== undefined && best.distance <= Math.max(2, name.length / 3) ? best.candidate : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
