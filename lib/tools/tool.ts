import { HeadstartError } from '../errors.js';
import type { JsonObject } from '../json.js';
import { boolean, callable, checked, group, type OptionsOf, openGroup, string, value } from '../option-types.js';
import { describe, nearestName } from '../options.js';
import { parseOptions } from '../parse-options.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { ToolDefinition } from '../prompt/renderer.js';
import { withDistinctReferences } from './schemas/distinct-references.js';
import {
  isStandardSchema,
  type PreparedSchema,
  prepareSchema,
  type Schema,
  type SchemaValue,
} from './schemas/schema.js';

/** The session in which the model called a tool. */
export interface ToolSession {
  /** The same as `session.id`. */
  readonly id: string;
  /** The conversation up to this turn. */
  readonly messages: readonly ChatMessage[];
}

/** The second argument of a tool's `execute`. */
export interface ToolContext {
  /**
   * Fires when the turn is aborted, its reader leaves the stream, the session is closed, or the call reaches its time
   * limit.
   */
  signal: AbortSignal;
  /** The session that the turn belongs to. */
  session: ToolSession;
  /** Unique in its conversation. */
  toolCallId: string;
}

/** The longest name of a tool, in characters. The model has to write the whole name in each call. */
const MAX_NAME_LENGTH = 256;

const TOOL = {
  /** Unique among a session's tools. */
  name: value<string>(
    isName,
    `1 to ${MAX_NAME_LENGTH} whole characters, without control characters and without white space at its ends`,
  ),
  /** What the tool does and when to use it, for the model. @default none */
  description: string().optional(),
  /** JSON Schema or zod schema of the arguments, which must be an object. @default no arguments */
  inputSchema: argumentSchema().optional(),
  /**
   * Alias of `inputSchema`, with the name of the OpenAI API. Both together are `CONFIG_INVALID`. @default no arguments
   */
  parameters: argumentSchema().optional(),
  /**
   * Runs the tool. The arguments are a copy, which the function may change. The model gets the returned (or resolved)
   * value: a string unchanged, any other value as JSON. If the function throws, the model gets the error's message.
   * @default none: calls are returned to the caller
   */
  // biome-ignore lint/suspicious/noExplicitAny: the type of the arguments follows from `inputSchema`
  execute: callable<(args: any, context: ToolContext) => unknown>().optional(),
  /** The MCP server that listed the tool: see `stableTools`. The model does not see this name. @default none */
  server: string().optional(),
  /**
   * Whether to leave the tool out of the beginning of the prompt. The model sees and can call such a tool only after a
   * message with the content part `{ type: 'tool-reference', toolName }`, which shows the definition of the tool. So
   * many tools can be offered without a long prompt, and a tool that is loaded later changes no earlier token.
   * @default false
   */
  deferred: boolean().optional(),
};

/** A tool that the model can call. */
export interface Tool extends OptionsOf<typeof TOOL> {}

export const TOOL_OPTIONS = openGroup(TOOL);

/** The schema of the arguments, under one of its two names. */
type WithSchema<S extends Schema> =
  | {
      /** JSON Schema or zod schema of the arguments. */
      inputSchema: S;
      /** Must be absent, because `inputSchema` has the schema. */
      parameters?: undefined;
    }
  | {
      /** Alias of `inputSchema`. */
      parameters: S;
      /** Must be absent, because `parameters` has the schema. */
      inputSchema?: undefined;
    };

/**
 * Returns the definition unchanged. Its purpose is type inference: if `inputSchema` is a zod schema, the arguments of
 * `execute` get the types of this schema.
 *
 * @example
 * tool({ name: 'add', inputSchema: z.object({ a: z.number(), b: z.number() }), execute: ({ a, b }) => a + b });
 */
export function tool<S extends Schema>(
  definition: Omit<Tool, 'inputSchema' | 'parameters' | 'execute'> &
    WithSchema<S> & {
      execute?: (args: SchemaValue<S>, context: ToolContext) => unknown;
    },
): Tool {
  return definition as Tool;
}

/** The schema of a tool's arguments, from `inputSchema` or from its alias `parameters`. */
export function inputSchemaOf({ inputSchema, parameters }: Partial<Tool>): Schema | undefined {
  return inputSchema ?? parameters;
}

/** A tool with its schema ready for use. */
export interface PreparedTool {
  readonly tool: Tool;
  readonly schema: PreparedSchema;
}

/** The checked tools of a session: their definitions for the model, and the tools to run. */
export class ToolSet {
  static readonly none = new ToolSet([], new Map());
  /** The definitions, in the program's order. In their grammar schemas, each reference has one definition. */
  readonly definitions: readonly ToolDefinition[];
  /** The definitions without grammar schemas, because grammar schemas depend on all tools of a set. */
  readonly #plainDefinitions: readonly ToolDefinition[];
  readonly #tools: ReadonlyMap<string, PreparedTool>;

  private constructor(definitions: readonly ToolDefinition[], tools: ReadonlyMap<string, PreparedTool>) {
    this.#plainDefinitions = definitions;
    this.definitions = Object.freeze(withGrammarSchemas(definitions, tools));
    this.#tools = tools;
  }

  /**
   * Checks tools. Copies the descriptions and schemas that the model sees, because these must not change during a
   * session.
   *
   * @throws HeadstartError `CONFIG_INVALID`, `SCHEMA_INVALID`.
   */
  static async prepare(tools: readonly Tool[]): Promise<ToolSet> {
    const prepared = new Map<string, PreparedTool>();
    const definitions: ToolDefinition[] = [];
    for (const each of tools) {
      const { name, description, server, deferred } = each;
      const schema = await prepareInputSchema(each);
      prepared.set(name, { tool: each, schema });
      definitions.push(
        Object.freeze({
          name,
          ...(server !== undefined && { server }),
          ...(deferred === true && { deferred }),
          ...(description !== undefined && { description }),
          ...(inputSchemaOf(each) !== undefined && { parameters: schema.jsonSchema }),
        }),
      );
    }
    return new ToolSet(definitions, prepared);
  }

  /** Returns a set of the tools of this set, followed by those of `others`. All names must be different. */
  with(others: ToolSet): ToolSet {
    return new ToolSet(
      [...this.#plainDefinitions, ...others.#plainDefinitions],
      new Map([...this.#tools, ...others.#tools]),
    );
  }

  /** The set of those tools that have a definition in `definitions`. */
  only(definitions: readonly ToolDefinition[]): ToolSet {
    if (definitions.length === this.size) {
      return this;
    }
    const names = new Set(definitions.map(({ name }) => name));
    return new ToolSet(
      this.#plainDefinitions.filter(({ name }) => names.has(name)),
      new Map([...this.#tools].filter(([name]) => names.has(name))),
    );
  }

  get(name: string): PreparedTool | undefined {
    return this.#tools.get(name);
  }

  get size(): number {
    return this.#tools.size;
  }
}

/**
 * Prepares a tool's schema. The schema must be that of an object, because every call format writes arguments by name.
 */
async function prepareInputSchema(tool: Tool): Promise<PreparedSchema> {
  const what = `\`${tool.parameters === undefined ? 'inputSchema' : 'parameters'}\` of the tool "${tool.name}"`;
  const schema = await prepareSchema(inputSchemaOf(tool) ?? NO_ARGUMENTS, what, true);
  const { type } = schema.jsonSchema as { type?: unknown };
  if (type !== undefined && ![type].flat().includes('object')) {
    throw new HeadstartError(
      'SCHEMA_INVALID',
      `Expected ${what} to be the schema of an object, got a schema of the type ${JSON.stringify(type)}`,
    );
  }
  return schema;
}

/**
 * The maximum length of the grammars of all schemas together, in characters. The whole grammar of calls has further
 * rules, and may reach a megabyte.
 */
const MAX_GRAMMAR_LENGTH = 400_000;

/**
 * Adds the schemas for the grammar of calls. Replaces the longest schemas by their short forms, until all schemas
 * together fit.
 */
function withGrammarSchemas(
  definitions: readonly ToolDefinition[],
  tools: ReadonlyMap<string, PreparedTool>,
): ToolDefinition[] {
  const prepared = definitions.map(({ name }) => tools.get(name)?.schema as PreparedSchema);
  let length = prepared.reduce((sum, { grammarLength }) => sum + grammarLength, 0);
  const schemas = prepared.map(({ grammarSchema }) => grammarSchema as JsonObject);
  const longestFirst = [...prepared.keys()].sort((a, b) => lengthOf(prepared[b]) - lengthOf(prepared[a]));
  for (const index of longestFirst) {
    if (length > MAX_GRAMMAR_LENGTH) {
      length -= lengthOf(prepared[index]);
      schemas[index] = prepared[index]?.shortSchema as JsonObject;
    }
  }
  const separate = withDistinctReferences(schemas);
  return definitions.map((definition, index) =>
    Object.freeze({ ...definition, grammarSchema: separate[index] as object }),
  );
}

function lengthOf(prepared: PreparedSchema | undefined): number {
  return prepared?.grammarLength ?? 0;
}

const NO_ARGUMENTS = { type: 'object', properties: {} };

/**
 * @returns undefined if all tools are valid. Otherwise the expectation that completes the message "Expected ... to be"
 *   (see `checked`).
 */
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
      return `an array of tools with different names (two are called "${name}")`;
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
  const misnamed = Object.keys(each ?? {}).find((key) => meantField(key) !== undefined);
  if (misnamed !== undefined) {
    return `known fields (\`${misnamed}\`: did you mean \`${meantField(misnamed)}\`?)`;
  }
  if (issue === undefined && each.inputSchema !== undefined && each.parameters !== undefined) {
    return '`inputSchema` or its alias `parameters`, not both';
  }
  return issue && `${issue.path.map((key) => `\`${String(key)}\``)[0] ?? 'fields'} that is ${issue.message}`;
}

const FIELDS = Object.keys(TOOL);
/** Maps names that other packages use to these fields. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  input_schema: 'inputSchema',
  schema: 'inputSchema',
  func: 'execute',
  handler: 'execute',
  run: 'execute',
};

/**
 * The known field that an unknown field probably means. Undefined for all other unknown fields: they are allowed,
 * because a program may add fields of its own.
 */
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
    name.trim() === name // the parsers of replies trim names
  );
}

function argumentSchema() {
  return value<Schema>(
    (schema) => isStandardSchema(schema) || isJsonObject(schema),
    'a JSON Schema object or a zod schema',
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
  /** The model decides. */
  | 'auto'
  /** The first reply of a turn calls at least one tool. */
  | 'required'
  /** No reply of the turn calls a tool. */
  | 'none'
  /** The first reply of a turn calls this tool. */
  | {
      /** The name of one of the session's tools. */
      name: string;
    };

/**
 * @param loaded the tools that the reply may call: all but deferred ones that are not loaded
 * @throws HeadstartError `INVALID_ARGUMENT` for a choice that these tools do not allow.
 */
export function requireToolChoice(choice: ToolChoice, tools: ToolSet, loaded: ToolSet = tools): void {
  if (typeof choice === 'object' && tools.get(choice.name) === undefined) {
    const names = tools.definitions.map(({ name }) => describe(name)).join(', ') || 'none';
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected \`toolChoice\` to name one of the tools (${names}), got ${describe(choice.name)}`,
    );
  }
  if (typeof choice === 'object' && loaded.get(choice.name) === undefined) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected \`toolChoice\` to name a loaded tool, got the deferred tool ${describe(choice.name)}: add the content ` +
        "part { type: 'tool-reference', toolName } to a message first",
    );
  }
  if (choice === 'required' && loaded.size === 0) {
    const reason = tools.size === 0 ? 'got no tools' : 'got only deferred tools that no message refers to';
    throw new HeadstartError('INVALID_ARGUMENT', `Expected loaded tools for \`toolChoice\` "required", ${reason}`);
  }
}
