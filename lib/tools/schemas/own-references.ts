// The grammar of replies is one for all tools of a session, and llama.cpp names its rules by references alone: what two schemas
// call alike and mean differently (zod's `#/$defs/__schema0`, `#/$defs/Item`) would be one rule, made of whatever came first.
import { createHash } from 'node:crypto';
import { isObject, type Json, type JsonObject, mapBelow, targetOf } from '../../schema-walk.js';

/** What a schema's references lead to, as text, by reference. */
type Targets = ReadonlyMap<string, string>;

/** Asked for again and again, of the same schemas. */
const known = new WeakMap<JsonObject, Targets>();

/**
 * Schemas whose references share no name with different meanings: those that did get names of their own, the same ones in
 * whatever order the schemas come. All others stay as they are.
 */
export function withOwnReferences(schemas: readonly JsonObject[]): JsonObject[] {
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

/** As llama.cpp's converter names the rule of a reference. */
function ruleName(reference: string): string {
  return reference.replace(/[^a-zA-Z0-9-]+/g, '-');
}

function targetsOf(schema: JsonObject): Targets {
  let targets = known.get(schema);
  if (targets === undefined) {
    targets = findTargets(schema);
    known.set(schema, targets);
  }
  return targets;
}

/** References to nothing are left out: they are refused elsewhere. */
function findTargets(root: JsonObject): Targets {
  const found = new Map<string, string>();
  const visit = (schema: Json): Json => {
    if (isObject(schema)) {
      const { $ref } = schema;
      const target = typeof $ref === 'string' && !found.has($ref) ? targetOf(root, $ref) : undefined;
      if (target !== undefined) {
        found.set($ref as string, JSON.stringify(target));
        visit(target);
      }
      mapBelow(schema, visit);
    }
    return schema;
  };
  visit(root);
  return found;
}

/** With every reference to a definition of its own, under a name that no other schema has. */
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
