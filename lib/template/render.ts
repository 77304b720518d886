// One code renders a template's probes and a session's full prompt, so that the one is a prefix of the other.
import type { Model } from '../native/model.js';

/** A tool as models see it. */
export interface ToolDefinition {
  /** Unique among a session's tools. */
  name: string;
  /** For the model: what it does and when to use it. */
  description?: string;
  /** JSON Schema of the arguments object. @default no arguments */
  parameters?: object;
  /** The server that listed it, of tools that came from one (MCP): see `stableTools`. The model does not see it. */
  server?: string;
}

/** A message of a conversation. */
export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

/** What a template is made of: all that sessions share before their first message. */
export interface TemplateSource {
  systemPrompt?: string | undefined;
  tools?: readonly ToolDefinition[] | undefined;
}

export interface Prompt {
  text: string;
  tokens: Int32Array;
}

/** A tool's name that no chat template holds. */
const TOOL_PROBE = 'headstart_probe_8d1f';

/**
 * Renders conversations with one model and chat template.
 *
 * Chat templates that do not describe tools (SmolLM2's, for one) get them in the system message, in the Hermes form that
 * most instruct models have seen; which ones those are is found by rendering and remembered.
 */
export class Renderer {
  readonly chatTemplate: string;
  readonly #model: Model;
  readonly #override: string | undefined;
  /** Whether the chat template describes tools: with and without a system prompt. */
  readonly #toolSupport = new Map<boolean, boolean>();

  /** @param override a chat template instead of the model's own */
  constructor(model: Model, override?: string) {
    this.#model = model;
    this.#override = override;
    this.chatTemplate = override ?? model.info.chatTemplate ?? '';
  }

  /** Whether the prompt depends on the clock: it is then good for today only. */
  get usesClock(): boolean {
    return this.chatTemplate.includes('strftime_now');
  }

  /**
   * @throws HeadstartError as {@link Model.render} and {@link Model.tokenize}.
   */
  async prompt(source: TemplateSource, messages: readonly ChatMessage[]): Promise<Prompt> {
    const text = await this.#text(source, messages);
    return { text, tokens: await this.#tokens(text) };
  }

  async #text(source: TemplateSource, messages: readonly ChatMessage[]): Promise<string> {
    const tools = source.tools ?? [];
    if (tools.length > 0 && (await this.#describesTools(source.systemPrompt !== undefined))) {
      return this.#render(source, messages, tools);
    }
    return this.#render(withToolsInSystemPrompt(source), messages, []);
  }

  /** Asked with a tool whose name stands nowhere else. The answer may differ without a system prompt. */
  async #describesTools(withSystemPrompt: boolean): Promise<boolean> {
    let known = this.#toolSupport.get(withSystemPrompt);
    if (known === undefined) {
      const source = { systemPrompt: withSystemPrompt ? 'probe' : undefined };
      const text = await this.#render(source, [{ role: 'user', content: 'probe' }], [{ name: TOOL_PROBE }]);
      known = text.includes(TOOL_PROBE);
      this.#toolSupport.set(withSystemPrompt, known);
    }
    return known;
  }

  async #render(
    source: TemplateSource,
    messages: readonly ChatMessage[],
    tools: readonly ToolDefinition[],
  ): Promise<string> {
    const system = source.systemPrompt === undefined ? [] : [{ role: 'system', content: source.systemPrompt }];
    const rendered = await this.#model.render({
      messages: [...system, ...messages],
      tools: tools.map(toOpenAiTool),
      ...(this.#override !== undefined && { chatTemplate: this.#override }),
    });
    return rendered.prompt;
  }

  async #tokens(text: string): Promise<Int32Array> {
    const { bos, addsBos } = this.#model.info.vocabulary;
    // Not addSpecial: that would also append EOS, which must not stand in front of a reply.
    const tokens = await this.#model.tokenize(text, { parseSpecial: true });
    if (!addsBos || bos === null) {
      return tokens;
    }
    const withBos = new Int32Array(tokens.length + 1);
    withBos[0] = bos;
    withBos.set(tokens, 1);
    return withBos;
  }
}

function toOpenAiTool(tool: ToolDefinition): object {
  const { name, description = '', parameters = { type: 'object', properties: {} } } = tool;
  return { type: 'function', function: { name, description, parameters } };
}

/** The Hermes function-calling prompt (NousResearch), which Qwen's chat templates use too. */
function withToolsInSystemPrompt(source: TemplateSource): TemplateSource {
  if (source.tools === undefined || source.tools.length === 0) {
    return source;
  }
  const definitions = source.tools.map((tool) => JSON.stringify(toOpenAiTool(tool))).join('\n');
  const instructions = [
    '# Tools',
    '',
    'You may call one or more functions to assist with the user query.',
    '',
    'You are provided with function signatures within <tools></tools> XML tags:',
    `<tools>\n${definitions}\n</tools>`,
    '',
    'For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:',
    '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>',
  ].join('\n');
  return { systemPrompt: source.systemPrompt ? `${source.systemPrompt}\n\n${instructions}` : instructions };
}
