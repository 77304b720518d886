// Reads the listings of MCP servers entry by entry. An entry that breaks the protocol is used if its meaning is clear.
// Otherwise the entry is left out.
import { isObject, type JsonObject } from '../../json.js';
import { kindOf, readInputSchema } from './mcp-schema.js';

/** A tool in the listing of a server. */
export interface McpToolListing {
  name: string;
  description?: string | undefined;
  inputSchema: object;
}

/** A prompt in the listing of a server. */
export interface McpPromptListing {
  /** The name that the server gives to the prompt. */
  name: string;
  /** The purpose of the prompt, in the words of the server. @default none */
  description?: string | undefined;
  /** The arguments of the prompt. @default none */
  arguments?:
    | {
        /** The key in the arguments of `getPrompt`. */
        name: string;
        /** The meaning of the argument, in the words of the server. */
        description?: string | undefined;
        /** Whether the prompt needs the argument. @default false */
        required?: boolean | undefined;
      }[]
    | undefined;
}

type PromptArgument = NonNullable<McpPromptListing['arguments']>[number];

/** Called for each part that is left out. `what` names the part, for example `the tool "a"`. */
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

/** Reads the valid entries. If several entries have the same name, only the last one is used. */
function readEntries<T extends { name: string }>(
  kind: 'tool' | 'prompt',
  entries: readonly unknown[],
  leftOut: OnLeftOut,
  read: (entry: JsonObject & { name: string }) => T | undefined,
): T[] {
  const byName = new Map<string, T>();
  for (const [index, entry] of entries.entries()) {
    const position = `${kind} number ${index + 1} in the list`;
    if (!isObject(entry)) {
      leftOut(position, `it is ${kindOf(entry)}, not an object`);
    } else if (typeof entry.name !== 'string' || entry.name === '') {
      leftOut(position, `its name is ${entry.name === '' ? 'empty' : kindOf(entry.name)}, not a string`);
    } else {
      const result = read(entry as JsonObject & { name: string });
      if (result !== undefined) {
        if (byName.has(result.name)) {
          leftOut(`the ${kind} "${result.name}"`, `a later ${kind} has the same name`);
        }
        byName.set(result.name, result);
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
      ...(required !== undefined && { required: readBoolean(required) }),
    };
  });
}

/** Reads a boolean. Some servers write booleans as strings or numbers. */
export function readBoolean(value: unknown): boolean {
  return value === true || value === 1 || (typeof value === 'string' && value.toLowerCase() === 'true');
}
