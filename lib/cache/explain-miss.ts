// Explains why a start would be a miss. The explanation compares the template with the nearest entry.
import { SequenceState } from '../native/state.js';
import { commonPrefixLength } from '../tokens.js';
import { type CacheStores, storedTemplates } from './cache-stores.js';
import type { DiskStore } from './disk/disk-store.js';
import type { EntryMetadata, IndexedEntry } from './disk/entry.js';
import { readTokens } from './disk/read-tokens.js';
import type { KeyComponents, Keyring } from './key.js';
import { likelyShared, prefixHashes } from './prefix-hash.js';
import { type StateSource, type Tier, tierOf } from './start-report.js';

/** A key component that differs in the nearest entry. */
export interface ComponentDifference {
  /** Name of the component. */
  component: keyof KeyComponents;
  /** The component's value in this process. For `tenant`, the text `this tenant`, so that the value stays secret. */
  here: string;
  /** The component's value in the nearest entry. For `tenant`, the text `another tenant`. */
  entry: string;
}

/** The first difference between two templates. */
export interface TokenDifference {
  /** Index of the first token that differs, counted from 0. */
  index: number;
  /** Index of the first token in `here` and `entry`, counted from 0. */
  from: number;
  /** Token ids of this template around the difference. */
  here: number[];
  /** Token ids of the nearest entry around the difference. */
  entry: number[];
}

/** Explains whether and why a start with a template would be a miss. */
export interface MissExplanation {
  /** Key of the template: SHA-256, hex. */
  key: string;
  /** The source of the state if a session starts now. */
  source: StateSource;
  /** Whether the template is in the cache now. */
  cache: 'hit' | 'miss';
  /** The same as `source`, but `miss` if there is no entry. @deprecated Use `source` and `cache`. */
  tier: Tier;
  /** One sentence for people. */
  reason: string;
  /** The nearest entry. Absent if no entry shares a token. */
  nearest?: {
    /** Key of the entry: SHA-256, hex. */
    key: string;
    /** Tokens in the entry. */
    tokens: number;
    /** Length of the prefix that entry and template share, in tokens. */
    sharedTokens: number;
  };
  /** The first difference from the nearest entry. Absent if that entry belongs to another tenant. */
  difference?: TokenDifference;
  /**
   * If the nearest entry belongs to another configuration: the key components that differ. The tokens may also differ.
   */
  components?: ComponentDifference[];
}

/** Number of token ids to show before the first difference, and the same number from the difference on. */
const CONTEXT_TOKENS = 8;
/** Maximum number of entries of other configurations to read. */
const MAX_READ = 8;

interface Template {
  key: string;
  tokens: Int32Array;
}

interface NearestTemplate extends Template {
  /** Length of the shared prefix, in tokens. */
  shared: number;
}

export async function explainMiss(
  keyring: Keyring,
  template: Int32Array,
  stores: CacheStores,
): Promise<MissExplanation> {
  const key = keyring.keyOf(template);
  const source = await presentSource(key, stores);
  const cache = source === 'prefill' ? 'miss' : 'hit';
  const start = { key, source, cache, tier: tierOf(source, cache) } as const;
  if (cache === 'hit') {
    return { ...start, reason: `the template is cached: a start would use the source "${source}"` };
  }
  const nearest = await nearestOf(keyring, template, stores);
  const shared = nearest?.shared ?? 0;
  const foreign = await nearestForeign(keyring, template, stores.disk, shared);
  if (foreign !== undefined) {
    return { ...start, ...explainForeign(template, foreign, shared) };
  }
  if (nearest === undefined) {
    return {
      ...start,
      reason: 'no entry shares a token with the template: it was never cached here, or its entry was deleted',
    };
  }
  const { key: nearestKey, tokens } = nearest;
  const difference = differenceAt(shared, template, tokens);
  const reason =
    shared === tokens.length
      ? `the nearest entry ends after ${shared} tokens, and this template continues`
      : shared === template.length
        ? `this template ends after ${shared} tokens, and the nearest entry continues`
        : `token ${shared} differs from the nearest entry's; the first ${shared} of ${template.length} tokens are the same`;
  return {
    ...start,
    reason,
    nearest: { key: nearestKey, tokens: tokens.length, sharedTokens: shared },
    difference,
  };
}

/** Where a start would find the state of this template now. The call does not count as a use. */
export async function presentSource(key: string, { residents, states, disk }: CacheStores): Promise<StateSource> {
  if (residents.has(key)) {
    return 'resident';
  }
  if (states.find(key) !== undefined) {
    return 'memory';
  }
  await disk?.index.refresh();
  const entry = disk?.index.get(disk.nameOf(key));
  return entry?.key === key ? 'disk' : 'prefill';
}

/** The nearest template of the same configuration and tenant. */
async function nearestOf(
  keyring: Keyring,
  template: Int32Array,
  { residents, states, disk }: CacheStores,
): Promise<NearestTemplate | undefined> {
  const candidates: Template[] = [
    ...[...residents.values()].filter(({ group }) => group === keyring.group),
    ...storedTemplates(states).filter(({ group }) => group === keyring.group),
  ];
  const [entry] = byShared(disk, template, ({ group }) => group === keyring.group);
  if (entry !== undefined && disk !== undefined) {
    candidates.push({ key: entry.key, tokens: await readTokens(disk.directory.join(entry.name), entry.tokens) });
  }
  const [nearest] = candidates
    .map(({ key, tokens }) => ({ key, tokens, shared: commonPrefixLength(tokens, template) }))
    .sort((a, b) => b.shared - a.shared);
  return nearest !== undefined && nearest.shared > 0 ? nearest : undefined;
}

/** An entry of another configuration or tenant. */
interface ForeignTemplate extends NearestTemplate {
  /** Whether entry and template have the same tokens. */
  isSame: boolean;
  components: ComponentDifference[];
}

/**
 * The entry of another configuration that shares the most tokens. The entry must share more than `minShared` tokens.
 */
async function nearestForeign(
  keyring: Keyring,
  template: Int32Array,
  disk: DiskStore | undefined,
  minShared: number,
): Promise<ForeignTemplate | undefined> {
  const candidates: ForeignTemplate[] = [];
  for (const { name, key, tokens: count } of byShared(disk, template, ({ group }) => group !== keyring.group).slice(
    0,
    MAX_READ,
  )) {
    const path = disk?.directory.join(name) ?? '';
    const metadata = await SequenceState.readMetadata(path).catch(() => undefined);
    const components = compareComponents(keyring.components, (metadata as Partial<EntryMetadata>)?.components);
    const tokens = await readTokens(path, count);
    const shared = commonPrefixLength(tokens, template);
    // The shared length would reveal another tenant's template token by token, so only an identical template is
    // reported.
    const isSecret = components.some(({ component }) => component === 'tenant');
    const isSame = shared === template.length && shared === tokens.length;
    if (components.length > 0 && shared > minShared && (isSame || !isSecret)) {
      candidates.push({ key, tokens, shared, isSame, components });
    }
  }
  candidates.sort((a, b) => b.shared - a.shared || a.components.length - b.components.length);
  return candidates[0];
}

/** @param sharedHere the largest number of tokens that an entry of this configuration shares with the template */
function explainForeign(
  template: Int32Array,
  { key, tokens, shared, isSame, components }: ForeignTemplate,
  sharedHere: number,
): Pick<MissExplanation, 'reason' | 'nearest' | 'difference' | 'components'> {
  const names = components.map(({ component }) => component).join(', ');
  const nearest = { key, tokens: tokens.length, sharedTokens: shared };
  if (isSame) {
    return { reason: `an entry with the same ${shared} tokens was made with another ${names}`, nearest, components };
  }
  const here = sharedHere === 0 ? 'share none' : `share at most ${sharedHere}`;
  const reason = `the nearest entry shares ${shared} of ${template.length} tokens and was made with another ${names}; entries of this configuration ${here}`;
  return { reason, nearest, components, difference: differenceAt(shared, template, tokens) };
}

/** The entries that share a prefix with the template according to the index, the longest prefix first. */
function byShared(
  disk: DiskStore | undefined,
  template: Int32Array,
  accept: (entry: IndexedEntry) => boolean,
): IndexedEntry[] {
  const hashes = prefixHashes(template);
  return [...(disk?.index.values() ?? [])]
    .filter(accept)
    .map((entry) => ({ entry, shared: likelyShared(entry, hashes) }))
    .filter(({ shared }) => shared > 0)
    .sort((a, b) => b.shared - a.shared)
    .map(({ entry }) => entry);
}

/** @param entry undefined if the entry cannot be read. No differences are reported then. */
export function compareComponents(here: KeyComponents, entry: KeyComponents = here): ComponentDifference[] {
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
