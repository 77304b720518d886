// Why a template would miss: what differs from the nearest entry.
import { SequenceState } from '../native/state.js';
import { commonPrefixLength } from '../template/tokens.js';
import type { DiskStore } from './disk.js';
import type { EntryFacts, EntryMetadata } from './entry.js';
import type { KeyComponents, Keyring } from './key.js';
import type { MemoryStore } from './memory.js';
import { readTokens } from './nearest.js';
import { likelyShared, prefixHashes } from './prefix-hash.js';
import type { Tier } from './report.js';
import type { Residents } from './residents.js';

/** A key component that is another one in the nearest entry. */
export interface ComponentDifference {
  component: keyof KeyComponents;
  /** Of this process. Tenants are never named: only that they differ. */
  here: string;
  entry: string;
}

/** Where two templates part. */
export interface TokenDifference {
  /** The first token that differs: its index, from 0. */
  index: number;
  /** Token ids around that place; the first is at `from`. */
  from: number;
  here: number[];
  entry: number[];
}

/** Why a template was not in the cache. */
export interface MissExplanation {
  key: string;
  /** The tier that a start would come from now; `miss` where there is no entry. */
  tier: Tier;
  /** For people, in one sentence. */
  reason: string;
  /** The entry that comes nearest, where there is any. */
  nearest?: { key: string; tokens: number; sharedTokens: number };
  difference?: TokenDifference;
  components?: ComponentDifference[];
}

export interface ExplainParts {
  residents: Residents;
  memory: MemoryStore;
  disk: DiskStore | undefined;
}

/** Token ids shown before and behind the first that differs. */
const CONTEXT_TOKENS = 8;
/** Entries of other configurations whose components are read. */
const MAX_READ = 8;

interface Known {
  key: string;
  tokens: Int32Array;
}

export async function explainMiss(
  keyring: Keyring,
  template: Int32Array,
  parts: ExplainParts,
): Promise<MissExplanation> {
  const key = keyring.keyOf(template);
  const tier = await presentTier(key, parts);
  if (tier !== undefined) {
    return { key, tier, reason: `it is cached: a start comes from ${tier}` };
  }
  const nearest = await nearestOf(keyring, template, parts);
  const elsewhere = await otherConfiguration(keyring, template, parts.disk, nearest?.shared ?? 0);
  if (elsewhere !== undefined) {
    return { key, tier: 'miss', ...elsewhere };
  }
  if (nearest === undefined) {
    return {
      key,
      tier: 'miss',
      reason: 'no entry begins with any of its tokens: it was never cached here, or is gone',
    };
  }
  const { shared, known } = nearest;
  const difference = differenceAt(shared, template, known.tokens);
  const reason =
    shared === known.tokens.length
      ? `the nearest entry ends after ${shared} tokens, and this template goes on`
      : shared === template.length
        ? `the nearest entry goes on where this template ends, after ${shared} tokens`
        : `token ${shared} differs from the nearest entry's, after ${shared} of ${template.length} that are the same`;
  const facts = { key: known.key, tokens: known.tokens.length, sharedTokens: shared };
  return { key, tier: 'miss', reason, nearest: facts, difference };
}

async function presentTier(key: string, { residents, memory, disk }: ExplainParts): Promise<Tier | undefined> {
  if (residents.has(key)) {
    return 'resident';
  }
  if (memory.has(key)) {
    return 'memory';
  }
  await disk?.index.refresh();
  const facts = disk?.index.get(disk.nameOf(key));
  return facts?.key === key ? 'disk' : undefined;
}

/** Of the same configuration and tenant. */
async function nearestOf(
  keyring: Keyring,
  template: Int32Array,
  { residents, memory, disk }: ExplainParts,
): Promise<{ shared: number; known: Known } | undefined> {
  const here = [
    ...[...residents.values()].map(({ key, tokens, group }) => ({ key, tokens, group })),
    ...[...memory.entries()].map(([key, { tokens, group }]) => ({ key, tokens, group })),
  ].filter(({ group }) => group === keyring.group);
  const [facts] = byShared(disk, template, (each) => each.group === keyring.group);
  if (facts !== undefined && disk !== undefined) {
    const tokens = await readTokens(disk.directory.join(facts.name), facts.tokens);
    here.push({ key: facts.key, tokens, group: facts.group });
  }
  const scored = here.map((known) => ({ shared: commonPrefixLength(known.tokens, template), known }));
  scored.sort((a, b) => b.shared - a.shared);
  return scored[0] !== undefined && scored[0].shared > 0 ? scored[0] : undefined;
}

/** An entry with these very tokens, or with more of them than any of ours, that differs in the key's components. */
async function otherConfiguration(
  keyring: Keyring,
  template: Int32Array,
  disk: DiskStore | undefined,
  nearest: number,
): Promise<Pick<MissExplanation, 'reason' | 'nearest' | 'components'> | undefined> {
  const hashes = prefixHashes(template);
  const others = byShared(disk, template, ({ group }) => group !== keyring.group)
    .filter((facts) => likelyShared(facts, hashes) > nearest)
    .slice(0, MAX_READ);
  let best: { facts: EntryFacts; components: ComponentDifference[] } | undefined;
  for (const facts of others) {
    const metadata = await SequenceState.readMetadata(disk?.directory.join(facts.name) ?? '').catch(() => undefined);
    const { components } = (metadata ?? {}) as Partial<EntryMetadata>;
    if (components !== undefined) {
      const differences = compareComponents(keyring.components, components);
      if (differences.length > 0 && (best === undefined || differences.length < best.components.length)) {
        best = { facts, components: differences };
      }
    }
  }
  if (best === undefined) {
    return undefined;
  }
  const names = best.components.map(({ component }) => component).join(', ');
  const sharedTokens = likelyShared(best.facts, hashes);
  return {
    reason: `an entry with the same tokens was made under another ${names}`,
    nearest: { key: best.facts.key, tokens: best.facts.tokens, sharedTokens },
    components: best.components,
  };
}

function byShared(
  disk: DiskStore | undefined,
  template: Int32Array,
  accept: (facts: EntryFacts) => boolean,
): EntryFacts[] {
  const hashes = prefixHashes(template);
  return [...(disk?.index.values() ?? [])]
    .filter(accept)
    .map((facts) => ({ facts, shared: likelyShared(facts, hashes) }))
    .filter(({ shared }) => shared > 0)
    .sort((a, b) => b.shared - a.shared)
    .map(({ facts }) => facts);
}

export function compareComponents(here: KeyComponents, entry: KeyComponents): ComponentDifference[] {
  const names = [...new Set([...Object.keys(here), ...Object.keys(entry)])] as (keyof KeyComponents)[];
  return names
    .filter((name) => JSON.stringify(here[name]) !== JSON.stringify(entry[name]))
    .map((component) =>
      component === 'tenant'
        ? { component, here: 'this tenant', entry: 'another tenant' }
        : { component, here: String(here[component]), entry: String(entry[component]) },
    );
}

function differenceAt(index: number, here: Int32Array, entry: Int32Array): TokenDifference {
  const from = Math.max(0, index - CONTEXT_TOKENS);
  const cut = (tokens: Int32Array) => [...tokens.subarray(from, index + CONTEXT_TOKENS)];
  return { index, from, here: cut(here), entry: cut(entry) };
}
