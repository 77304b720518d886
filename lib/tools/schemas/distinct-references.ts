// Gives references unique names. All tools of a session share one grammar of replies, and llama.cpp names the rules of
// this grammar after references. Two schemas may use the same reference for different definitions, for example
// `#/$defs/Item` or zod's `#/$defs/__schema0`. Both schemas would then get the rule of the first definition.
import { createHash } from 'node:crypto';
import { isObject, type Json, type JsonObject } from '../../json.js';
import { mapBelow, targetOf } from '../../schema-walk.js';

/** Maps each reference in a schema to its target, as JSON. */
type Targets = ReadonlyMap<string, string>;

/** Caches the targets, because sessions use the same schemas repeatedly. */
const targetsBySchema = new WeakMap<JsonObject, Targets>();

/**
 * Renames references so that each name has only one definition in all schemas. Schemas without a conflict stay
 * unchanged. The new names do not depend on the order of the schemas.
 */
export function withDistinctReferences(schemas: readonly JsonObject[]): JsonObject[] {
  const meanings = new Map<string, Set<string>>();
  for (const schema of schemas) {
    for (const [reference, target] of targetsOf(schema)) {
      const name = ruleName(reference);
      meanings.set(name, (meanings.get(name) ?? new Set()).add(target));
    }
  }
  const isAmbiguous = (reference: string) => (meanings.get(ruleName(reference))?.size ?? 0) > 1;
  return schemas.map((schema) => ([...targetsOf(schema).keys()].some(isAmbiguous) ? renamed(schema) : schema));
}

/** The name that llama.cpp's converter gives to the rule of a reference. */
function ruleName(reference: string): string {
  return reference.replace(/[^a-zA-Z0-9-]+/g, '-');
}

function targetsOf(schema: JsonObject): Targets {
  let targets = targetsBySchema.get(schema);
  if (targets === undefined) {
    targets = findTargets(schema);
    targetsBySchema.set(schema, targets);
  }
  return targets;
}

/** Finds the targets of all references. Leaves out references without a target, because another check refuses them. */
function findTargets(root: JsonObject): Targets {
  const targets = new Map<string, string>();
  const visit = (schema: Json): Json => {
    if (isObject(schema)) {
      const { $ref } = schema;
      const target = typeof $ref === 'string' && !targets.has($ref) ? targetOf(root, $ref) : undefined;
      if (target !== undefined) {
        targets.set($ref as string, JSON.stringify(target));
        visit(target);
      }
      mapBelow(schema, visit);
    }
    return schema;
  };
  visit(root);
  return targets;
}

/** Renames the definition of every reference. No other schema has the new names. */
function renamed(root: JsonObject): JsonObject {
  const text = JSON.stringify(root);
  const names = new Map(
    [...targetsOf(root).keys()].map((reference) => {
      const hash = createHash('sha256').update(`${reference} ${text}`).digest('hex').slice(0, 8);
      return [reference, `${reference.split('/').at(-1)}_${hash}`] as const;
    }),
  );
  const rename = (schema: Json): Json => {
    if (!isObject(schema)) {
      return schema;
    }
    const name = names.get(schema.$ref as string);
    return { ...mapBelow(schema, rename), ...(name !== undefined && { $ref: `#/$defs/${name}` }) };
  };
  const { $defs: _, definitions: __, ...rest } = root;
  const definitions = [...names].map(([reference, name]) => [name, rename(targetOf(root, reference))]);
  return Object.freeze({ ...(rename(rest) as JsonObject), $defs: Object.fromEntries(definitions) });
}
