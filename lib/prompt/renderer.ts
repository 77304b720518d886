// One code renders a template's probes and a session's full prompt, so that the one is a prefix of the other.
import { LRUCache } from 'lru-cache';
import { HeadstartError } from '../errors.js';
import type { Model, RenderedPrompt } from '../native/model.js';
import type { ReplyFormat } from '../native/reply.js';
import { withAgreedGrammar } from './agreed-grammar.js';
import { bareCallFormat } from './bare-calls.js';
import { narrowed } from './call-grammar.js';
import { PlainText, type PromptPiece } from './content-guard.js';
import { type ArgumentForm, argumentForm, toolsForParser, withExactArguments } from './exact-arguments.js';
import { withLongNumbers } from './exact-json.js';
import { guardMessage, guardSource } from './guarded-content.js';
import { hermesReplyFormat, withCallsAsText, withToolsInSystemPrompt } from './hermes.js';
import { jsonReplyFormat, requiredSchema, withEndedThought } from './json-reply.js';
import { type ChatMessage, toOpenAiMessage, toOpenAiTool } from './messages.js';
import { requireShownMessages } from './shown-messages.js';
import { standInsFor, withRealNames, withRealNamesInError } from './stand-ins.js';
import { ToolForms } from './tool-forms.js';

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
  /** @internal JSON Schema that the grammar of calls is made of. @default parameters */
  grammarSchema?: object;
}

/** What a template is made of: all that sessions share before their first message. */
export interface TemplateSource {
  /** What the model is told to be. @default none */
  systemPrompt?: string | undefined;
  /** What the model may call. @default none */
  tools?: readonly ToolDefinition[] | undefined;
}

/** What the reply to a prompt may be. */
export interface ReplyOptions {
  /** @default 'auto' */
  toolChoice?: 'auto' | 'required' | 'none' | { name: string };
  /** Several tool calls in one reply. @default false */
  parallelToolCalls?: boolean | undefined;
  /** The reply must be JSON of this schema. */
  jsonSchema?: object | undefined;
  /** For chat templates that can switch reasoning off. @default true */
  reasoning?: boolean | undefined;
}

export interface Prompt {
  text: string;
  tokens: Int32Array;
  /** What the chat template adds behind the last message only if a reply is to follow; `text` ends with it. */
  opening: string;
  /** What sampling needs to keep the reply in its form, and what reads it. */
  format: ReplyFormat;
}

/** Texts that no chat template holds. */
const TOOL_PROBE = 'headstart_probe_8d1f';
const ARGUMENT_PROBE = 'headstart_argument_3a90';
const RESULT_PROBE = 'headstart result 5c2e';

/** Reply formats remembered: of tool choices and schemas that come back. */
const MAX_FORMATS = 32;

/**
 * Renders conversations with one model and chat template.
 *
 * Chat templates that do not describe tools (SmolLM2's, for one) get them in the system message, in the Hermes form that
 * most instruct models have seen, and calls and results as text of that form; which ones those are is found by rendering
 * and remembered.
 */
export class Renderer {
  readonly chatTemplate: string;
  readonly #model: Model;
  readonly #override: string | undefined;
  readonly #plainText: PlainText;
  #showsMessages = false;
  /** Whether the chat template describes tools: with and without a system prompt. */
  readonly #toolSupport = new Map<boolean, boolean>();
  /** Whether it shows calls and results: with and without tools. */
  readonly #callSupport = new Map<boolean, boolean>();
  readonly #formats = new LRUCache<string, Promise<ReplyFormat>>({ max: MAX_FORMATS });
  #knownForm: Promise<ArgumentForm> | undefined;
  readonly #toolForms: Record<'alone' | 'withSystemPrompt', ToolForms>;

  /** @param override a chat template instead of the model's own */
  constructor(model: Model, override?: string) {
    this.#model = model;
    this.#override = override;
    this.chatTemplate = override ?? model.info.chatTemplate ?? '';
    this.#plainText = new PlainText(model, this.chatTemplate);
    const name = override === undefined ? "The model's own chat template" : 'The chat template in `chatTemplate`';
    this.#toolForms = { alone: new ToolForms(name), withSystemPrompt: new ToolForms(name) };
  }

  /** Whether the prompt depends on the clock: it is then good for today only. */
  get usesClock(): boolean {
    return this.chatTemplate.includes('strftime_now');
  }

  /**
   * Checks that the chat template writes what the user says. Later calls cost nothing.
   *
   * @throws HeadstartError `CHAT_TEMPLATE_INVALID`, `NO_CHAT_TEMPLATE`.
   */
  async requireMessages(): Promise<void> {
    if (!this.#showsMessages) {
      const render = async (messages: readonly ChatMessage[]) =>
        (await unlessRefused(this.#render({}, messages, [])))?.prompt;
      await requireShownMessages(render, this.#override);
      this.#showsMessages = true;
    }
  }

  /**
   * @throws HeadstartError as {@link Renderer.requireMessages}, {@link Model.render} and {@link Model.tokenize}.
   */
  async prompt(source: TemplateSource, messages: readonly ChatMessage[], options: ReplyOptions = {}): Promise<Prompt> {
    await this.requireMessages();
    const tools = source.tools ?? [];
    const native = tools.length > 0 && (await this.#describesTools(source.systemPrompt !== undefined));
    const textCalls = messages.some(isAboutCalls) && !(native && (await this.#showsCalls(true)));
    const guard = this.#plainText.guard();
    const guarded = guardSource(source, guard);
    const guardsTools = guard.isUsed;
    const shown = messages.map((message) => guardMessage(message, guard));
    const render = (conversation: readonly ChatMessage[]) =>
      this.#render(
        native ? guarded : withToolsInSystemPrompt(guarded),
        conversation,
        native ? (guarded.tools ?? []) : [],
        {
          parallelToolCalls: options.parallelToolCalls,
          reasoning: options.reasoning,
          ...(tools.length > 0 && { toolChoice: 'none' }), // no grammar is made of schemas that are only to be told
        },
      );
    const asText = () => render(withCallsAsText(shown));
    const rendered = await (textCalls
      ? asText()
      : render(shown).catch((error: unknown) => {
          // Some refuse the order of these messages only: a user's word right behind a result, for one.
          if (HeadstartError.isInstance(error, 'CHAT_TEMPLATE_FAILED') && messages.some(isAboutCalls)) {
            return asText();
          }
          throw error;
        }));
    const pieces = guard.split(rendered.prompt);
    const asRendered = !guardsTools && tools.length === 0 && !decidesForm(options);
    return {
      text: pieces.map(({ text }) => text).join(''),
      tokens: await this.#tokens(pieces),
      opening: rendered.generationPrompt,
      format: asRendered ? rendered : await this.#format(source, native, options),
    };
  }

  /** Tokens of a text that is no prompt, without BOS: what looks like markup in it is text. */
  plainTokens(text: string): Promise<Int32Array> {
    return this.#plainText.plainTokens(text);
  }

  /** Tokens of a text of the chat template's own that stands behind another one. */
  tokensBehind(text: string): Promise<Int32Array> {
    return this.#plainText.tokensBehind(text);
  }

  /** The control tokens whose text belongs to replies of this form. */
  preservedTokens(format: ReplyFormat): ReadonlySet<number> {
    return format.preservedTokens.length === 0 ? NO_TOKENS : this.#plainText.tokensOf(format.preservedTokens);
  }

  /** The form of replies, where the prompt's own render does not say it: asked with a message that does not matter. */
  #format(source: TemplateSource, native: boolean, options: ReplyOptions): Promise<ReplyFormat> {
    const { toolChoice = 'auto', parallelToolCalls = false, jsonSchema, reasoning = true } = options;
    const all = jsonSchema === undefined && toolChoice !== 'none' ? (source.tools ?? []) : [];
    const chosen = typeof toolChoice === 'object' ? all.filter(({ name }) => name === toolChoice.name) : all;
    const tools = chosen.map(asGrammarHasIt);
    const choice = typeof toolChoice === 'object' ? 'required' : toolChoice;
    const name = JSON.stringify([tools, native, choice, parallelToolCalls, jsonSchema ?? null, reasoning]);
    let format = this.#formats.get(name);
    if (format === undefined) {
      const made =
        jsonSchema !== undefined
          ? this.#jsonFormat(requiredSchema(jsonSchema), reasoning)
          : tools.length === 0
            ? this.#nativeFormat(tools, { ...options, toolChoice: choice })
            : this.#callFormat(tools, native, { ...options, toolChoice: choice });
      format = made.then(withLongNumbers);
      format.catch(() => this.#formats.delete(name));
      this.#formats.set(name, format);
    }
    return format;
  }

  async #jsonFormat(jsonSchema: object, reasoning: boolean): Promise<ReplyFormat> {
    const options = { toolChoice: 'none', reasoning } as const;
    const question = { role: 'user', content: 'x' } as const;
    const format = await this.#render({}, [question], [], { ...options, jsonSchema });
    if (format.grammar !== '') {
      return withEndedThought(format);
    }
    const conversation = [question, { role: 'assistant', content: TOOL_PROBE }] as const;
    const { prompt = '' } = (await unlessRefused(this.#render({}, conversation, [], options))) ?? {};
    const at = prompt.startsWith(format.prompt) ? prompt.indexOf(TOOL_PROBE) : -1;
    const opening = at === -1 ? '' : prompt.slice(format.prompt.length, at);
    return jsonReplyFormat(format, jsonSchema, opening, reasoning);
  }

  /** The form of replies that may call tools: with stand-ins for their names, and then with those. */
  async #callFormat(
    tools: readonly ToolDefinition[],
    native: boolean,
    options: ReplyOptions & { toolChoice: 'auto' | 'required' | 'none' },
  ): Promise<ReplyFormat> {
    const { toolChoice, parallelToolCalls = false } = options;
    const form = native ? await this.#argumentForm() : 'json';
    const standIns = standInsFor(tools, form);
    const made = native
      ? this.#nativeFormat(toolsForParser(standIns.tools, form), options)
      : hermesReplyFormat(this.#model, standIns.tools.map(toOpenAiTool), { toolChoice, parallelToolCalls });
    const format = await made.catch((error: unknown) => {
      throw withRealNamesInError(error, standIns);
    });
    const narrow = narrowed(format, toolChoice === 'required', parallelToolCalls);
    const exact = await withExactArguments(narrow, standIns.tools, form);
    return withRealNames(withAgreedGrammar(exact), standIns);
  }

  #argumentForm(): Promise<ArgumentForm> {
    this.#knownForm ??= (async () => {
      const parameters = { type: 'object', properties: { [ARGUMENT_PROBE]: { type: 'boolean' } } };
      const tools = [{ name: TOOL_PROBE, parameters }];
      const { grammar } = await this.#render({}, [{ role: 'user', content: 'x' }], tools, { toolChoice: 'required' });
      return argumentForm(grammar, TOOL_PROBE, ARGUMENT_PROBE);
    })();
    return this.#knownForm;
  }

  async #nativeFormat(tools: readonly ToolDefinition[], options: ReplyOptions): Promise<ReplyFormat> {
    const { toolChoice = 'auto' } = options;
    const ask = (choice: typeof toolChoice) =>
      this.#render({}, [{ role: 'user', content: 'x' }], tools, { ...options, toolChoice: choice });
    const format = await ask(toolChoice);
    return tools.length === 0 || format.grammar !== '' || toolChoice !== 'auto'
      ? format
      : bareCallFormat(format, await ask('required'));
  }

  /**
   * Asked with a tool whose name stands nowhere else. The answer may differ without a system prompt. Where `common` finds no
   * form of calls in the chat template (Granite 3.3's), calls could neither be forced nor read: then it does not count. Nor does
   * a chat template that refuses every tool.
   */
  async #describesTools(withSystemPrompt: boolean): Promise<boolean> {
    let known = this.#toolSupport.get(withSystemPrompt);
    if (known === undefined) {
      const source = { systemPrompt: withSystemPrompt ? 'probe' : undefined };
      const messages = [{ role: 'user', content: 'probe' }] as const;
      const rendered = await unlessRefused(
        this.#write(source, messages, [{ name: TOOL_PROBE }], { toolChoice: 'required' }),
      );
      known = rendered?.prompt.includes(TOOL_PROBE) === true && rendered.grammar !== '';
      this.#toolSupport.set(withSystemPrompt, known);
    }
    return known;
  }

  /** Asked with a call and a result that stand nowhere else; some chat templates refuse them, some leave them out. */
  async #showsCalls(withTools: boolean): Promise<boolean> {
    let known = this.#callSupport.get(withTools);
    if (known === undefined) {
      const call = { toolCallId: 'headstart', toolName: 'probe', input: { [TOOL_PROBE]: 1 } };
      const conversation: ChatMessage[] = [
        { role: 'user', content: 'probe' },
        { role: 'assistant', content: '', toolCalls: [call] },
        { role: 'tool', toolCallId: 'headstart', toolName: 'probe', content: RESULT_PROBE },
      ];
      const rendered = await unlessRefused(this.#render({}, conversation, withTools ? [{ name: 'probe' }] : []));
      const { prompt = '' } = rendered ?? {};
      known = prompt.includes(TOOL_PROBE) && prompt.includes(RESULT_PROBE);
      this.#callSupport.set(withTools, known);
    }
    return known;
  }

  async #render(
    source: TemplateSource,
    messages: readonly ChatMessage[],
    tools: readonly ToolDefinition[],
    options: ReplyOptions = {},
  ): Promise<RenderedPrompt> {
    const write = () => this.#write(source, messages, tools, { ...options, shownTools: forms.shown(tools) });
    const forms = this.#toolForms[source.systemPrompt === undefined ? 'alone' : 'withSystemPrompt'];
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
        throw error; // the chat template can write the tools: they are not the reason
      }
      return write();
    }
  }

  async #write(
    source: TemplateSource,
    messages: readonly ChatMessage[],
    tools: readonly ToolDefinition[],
    options: ReplyOptions & { shownTools?: readonly ToolDefinition[] | undefined },
  ): Promise<RenderedPrompt> {
    const { toolChoice, parallelToolCalls, jsonSchema, reasoning, shownTools } = options;
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
    });
    return rendering.catch((error: unknown) => {
      throw asSchemaError(error);
    });
  }

  async #tokens(pieces: readonly PromptPiece[]): Promise<Int32Array> {
    const { bos, addsBos } = this.#model.info.vocabulary;
    // Not addSpecial: that would also append EOS, which must not stand in front of a reply.
    const tokens = await this.#plainText.tokenize(pieces);
    if (!addsBos || bos === null) {
      return tokens;
    }
    const withBos = new Int32Array(tokens.length + 1);
    withBos[0] = bos;
    withBos.set(tokens, 1);
    return withBos;
  }
}

/** Undefined if the chat template refuses what it was to render. */
async function unlessRefused<T>(rendering: Promise<T>): Promise<T | undefined> {
  try {
    return await rendering;
  } catch (error) {
    if (HeadstartError.isInstance(error, 'CHAT_TEMPLATE_FAILED')) {
      return undefined;
    }
    throw error;
  }
}

const NO_TOKENS: ReadonlySet<number> = new Set();

/** Whether the form of the reply is another than what the plain render of a prompt says. */
function decidesForm({ toolChoice = 'auto', jsonSchema }: ReplyOptions): boolean {
  return toolChoice !== 'auto' || jsonSchema !== undefined;
}

function isAboutCalls(message: ChatMessage): boolean {
  return message.role === 'tool' || (message.role === 'assistant' && (message.toolCalls ?? []).length > 0);
}

function asGrammarHasIt({ grammarSchema, ...tool }: ToolDefinition): ToolDefinition {
  return grammarSchema === undefined ? tool : { ...tool, parameters: grammarSchema };
}

/** Where what the chat template could not be given a form for is a schema, that is told. */
function asSchemaError(error: unknown): unknown {
  const reason =
    HeadstartError.isInstance(error, 'CHAT_TEMPLATE_FAILED') && /JSON schema error.*/s.exec(error.message)?.[0];
  return reason
    ? new HeadstartError('SCHEMA_INVALID', `Expected a JSON Schema that a grammar can be made of: ${reason}`, {
        cause: error,
      })
    : error;
}
