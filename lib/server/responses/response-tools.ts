// The tools of a response: the model sees a flat list of functions, and the client gets the kinds and names that it
// sent.
import { z } from 'zod';
import { isObject } from '../../json.js';
import type { Tool, ToolChoice } from '../../tools/tool.js';

const TOOL = z.looseObject({
  type: z.string(),
  name: z.string(),
  description: z.string().nullish(),
  parameters: z.looseObject({}).nullish(),
  tools: z.array(z.unknown()).nullish(),
});

type ToolInput = z.output<typeof TOOL>;

/** The client's name for a tool. */
export interface ClientTool {
  kind: 'function' | 'custom';
  name: string;
  /** The group of tools that the tool belongs to. */
  namespace: string | undefined;
}

interface OfferedTool extends ClientTool {
  tool: Tool;
}

/** The argument of a custom tool, which takes a text. */
const CUSTOM_SCHEMA = {
  type: 'object',
  properties: { input: { type: 'string' } },
  required: ['input'],
  additionalProperties: false,
};

/** The tools of one request. */
export class ResponseTools {
  /** By the name that the model sees. */
  readonly #offered = new Map<string, OfferedTool>();
  /** The name that the model sees, by the client's namespace and name. */
  readonly #names = new Map<string, string>();
  readonly #warnings = new Set<string>();

  constructor(tools: readonly unknown[]) {
    this.#add(tools, undefined, '');
  }

  /** The tools for the model. */
  get all(): Tool[] {
    return [...this.#offered.values()].map(({ tool }) => tool);
  }

  /** Which tools the model does not see. */
  get warnings(): string[] {
    return [...this.#warnings];
  }

  /** The name that the model sees. The tool need not be in the request. */
  nameOf(name: string, namespace: string | undefined): string {
    return this.#names.get(keyOf(name, namespace)) ?? flatName(name, namespace);
  }

  /** The client's name for a tool that the model called. */
  clientToolOf(name: string): ClientTool {
    return this.#offered.get(name) ?? { kind: 'function', name, namespace: undefined };
  }

  /** The choice of tools in a body. */
  choiceOf(choice: unknown): ToolChoice {
    if (choice === 'required' || choice === 'none') {
      return choice;
    }
    if (!isObject(choice)) {
      return 'auto';
    }
    const { type, mode, tools, name, namespace } = choice;
    if (type === 'allowed_tools') {
      const [only, second] = Array.isArray(tools) ? tools : [];
      return mode !== 'required' ? 'auto' : only !== undefined && second === undefined ? this.choiceOf(only) : mode;
    }
    const isNamed = (type === 'function' || type === 'custom') && typeof name === 'string';
    return isNamed ? { name: this.nameOf(name, typeof namespace === 'string' ? namespace : undefined) } : 'auto';
  }

  /** @param introduction a text in front of the description of the first tool */
  #add(tools: readonly unknown[], namespace: string | undefined, introduction: string): void {
    let text = introduction;
    for (const input of tools) {
      const tool = TOOL.safeParse(input).data;
      if (tool?.type === 'namespace' && namespace === undefined) {
        const about = tool.description ? `[${tool.name}: ${tool.description}]\n` : '';
        this.#add(tool.tools ?? [], tool.name, about);
      } else if (tool?.type === 'function' || tool?.type === 'custom') {
        this.#offer(tool, namespace, text);
        text = '';
      } else {
        const type = isObject(input) ? String(input.type) : typeof input;
        this.#warnings.add(`A tool of the type "${type}" was left out, because this server cannot run or describe it.`);
      }
    }
  }

  #offer(input: ToolInput, namespace: string | undefined, introduction: string): void {
    const { name, type, parameters } = input;
    const kind = type === 'custom' ? type : 'function';
    const key = keyOf(name, namespace);
    const offeredName = this.#names.get(key) ?? this.#freeName(flatName(name, namespace));
    const description = introduction + (input.description ?? '');
    const inputSchema = kind === 'custom' ? CUSTOM_SCHEMA : parameters;
    const tool = { name: offeredName, ...(description && { description }), ...(inputSchema && { inputSchema }) };
    this.#names.set(key, offeredName);
    this.#offered.set(offeredName, { kind, name, namespace, tool }); // a repeated tool keeps its place
  }

  #freeName(name: string): string {
    let free = name;
    for (let count = 2; this.#offered.has(free); count++) {
      free = `${name}_${count}`;
    }
    return free;
  }
}

function keyOf(name: string, namespace: string | undefined): string {
  return JSON.stringify([namespace, name]);
}

function flatName(name: string, namespace: string | undefined): string {
  return namespace === undefined ? name : `${namespace}__${name}`;
}
