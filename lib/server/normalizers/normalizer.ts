import type { ResolvedHandlerOptions } from '../server-options.js';

/** A change of requests of one client, which removes or moves text that differs between its sessions. */
export interface NormalizerRule<Body> {
  /** The name in reports. */
  name: string;
  /** The version of the client in which the text was seen. */
  seenIn: string;
  /** Whether the rule applies only with the option `portableHeads`. Other rules need the option `normalizers`. */
  isPortableHead?: boolean;
  /** @returns the changed body; undefined if the rule does not apply */
  apply(body: Body): Body | undefined;
}

/** The rules for one client. */
export interface Normalizer<Body> {
  /** Whether the client sent the request. Names of programs in headers are unreliable. */
  recognizes(body: Body, headers: Headers): boolean;
  rules: readonly NormalizerRule<Body>[];
}

/** A body after the rules, and the names of the rules that applied. */
export interface Normalized<Body> {
  body: Body;
  rules: readonly string[];
}

/** Which rules apply. */
export type WantedRules = Pick<ResolvedHandlerOptions, 'normalizers' | 'portableHeads'>;

/** Applies the wanted rules of the first normalizer that recognizes the client. */
export function normalize<Body>(
  normalizers: readonly Normalizer<Body>[],
  body: Body,
  headers: Headers,
  wanted: WantedRules,
): Normalized<Body> {
  const normalizer = normalizers.find((each) => each.recognizes(body, headers));
  const applied: string[] = [];
  let current = body;
  for (const { name, isPortableHead = false, apply } of normalizer?.rules ?? []) {
    const isWanted = isPortableHead ? wanted.portableHeads : wanted.normalizers;
    const changed = isWanted ? apply(current) : undefined;
    if (changed !== undefined) {
      applied.push(name);
      current = changed;
    }
  }
  return { body: current, rules: applied };
}
