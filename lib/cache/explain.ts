// Why a template would miss: what differs from the nearest entry.
import { SequenceState } from '../native/state.js';
import { commonPrefixLength } from '../tokens.js';
import type { DiskStore } from './disk/disk-store.js';
import type { EntryFacts, EntryMetadata } from './disk/entry.js';
import type { KeyComponents, Keyring } from './key.js';
import type { MemoryStore } from './memory-store.js';
import { readTokens } from './nearest.js';
import { likelyShared, prefixHashes } from './prefix-hash.js';
import type { ResidentTemplates } from './resident-templates.js';
import { type StateSource, type Tier, tierOf } from './start-report.js';

/** A key component that is another one in the nearest entry. */
export interface ComponentDifference {
  /** Its name. */
  component: keyof KeyComponents;
  /** Of this process. Tenants are never named: only that they differ. */
  here: string;
  /** The nearest entry's. */
  entry: string;
}

/** Where two templates part. */
export interface TokenDifference {
  /** The first token that differs: its index, from 0. */
  index: number;
  /** Token ids around that place; the first is at `from`. */
  from: number;
  /** This template's token ids around that place. */
  here: number[];
  /** The nearest entry's. */
  entry: number[];
}

/** Why a template was not in the cache. */
export interface MissExplanation {
  /** The template's: SHA-256, hex. */
  key: string;
  /** Where the state of a start would come from now. */
  source: StateSource;
  /** Whether the template is in the cache now. */
  cache: 'hit' | 'miss';
  /** `source`, or `miss` if there is no entry. @deprecated Use `source` and `cache`. */
  tier: Tier;
  /** For people, in one sentence. */
  reason: string;
  /** The entry that comes nearest, where there is any. */
  nearest?: {
    /** SHA-256, hex. */
    key: string;
    /** Tokens in it. */
    tokens: number;
    /** How many of them, from the first, are the template's too. */
    sharedTokens: number;
  };
  /** Where the nearest entry's tokens differ, and it is no other tenant's. */
  difference?: TokenDifference;
  /** Where the nearest entry is another configuration's: its tokens may be the same, or differ as well. */
  components?: ComponentDifference[];
}

export interface ExplainParts {
  residents: ResidentTemplates;
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
  const source = await presentSource(key, parts);
  const cache = source === 'prefill' ? 'miss' : 'hit';
  const start = { key, source, cache, tier: tierOf(source, cache) } as const;
  if (cache === 'hit') {
    return { ...start, reason: `it is cached: a start comes from ${source}` };
  }
  const nearest = await nearestOf(keyring, template, parts);
  const own = nearest?.shared ?? 0;
  const elsewhere = await otherConfiguration(keyring, template, parts.disk, own);
  if (elsewhere !== undefined) {
    return { ...start, ...explainElsewhere(template, elsewhere, own) };
  }
  if (nearest === undefined) {
    return { ...start, reason: 'no entry begins with any of its tokens: it was never cached here, or is gone' };
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
  return { ...start, reason, nearest: facts, difference };
}

async function presentSource(key: string, { residents, memory, disk }: ExplainParts): Promise<StateSource> {
  if (residents.has(key)) {
    return 'resident';
  }
  if (memory.has(key)) {
    return 'memory';
  }
  await disk?.index.refresh();
  const facts = disk?.index.get(disk.nameOf(key));
  return facts?.key === key ? 'disk' : 'prefill';
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

interface Elsewhere {
  shared: number;
  /** Whether the entry's tokens are the template's, all of them. */
  isSame: boolean;
  known: Known;
  components: ComponentDifference[];
}

/** The entry of another configuration that shares the most tokens, where that is more than any of ours does. */
async function otherConfiguration(
  keyring: Keyring,
  template: Int32Array,
  disk: DiskStore | undefined,
  nearest: number,
): Promise<Elsewhere | undefined> {
  const found: Elsewhere[] = [];
  for (const facts of byShared(disk, template, ({ group }) => group !== keyring.group).slice(0, MAX_READ)) {
    const path = disk?.directory.join(facts.name) ?? '';
    const metadata = await SequenceState.readMetadata(path).catch(() => undefined);
    const components = compareComponents(keyring.components, (metadata as Partial<EntryMetadata>)?.components);
    const tokens = await readTokens(path, facts.tokens);
    const shared = commonPrefixLength(tokens, template);
    // How much another tenant's shares would tell, token by token, what is in it: only a whole template is recognised.
    const isSecret = components.some(({ component }) => component === 'tenant');
    const isSame = shared === template.length && shared === tokens.length;
    if (components.length > 0 && shared > nearest && (isSame || !isSecret)) {
      found.push({ shared, isSame, known: { key: facts.key, tokens }, components });
    }
  }
  found.sort((a, b) => b.shared - a.shared || a.components.length - b.components.length);
  return found[0];
}

function explainElsewhere(
  template: Int32Array,
  { shared, isSame, known, components }: Elsewhere,
  own: number,
): Pick<MissExplanation, 'reason' | 'nearest' | 'difference' | 'components'> {
  const names = components.map(({ component }) => component).join(', ');
  const nearest = { key: known.key, tokens: known.tokens.length, sharedTokens: shared };
  if (isSame) {
    return { reason: `an entry with the same ${shared} tokens was made under another ${names}`, nearest, components };
  }
  const most = own === 0 ? 'none made under these shares any' : `those made under these share ${own} at most`;
  const reason = `the nearest entry shares ${shared} of ${template.length} tokens and was made under another ${names}; ${most}`;
  return { reason, nearest, components, difference: differenceAt(shared, template, known.tokens) };
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

/** @param entry none where it cannot be read: then nothing is known to differ */
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
