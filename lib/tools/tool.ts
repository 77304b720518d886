import { HeadstartError } from '../errors.js';
import { callable, checked, group, type OptionsOf, openGroup, string, value } from '../option-types.js';
import { describe, nearestName } from '../options.js';
import { parseOptions } from '../parse-options.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { ToolDefinition } from '../prompt/renderer.js';
import type { JsonObject } from '../schema-walk.js';
import { withOwnReferences } from './schemas/own-references.js';
import {
  isStandardSchema,
  type PreparedSchema,
  prepareSchema,
  type Schema,
  type SchemaValue,
} from './schemas/schema.js';

/** The session that a tool is called in. */
export interface ToolSession {
  /** As `session.id`. */
  readonly id: string;
  /** The conversation before this turn. */
  readonly messages: readonly ChatMessage[];
}

/** What a tool gets beside its arguments. */
export interface ToolContext {
  /** Fires when the turn is aborted or left, the session closed, or the call's time is over. */
  signal: AbortSignal;
  /** Whose turn it is. */
  session: ToolSession;
  /** Unique in its conversation. */
  toolCallId: string;
}

/** Longer names are refused: models have to write them. */
const MAX_NAME_LENGTH = 256;

const TOOL = {
  /** Unique among a session's tools. */
  name: value<string>(
    isName,
    `1 to ${MAX_NAME_LENGTH} whole characters, without control characters and without white space at its ends`,
  ),
  /** For the model: what it does and when to use it. @default none */
  description: string().optional(),
  /** JSON Schema or zod schema of the arguments, which are an object. @default no arguments */
  parameters: value<Schema>(
    (given) => isStandardSchema(given) || isJsonObject(given),
    'a JSON Schema object or a zod schema',
  ).optional(),
  /**
   * Does it, with arguments that are its own to change. What it returns (or resolves with) is told to the model: a string as it
   * is, anything else as JSON. What it throws is told to the model too. @default none: calls are returned to the caller
   */
  // biome-ignore lint/suspicious/noExplicitAny: what the arguments are is what `parameters` says
  execute: callable<(args: any, context: ToolContext) => unknown>().optional(),
  /** The server that listed it, of tools that came from one (MCP): see `stableTools`. The model does not see it. @default none */
  server: string().optional(),
};

/** A tool that the model can call. */
export interface Tool extends OptionsOf<typeof TOOL> {}

export const TOOL_OPTIONS = openGroup(TOOL);

/**
 * Gives a tool whose `parameters` are a zod schema the types of its arguments.
 *
 * @example
 * tool({ name: 'add', parameters: z.object({ a: z.number(), b: z.number() }), execute: ({ a, b }) => a + b });
 */
export function tool<S extends Schema>(
  definition: Omit<Tool, 'parameters' | 'execute'> & {
    parameters: S;
    execute?: (args: SchemaValue<S>, context: ToolContext) => unknown;
  },
): Tool {
  return definition as Tool;
}

/** A session's tools, checked: as the model sees them, and what runs them. */
export class ToolSet {
  static readonly none = new ToolSet([], new Map());
  /** As given, in their order, with JSON Schemas whose references mean one thing each. */
  readonly definitions: readonly ToolDefinition[];
  /** Each as if it were the only one. */
  readonly #own: readonly ToolDefinition[];
  readonly #tools: ReadonlyMap<string, { tool: Tool; parameters: PreparedSchema }>;

  private constructor(
    definitions: readonly ToolDefinition[],
    tools: ReadonlyMap<string, { tool: Tool; parameters: PreparedSchema }>,
  ) {
    this.#own = definitions;
    this.definitions = Object.freeze(withGrammars(definitions, tools));
    this.#tools = tools;
  }

  /**
   * Checks tools and copies what the model is told of them: that must not change while they are in use.
   *
   * @throws HeadstartError `CONFIG_INVALID`, `SCHEMA_INVALID`.
   */
  static async prepare(tools: readonly Tool[]): Promise<ToolSet> {
    const prepared = new Map<string, { tool: Tool; parameters: PreparedSchema }>();
    const definitions: ToolDefinition[] = [];
    for (const each of tools) {
      const { name, description, parameters, server } = each;
      const schema = await prepareSchema(parameters ?? NO_ARGUMENTS, `\`parameters\` of the tool "${name}"`, true);
      requireObject(schema.jsonSchema, name);
      prepared.set(name, { tool: each, parameters: schema });
      definitions.push(
        Object.freeze({
          name,
          ...(server !== undefined && { server }),
          ...(description !== undefined && { description }),
          ...(parameters !== undefined && { parameters: schema.jsonSchema }),
        }),
      );
    }
    return new ToolSet(definitions, prepared);
  }

  /** These tools, and then others of other names. */
  with(others: ToolSet): ToolSet {
    return new ToolSet([...this.#own, ...others.#own], new Map([...this.#tools, ...others.#tools]));
  }

  get(name: string): { tool: Tool; parameters: PreparedSchema } | undefined {
    return this.#tools.get(name);
  }

  get size(): number {
    return this.#tools.size;
  }
}

/** Call formats write arguments by name: others would never come. */
function requireObject(schema: { type?: unknown }, name: string): void {
  if (schema.type !== undefined && ![schema.type].flat().includes('object')) {
    throw new HeadstartError(
      'SCHEMA_INVALID',
      `Expected \`parameters\` of the tool "${name}" to be the schema of an object, got one of the type ${JSON.stringify(schema.type)}`,
    );
  }
}

/** Grammars of calls may have a megabyte together with all that stands around schemas. */
const MAX_GRAMMAR_LENGTH = 400_000;

/** With what the grammar of calls says of each. */
function withGrammars(
  definitions: readonly ToolDefinition[],
  tools: ReadonlyMap<string, { parameters: PreparedSchema }>,
): ToolDefinition[] {
  const prepared = definitions.map(({ name }) => tools.get(name)?.parameters as PreparedSchema);
  let length = prepared.reduce((sum, { grammarLength }) => sum + grammarLength, 0);
  const schemas = prepared.map(({ grammarSchema }) => grammarSchema as JsonObject);
  const longestFirst = [...prepared.keys()].sort((a, b) => lengthOf(prepared[b]) - lengthOf(prepared[a]));
  for (const index of longestFirst) {
    if (length > MAX_GRAMMAR_LENGTH) {
      length -= lengthOf(prepared[index]);
      schemas[index] = prepared[index]?.shortSchema as JsonObject;
    }
  }
  const said = withOwnReferences(schemas);
  return definitions.map((definition, index) => Object.freeze({ ...definition, grammarSchema: said[index] as object }));
}

function lengthOf(prepared: PreparedSchema | undefined): number {
  return prepared?.grammarLength ?? 0;
}

const NO_ARGUMENTS = { type: 'object', properties: {} };

/** @returns what tools have to be and these are not, for `checked` */
export function checkTools(value: unknown): string | undefined {
  if (!Array.isArray(value)) {
    return 'an array of tools';
  }
  const names = new Set<string>();
  for (const [index, each] of (value as Partial<Tool>[]).entries()) {
    const problem = checkTool(each);
    if (problem !== undefined) {
      return `an array of tools, and the tool at index ${index} to have ${problem}`;
    }
    const name = each.name as string;
    if (names.has(name)) {
      return `an array of tools with names of their own ("${name}" is there twice)`;
    }
    names.add(name);
  }
  return undefined;
}

const TOOLS = group({ tools: checked<readonly Tool[]>(checkTools, 'an array of tools') });

/** @throws HeadstartError `CONFIG_INVALID`. */
export function requireTools(tools: readonly Tool[]): void {
  parseOptions(TOOLS, { tools }, { where: 'the options' });
}

function checkTool(each: Partial<Tool>): string | undefined {
  const issue = TOOL_OPTIONS.safeParse(each).error?.issues[0];
  const mistaken = Object.keys(each ?? {}).find((key) => meantField(key) !== undefined);
  if (mistaken !== undefined) {
    return `known fields (\`${mistaken}\`: did you mean \`${meantField(mistaken)}\`?)`;
  }
  return issue && `${issue.path.map((key) => `\`${String(key)}\``)[0] ?? 'fields'} that is ${issue.message}`;
}

const FIELDS = Object.keys(TOOL);
/** What they are called elsewhere. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  inputSchema: 'parameters',
  input_schema: 'parameters',
  schema: 'parameters',
  func: 'execute',
  handler: 'execute',
  run: 'execute',
};

/** What a field that means nothing here was meant to be; a tool may carry others of its program's own. */
function meantField(key: string): string | undefined {
  if (FIELDS.includes(key)) {
    return undefined;
  }
  return Object.hasOwn(OTHER_NAMES, key) ? OTHER_NAMES[key] : nearestName(key, FIELDS);
}

function isName(name: unknown): boolean {
  return (
    typeof name === 'string' &&
    name !== '' &&
    name.length <= MAX_NAME_LENGTH &&
    !/[\p{Surrogate}\p{Control}]/u.test(name) &&
    name.trim() === name // parsers of replies trim names
  );
}

function isJsonObject(value: unknown): boolean {
  try {
    return typeof value === 'object' && value !== null && JSON.stringify(value).startsWith('{');
  } catch {
    return false; // circular, or a bigint
  }
}

/** Which tools the model may call. */
export type ToolChoice =
  /** It decides. */
  | 'auto'
  /** At least one, in its first reply of a turn. */
  | 'required'
  | 'none'
  /** This one, in its first reply of a turn. */
  | {
      /** Of one of the session's tools. */
      name: string;
    };

/** @throws HeadstartError `INVALID_ARGUMENT` for a choice that these tools do not allow. */
export function requireToolChoice(choice: ToolChoice, tools: ToolSet): void {
  if (typeof choice === 'object' && tools.get(choice.name) === undefined) {
    const known = tools.definitions.map(({ name }) => describe(name)).join(', ') || 'none';
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected \`toolChoice\` to name one of this session's tools (${known}), got ${describe(choice.name)}`,
    );
  }
  if (choice === 'required' && tools.size === 0) {
    throw new HeadstartError('INVALID_ARGUMENT', 'Expected a session with tools for `toolChoice` "required"');
  }
}
