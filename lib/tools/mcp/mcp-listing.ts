// What MCP servers list, entry by entry: an odd one is read if it has a sensible reading, and left out otherwise.

import { isObject, type JsonObject } from '../../schema-walk.js';
import { kindOf, readInputSchema } from './mcp-schema.js';

/** A tool as its server lists it. */
export interface McpToolListing {
  name: string;
  description?: string | undefined;
  inputSchema: object;
}

/** A prompt as its server lists it. */
export interface McpPromptListing {
  /** The server's name for it. */
  name: string;
  /** What it is for, as the server says. @default none */
  description?: string | undefined;
  /** What it wants to be filled in with. @default nothing */
  arguments?:
    | {
        /** The key in `getPrompt`'s arguments. */
        name: string;
        /** What it is, as the server says. */
        description?: string | undefined;
        /** @default false */
        required?: boolean | undefined;
      }[]
    | undefined;
}

type PromptArgument = NonNullable<McpPromptListing['arguments']>[number];

/** Gets what is left out, for example `the tool "a"`, and why. */
export type OnLeftOut = (what: string, reason: string) => void;

export function readTools(entries: readonly unknown[], leftOut: OnLeftOut): McpToolListing[] {
  return readEntries('tool', entries, leftOut, ({ name, description, inputSchema }) => {
    const what = `the tool "${name}"`;
    const schema = readInputSchema(inputSchema);
    if (typeof schema === 'string') {
      leftOut(what, schema);
      return undefined;
    }
    return { name, ...readDescription(description, what, leftOut), inputSchema: schema };
  });
}

export function readPrompts(entries: readonly unknown[], leftOut: OnLeftOut): McpPromptListing[] {
  return readEntries('prompt', entries, leftOut, ({ name, description, arguments: listed }) => {
    const what = `the prompt "${name}"`;
    const args = readArguments(listed, what, leftOut);
    return { name, ...readDescription(description, what, leftOut), ...(args && { arguments: args }) };
  });
}

/** Each by its name: of several with one name the last counts. */
function readEntries<T extends { name: string }>(
  kind: 'tool' | 'prompt',
  entries: readonly unknown[],
  leftOut: OnLeftOut,
  read: (entry: JsonObject & { name: string }) => T | undefined,
): T[] {
  const byName = new Map<string, T>();
  for (const [index, entry] of entries.entries()) {
    const nameless = `the ${kind} at place ${index + 1} of its list`;
    if (!isObject(entry)) {
      leftOut(nameless, `it is ${kindOf(entry)}, not an object`);
    } else if (typeof entry.name !== 'string' || entry.name === '') {
      leftOut(nameless, `its name is ${entry.name === '' ? 'empty' : kindOf(entry.name)}, not a string`);
    } else {
      const made = read(entry as JsonObject & { name: string });
      if (made !== undefined) {
        if (byName.has(made.name)) {
          leftOut(`the ${kind} "${made.name}"`, 'a later one has the same name');
        }
        byName.set(made.name, made);
      }
    }
  }
  return [...byName.values()];
}

function readDescription(description: unknown, what: string, leftOut: OnLeftOut): { description?: string } {
  if (description === undefined || description === null) {
    return {};
  }
  if (isObject(description) || Array.isArray(description)) {
    leftOut(`the description of ${what}`, `it is ${kindOf(description)}, not a string`);
    return {};
  }
  return { description: String(description) };
}

function readArguments(listed: unknown, what: string, leftOut: OnLeftOut): PromptArgument[] | undefined {
  if (listed === undefined || listed === null) {
    return undefined;
  }
  if (!Array.isArray(listed)) {
    leftOut(`the arguments of ${what}`, `they are ${kindOf(listed)}, not an array`);
    return undefined;
  }
  return listed.flatMap((entry: unknown) => {
    const { name, description, required } = isObject(entry) ? entry : { name: entry };
    if (typeof name !== 'string' || name === '') {
      leftOut(`an argument of ${what}`, 'it has no name');
      return [];
    }
    return {
      name,
      ...readDescription(description, `the argument "${name}" of ${what}`, leftOut),
      ...(required !== undefined && { required: isYes(required) }),
    };
  });
}

/** A boolean as servers write it: also as a string or a number. */
export function isYes(value: unknown): boolean {
  return value === true || value === 1 || (typeof value === 'string' && value.toLowerCase() === 'true');
}
