// Renders conversations with one chat template, and finds out by rendering what the chat template can write.
import { HeadstartError } from '../errors.js';
import type { Model, RenderedPrompt } from '../native/model.js';
import { type ChatMessage, toOpenAiMessage, toOpenAiTool } from './messages.js';
import type { TemplateSource, TextOptions, ToolDefinition } from './renderer.js';
import { requireShownMessages } from './shown-messages.js';
import { ToolForms } from './tool-forms.js';

/** Texts that no chat template contains. */
export const TOOL_PROBE = 'headstart_probe_8d1f';
const RESULT_PROBE = 'headstart result 5c2e';

export class ChatTemplate {
  /** The Jinja template. Empty if the model has none. */
  readonly text: string;
  readonly #model: Model;
  readonly #override: string | undefined;
  #showsMessages = false;
  /** Whether the chat template describes tools, with and without a system prompt. */
  readonly #describesTools = new Map<boolean, boolean>();
  /** Whether the chat template shows calls and results, with and without tools. */
  readonly #showsCalls = new Map<boolean, boolean>();
  readonly #toolForms: Record<'alone' | 'withSystemPrompt', ToolForms>;

  /** @param override a chat template that replaces the model's own */
  constructor(model: Model, override: string | undefined) {
    this.#model = model;
    this.#override = override;
    this.text = override ?? model.info.chatTemplate ?? '';
    const name = override === undefined ? "The model's own chat template" : 'The chat template in `chatTemplate`';
    this.#toolForms = { alone: new ToolForms(name), withSystemPrompt: new ToolForms(name) };
  }

  /** @throws HeadstartError `CHAT_TEMPLATE_INVALID` if the chat template leaves out messages; `NO_CHAT_TEMPLATE`. */
  async requireMessages(): Promise<void> {
    if (!this.#showsMessages) {
      const render = async (messages: readonly ChatMessage[]) => (await this.tryToRender({}, messages, []))?.prompt;
      await requireShownMessages(render, this.#override);
      this.#showsMessages = true;
    }
  }

  /**
   * Whether the chat template describes tools in the prompt. The answer may depend on the presence of a system prompt.
   * The answer is false for a chat template that refuses every tool. It is also false if `common` finds no call format
   * in the chat template (Granite 3.3's, for example), because calls could then be neither forced nor parsed.
   */
  async describesTools(withSystemPrompt: boolean): Promise<boolean> {
    let answer = this.#describesTools.get(withSystemPrompt);
    if (answer === undefined) {
      const source = { systemPrompt: withSystemPrompt ? 'probe' : undefined };
      const messages = [{ role: 'user', content: 'probe' }] as const;
      const options = { toolChoice: 'required' } as const;
      const rendered = await unlessRefused(this.#write(source, messages, [{ name: TOOL_PROBE }], options));
      answer = rendered?.prompt.includes(TOOL_PROBE) === true && rendered.grammar !== '';
      this.#describesTools.set(withSystemPrompt, answer);
    }
    return answer;
  }

  /**
   * Whether the chat template shows calls and their results. Some chat templates refuse calls, and some leave calls
   * or results out.
   */
  async showsCalls(withTools: boolean): Promise<boolean> {
    let answer = this.#showsCalls.get(withTools);
    if (answer === undefined) {
      const call = { toolCallId: 'headstart', toolName: 'probe', input: { [TOOL_PROBE]: 1 } };
      const conversation: ChatMessage[] = [
        { role: 'user', content: 'probe' },
        { role: 'assistant', content: '', toolCalls: [call] },
        { role: 'tool', toolCallId: 'headstart', toolName: 'probe', content: RESULT_PROBE },
      ];
      const rendered = await this.tryToRender({}, conversation, withTools ? [{ name: 'probe' }] : []);
      const { prompt = '' } = rendered ?? {};
      answer = prompt.includes(TOOL_PROBE) && prompt.includes(RESULT_PROBE);
      this.#showsCalls.set(withTools, answer);
    }
    return answer;
  }

  /**
   * Renders a conversation. If the chat template fails on the schema of a tool, the prompt shows the tool in a simpler
   * form.
   *
   * @throws HeadstartError as {@link Model.render}.
   */
  async render(
    source: TemplateSource,
    messages: readonly ChatMessage[],
    tools: readonly ToolDefinition[],
    options: TextOptions = {},
  ): Promise<RenderedPrompt> {
    const forms = this.#toolForms[source.systemPrompt === undefined ? 'alone' : 'withSystemPrompt'];
    const write = () => this.#write(source, messages, tools, { ...options, shownTools: forms.shown(tools) });
    try {
      return await write();
    } catch (error) {
      if (tools.length === 0 || !HeadstartError.isInstance(error, 'CHAT_TEMPLATE_FAILED')) {
        throw error;
      }
      const probe: TemplateSource = source.systemPrompt === undefined ? {} : { systemPrompt: 'x' };
      await forms.find(tools, (tool, shown) =>
        this.#write(probe, [{ role: 'user', content: 'x' }], [tool], { toolChoice: 'none', shownTools: [shown] }),
      );
      if (forms.shown(tools) === undefined) {
        throw error; // the chat template can write the tools, so they are not the reason
      }
      return write();
    }
  }

  /** Like {@link ChatTemplate.render}, but resolves with undefined if the chat template refuses the conversation. */
  tryToRender(...conversation: Parameters<ChatTemplate['render']>): Promise<RenderedPrompt | undefined> {
    return unlessRefused(this.render(...conversation));
  }

  async #write(
    source: TemplateSource,
    messages: readonly ChatMessage[],
    tools: readonly ToolDefinition[],
    options: TextOptions & { shownTools?: readonly ToolDefinition[] | undefined },
  ): Promise<RenderedPrompt> {
    const { toolChoice, parallelToolCalls, jsonSchema, reasoning, addGenerationPrompt, textOnly, shownTools } = options;
    const system = source.systemPrompt === undefined ? [] : [{ role: 'system', content: source.systemPrompt }];
    const rendering = this.#model.render({
      messages: [...system, ...messages.map(toOpenAiMessage)],
      tools: tools.map(toOpenAiTool),
      ...(shownTools !== undefined && { shownTools: shownTools.map(toOpenAiTool) }),
      ...(this.#override !== undefined && { chatTemplate: this.#override }),
      ...(typeof toolChoice === 'string' && { toolChoice }),
      ...(parallelToolCalls !== undefined && { parallelToolCalls }),
      ...(jsonSchema !== undefined && { jsonSchema }),
      ...(reasoning !== undefined && { reasoning }),
      ...(addGenerationPrompt !== undefined && { addGenerationPrompt }),
      ...(textOnly !== undefined && { textOnly }),
    });
    return rendering.catch((error: unknown) => {
      throw asSchemaError(error);
    });
  }
}

/** The result of a render; undefined if the chat template refuses the conversation. */
export async function unlessRefused<T>(rendering: Promise<T>): Promise<T | undefined> {
  try {
    return await rendering;
  } catch (error) {
    if (HeadstartError.isInstance(error, 'CHAT_TEMPLATE_FAILED')) {
      return undefined;
    }
    throw error;
  }
}

/** Corrects the code of an error: llama.cpp reports a schema without a grammar as a failure of the chat template. */
function asSchemaError(error: unknown): unknown {
  const reason =
    HeadstartError.isInstance(error, 'CHAT_TEMPLATE_FAILED') && /JSON schema error.*/s.exec(error.message)?.[0];
  return reason
    ? new HeadstartError(
        'SCHEMA_INVALID',
        `Expected a JSON Schema that llama.cpp can convert to a grammar: ${reason}`,
        {
          cause: error,
        },
      )
    : error;
}
