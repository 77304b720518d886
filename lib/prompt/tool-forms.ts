// Finds the form of a tool that a chat template can write. That is the unchanged tool if possible, or else a form from
// schema-forms.ts.
import { LRUCache } from 'lru-cache';
import { HeadstartError } from '../errors.js';
import { withoutSentinels } from './content-guard.js';
import type { ToolDefinition } from './renderer.js';
import { schemaForms } from './schema-forms.js';

/** The maximum number of remembered tools. Programs usually have far fewer. */
const MAX_REMEMBERED = 1024;

/** Renders a conversation that describes one tool, in the form `shown`. */
export type RenderTool = (tool: ToolDefinition, shown: ToolDefinition) => Promise<unknown>;

/**
 * Finds and remembers the form of each tool. The form depends only on the chat template and the tool, never on earlier
 * renders.
 */
export class ToolForms {
  /** For each tool (see {@link keyOf}), the index of its form in the result of {@link allForms}. */
  readonly #formIndices = new LRUCache<string, number>({ max: MAX_REMEMBERED });
  readonly #chatTemplate: string;

  /** @param chatTemplate the name of the chat template in errors */
  constructor(chatTemplate: string) {
    this.#chatTemplate = chatTemplate;
  }

  /** The tools in the forms found so far. Undefined if no tool needs a simpler form. */
  shown(tools: readonly ToolDefinition[]): ToolDefinition[] | undefined {
    const indices = tools.map((tool) => this.#formIndices.get(keyOf(tool)) ?? 0);
    return indices.every((index) => index === 0)
      ? undefined
      : tools.map((tool, index) => allForms(tool)[indices[index] as number] as ToolDefinition);
  }

  /**
   * Finds the first form of each tool that the chat template can write.
   *
   * @throws HeadstartError `CHAT_TEMPLATE_FAILED` if the chat template cannot write a tool in any form.
   */
  async find(tools: readonly ToolDefinition[], render: RenderTool): Promise<void> {
    for (const tool of tools) {
      const key = keyOf(tool);
      if (!this.#formIndices.has(key)) {
        this.#formIndices.set(key, await this.#findFormIndex(tool, render));
      }
    }
  }

  async #findFormIndex(tool: ToolDefinition, render: RenderTool): Promise<number> {
    let reason: unknown;
    for (const [index, form] of allForms(tool).entries()) {
      const failure = await failureOf(render(tool, form));
      if (failure === undefined) {
        return index;
      }
      reason ??= failure;
    }
    const property = await failingProperty(tool, render);
    const place = property === undefined ? '' : `, because of the property "${property}"`;
    throw new HeadstartError(
      'CHAT_TEMPLATE_FAILED',
      `${this.#chatTemplate} cannot write the tool "${tool.name}" in any form${place}: ` +
        `change the tool, or pass another chat template as \`chatTemplate\`. ${(reason as Error).message}`,
      { cause: reason },
    );
  }
}

/** The first property that the chat template cannot write, even as the only property. */
async function failingProperty(tool: ToolDefinition, render: RenderTool): Promise<string | undefined> {
  const { properties = {} } = (tool.parameters ?? {}) as { properties?: Record<string, unknown> };
  for (const [name, schema] of Object.entries(properties)) {
    const alone = { ...tool, parameters: { type: 'object', properties: { [name]: schema } } };
    if ((await failureOf(render(tool, alone))) !== undefined) {
      return name;
    }
  }
  return undefined;
}

async function failureOf(rendering: Promise<unknown>): Promise<unknown> {
  try {
    await rendering;
    return undefined;
  } catch (error) {
    if (HeadstartError.isInstance(error, 'CHAT_TEMPLATE_FAILED')) {
      return error;
    }
    throw error;
  }
}

function allForms(tool: ToolDefinition): ToolDefinition[] {
  return [tool, ...schemaForms(tool)];
}

/** Identifies a tool by its text. Leaves out the random part of sentinels, because it is different in each prompt. */
function keyOf({ name, description, parameters }: ToolDefinition): string {
  return withoutSentinels(JSON.stringify([name, description, parameters]));
}
