// Renders the prompts of sessions. The same code renders the probes that find a template, so that the template is a
// prefix of its sessions' prompts.
import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { ReplyFormat } from '../native/reply.js';
import { concatTokens } from '../tokens.js';
import { ChatTemplate } from './chat-template.js';
import { PlainText, type PromptPiece } from './content-guard.js';
import { loadedTools, showsDefinitions, toolsInHead } from './deferred-tools.js';
import { fitHistory, withoutFalseNotes } from './fit-history.js';
import { guardMessage, guardSource } from './guarded-content.js';
import { withCallsAsText, withToolsInSystemPrompt } from './hermes.js';
import { type ChatMessage, callsOf } from './messages.js';
import { ReplyFormats } from './reply-formats.js';
import { TemplateLimits } from './template-limits.js';
import { ToolDefinitions } from './tool-definitions.js';

/** A tool as the model sees it. */
export interface ToolDefinition {
  /** Unique among a session's tools. */
  name: string;
  /** What the tool does and when to use it, for the model. */
  description?: string;
  /** JSON Schema of the arguments object. @default no arguments */
  parameters?: object;
  /** The MCP server that listed the tool: see `stableTools`. The model does not see this name. */
  server?: string;
  /** Whether only a message that refers to the tool shows and loads the tool. @default false */
  deferred?: boolean;
  /** @internal The JSON Schema from which the grammar of calls is made. @default parameters */
  grammarSchema?: object;
}

/** The source of a cached template: the part of the prompt in front of the first message. */
export interface TemplateSource {
  /** The system prompt. @default none */
  systemPrompt?: string | undefined;
  /** The tools that the model may call. @default none */
  tools?: readonly ToolDefinition[] | undefined;
}

/** The options of one reply. */
export interface ReplyOptions {
  /** The tools that the reply may call. @default 'auto' */
  toolChoice?: 'auto' | 'required' | 'none' | { name: string };
  /** Whether one reply may have several calls. @default false */
  parallelToolCalls?: boolean | undefined;
  /** A JSON Schema that the reply must follow, unless it calls tools. */
  jsonSchema?: object | undefined;
  /** A grammar (GBNF) that the text of the reply must follow. */
  grammar?: string | undefined;
  /** Whether the model may reason. Only some chat templates can switch reasoning off. @default true */
  reasoning?: boolean | undefined;
}

/** The options of a render without tokens. */
export interface TextOptions extends ReplyOptions {
  /** Whether the prompt ends with the generation prompt. @default true */
  addGenerationPrompt?: boolean | undefined;
  /** See `RenderRequest.textOnly`: quick, but the text may differ from that of a prompt. @default false */
  textOnly?: boolean | undefined;
}

/** The text of a prompt. */
export interface RenderedText {
  text: string;
  /** The generation prompt: the end of `text`, with which the reply begins. */
  opening: string;
}

export interface TokenizedPrompt extends RenderedText {
  tokens: Int32Array;
}

export interface Prompt extends TokenizedPrompt {
  /** The grammar and parser of the reply. */
  format: ReplyFormat;
}

const NO_TOKENS: ReadonlySet<number> = new Set();

/**
 * Renders conversations with one model and one chat template.
 *
 * Some chat templates do not describe tools (SmolLM2's, for example). The system message then describes the tools in
 * the Hermes form, which most instruct models know. Calls and results are then text in this form.
 */
export class Renderer {
  readonly #model: Model;
  readonly #chatTemplate: ChatTemplate;
  readonly #limits: TemplateLimits;
  readonly #formats: ReplyFormats;
  readonly #plainText: PlainText;
  readonly #definitions: ToolDefinitions;

  /** @param override a chat template that replaces the model's own */
  constructor(model: Model, override?: string) {
    this.#model = model;
    this.#chatTemplate = new ChatTemplate(model, override);
    this.#limits = new TemplateLimits(this.#chatTemplate);
    this.#formats = new ReplyFormats(model, this.#chatTemplate);
    this.#plainText = new PlainText(model, this.chatTemplate);
    this.#definitions = new ToolDefinitions(this.#chatTemplate);
  }

  /** The Jinja template. Empty if the model has none. */
  get chatTemplate(): string {
    return this.#chatTemplate.text;
  }

  /** Whether prompts contain the date. Such prompts are valid for one day only. */
  get usesClock(): boolean {
    return this.chatTemplate.includes('strftime_now');
  }

  /**
   * Checks that the chat template writes the messages of a conversation. The check runs only once.
   *
   * @throws HeadstartError `CHAT_TEMPLATE_INVALID`, `NO_CHAT_TEMPLATE`.
   */
  requireMessages(): Promise<void> {
    return this.#chatTemplate.requireMessages();
  }

  /**
   * Renders and tokenizes a conversation, and finds the format of its reply.
   *
   * @throws HeadstartError as {@link Renderer.requireMessages}, {@link Model.render} and {@link Model.tokenize}.
   */
  async prompt(source: TemplateSource, messages: readonly ChatMessage[], options: ReplyOptions = {}): Promise<Prompt> {
    const { rendered, describesTools, hasGuardedSource, ...prompt } = await this.#tokenized(source, messages, options);
    const tools = loadedTools(source.tools ?? [], messages);
    const isPlain = !hasGuardedSource && tools.length === 0 && !changesFormat(options);
    return { ...prompt, format: isPlain ? rendered : await this.#formats.find(tools, describesTools, options) };
  }

  /**
   * The format of the reply to a conversation.
   *
   * @throws HeadstartError as {@link Renderer.prompt}.
   */
  async format(source: TemplateSource, messages: readonly ChatMessage[], options: ReplyOptions): Promise<ReplyFormat> {
    const tools = loadedTools(source.tools ?? [], messages);
    return this.#formats.find(tools, await this.describesTools(source), options);
  }

  /**
   * The prompt without its reply format.
   *
   * @throws HeadstartError as {@link Renderer.prompt}.
   */
  async tokens(
    source: TemplateSource,
    messages: readonly ChatMessage[],
    options: TextOptions = {},
  ): Promise<TokenizedPrompt> {
    const { text, tokens, opening } = await this.#tokenized(source, messages, options);
    return { text, tokens, opening };
  }

  /**
   * The prompt without tokens and reply format.
   *
   * @throws HeadstartError as {@link Renderer.requireMessages} and {@link Model.render}.
   */
  async text(
    source: TemplateSource,
    messages: readonly ChatMessage[],
    options: TextOptions = {},
  ): Promise<RenderedText> {
    const { pieces, rendered } = await this.#pieces(source, messages, options);
    return { text: textOf(pieces), opening: rendered.generationPrompt };
  }

  /** Tokenizes a text that is not a prompt, without BOS. The text of a control token becomes plain text. */
  plainTokens(text: string): Promise<Int32Array> {
    return this.#plainText.plainTokens(text);
  }

  /** Tokenizes a part of the chat template that follows other text. */
  tokensAfterText(text: string): Promise<Int32Array> {
    return this.#plainText.tokensAfterText(text);
  }

  /** The control tokens whose text belongs to replies of this format. */
  preservedTokens(format: ReplyFormat): ReadonlySet<number> {
    return format.preservedTokens.length === 0 ? NO_TOKENS : this.#plainText.tokensOf(format.preservedTokens);
  }

  async #tokenized(source: TemplateSource, messages: readonly ChatMessage[], options: TextOptions) {
    const { pieces, ...rest } = await this.#pieces(source, messages, options);
    return {
      ...rest,
      text: textOf(pieces),
      tokens: await this.#tokens(pieces),
      opening: rest.rendered.generationPrompt,
    };
  }

  /** Whether the chat template describes the tools of this source. */
  async describesTools({ tools = [], systemPrompt }: TemplateSource): Promise<boolean> {
    return tools.length > 0 && (await this.#chatTemplate.describesTools(systemPrompt !== undefined));
  }

  async #pieces(source: TemplateSource, messages: readonly ChatMessage[], options: TextOptions) {
    await this.requireMessages();
    const { tools = [], systemPrompt } = source;
    const describesTools = await this.describesTools(source);
    const guard = this.#plainText.guard();
    const guardedSource = guardSource({ systemPrompt, tools: toolsInHead(tools) }, guard);
    const hasGuardedSource = guard.isUsed;
    const withoutMarks = await withoutFalseNotes(this.#limits, messages);
    const written = showsDefinitions(tools, messages)
      ? await withoutFalseNotes(this.#limits, await this.#definitions.write(source, withoutMarks, guard))
      : withoutMarks.map((message) => guardMessage(message, guard));
    const rendered = await this.#render(guardedSource, written, describesTools, options);
    return { pieces: guard.split(rendered.prompt), rendered, describesTools, hasGuardedSource };
  }

  async #render(
    source: TemplateSource,
    messages: readonly ChatMessage[],
    describesTools: boolean,
    { parallelToolCalls, reasoning, addGenerationPrompt, textOnly }: TextOptions,
  ) {
    const { tools = [] } = source;
    const render = async (conversation: readonly ChatMessage[]) =>
      this.#chatTemplate.render(
        describesTools ? source : withToolsInSystemPrompt(source),
        await fitHistory(this.#limits, conversation),
        describesTools ? tools : [],
        {
          parallelToolCalls,
          reasoning,
          addGenerationPrompt,
          textOnly,
          ...(tools.length > 0 && { toolChoice: 'none' }), // no grammar here: ReplyFormats makes it from other schemas
        },
      );
    const hasCalls = messages.some(isAboutCalls);
    if (hasCalls && !(describesTools && (await this.#chatTemplate.showsCalls(tools.length > 0)))) {
      return render(withCallsAsText(messages));
    }
    return render(messages).catch((error: unknown) => {
      // Some chat templates refuse this order of messages, for example a user message right after a result.
      if (hasCalls && HeadstartError.isInstance(error, 'CHAT_TEMPLATE_FAILED')) {
        return render(withCallsAsText(messages));
      }
      throw error;
    });
  }

  async #tokens(pieces: readonly PromptPiece[]): Promise<Int32Array> {
    const { bos, addsBos } = this.#model.info.vocabulary;
    // `addSpecial` would add BOS, but may also append EOS, and a reply must not follow EOS. So BOS is added here.
    const tokens = await this.#plainText.tokenize(pieces);
    return addsBos && bos !== null ? concatTokens([[bos], tokens]) : tokens;
  }
}

/** Whether these options need another reply format than the one that the render of the prompt returns. */
function changesFormat({ toolChoice = 'auto', jsonSchema, grammar }: ReplyOptions): boolean {
  return toolChoice !== 'auto' || jsonSchema !== undefined || grammar !== undefined;
}

function textOf(pieces: readonly PromptPiece[]): string {
  return pieces.map(({ text }) => text).join('');
}

function isAboutCalls(message: ChatMessage): boolean {
  return message.role === 'tool' || callsOf(message).length > 0;
}
