// Makes the formats of replies. A format contains a grammar, which the reply has to follow, and a parser, which reads
// the reply.
import { LRUCache } from 'lru-cache';
import type { Model } from '../native/model.js';
import { jsonSchemaToGrammar, type ReplyFormat } from '../native/reply.js';
import { remembered } from '../remembered.js';
import { bareCallFormat } from './bare-calls.js';
import { callOrJsonFormat, fitsCalls } from './call-or-json.js';
import { type ChatTemplate, TOOL_PROBE } from './chat-template.js';
import { type ArgumentForm, argumentForm, toolsForParser, withExactArguments } from './exact-arguments.js';
import { withLongNumbers } from './exact-json.js';
import { hermesReplyFormat } from './hermes.js';
import { grammarReplyFormat, requiredSchema, withEndedThought } from './json-reply.js';
import { toOpenAiTool } from './messages.js';
import { withNarrowedCalls } from './narrowed-calls.js';
import { withParsableGrammar } from './parsable-grammar.js';
import type { ReplyOptions, ToolDefinition } from './renderer.js';
import { standInsFor, withRealNames, withRealNamesInError } from './stand-ins.js';

/** The maximum number of cached formats. The cache helps because turns repeat tool choices and schemas. */
const MAX_FORMATS = 32;

/** Texts that no chat template contains. */
const ARGUMENT_PROBE = 'headstart_argument_3a90';
const TEXT_PROBE = 'headstart_text_71bc';

/** The conversation that is rendered to get a format. A format does not depend on the conversation. */
const QUESTION = { role: 'user', content: 'x' } as const;

type CallOptions = ReplyOptions & { toolChoice: 'auto' | 'required' | 'none' };

export class ReplyFormats {
  readonly #model: Model;
  readonly #chatTemplate: ChatTemplate;
  readonly #formats = new LRUCache<string, Promise<ReplyFormat>>({ max: MAX_FORMATS });
  #argumentForm: Promise<ArgumentForm> | undefined;

  constructor(model: Model, chatTemplate: ChatTemplate) {
    this.#model = model;
    this.#chatTemplate = chatTemplate;
  }

  /**
   * The format of a reply with these options.
   *
   * @param describesTools whether the chat template describes the tools; otherwise calls have the Hermes form
   * @throws HeadstartError `GRAMMAR_INVALID`, and as {@link ChatTemplate.render}.
   */
  find(definitions: readonly ToolDefinition[], describesTools: boolean, options: ReplyOptions): Promise<ReplyFormat> {
    const { toolChoice = 'auto', parallelToolCalls = false, jsonSchema, grammar, reasoning = true } = options;
    const all = toolChoice === 'none' ? [] : definitions;
    const chosen = typeof toolChoice === 'object' ? all.filter(({ name }) => name === toolChoice.name) : all;
    const tools = chosen.map(withGrammarSchema);
    const choice = typeof toolChoice === 'object' ? 'required' : toolChoice;
    const required = [jsonSchema ?? null, grammar ?? null];
    const key = JSON.stringify([tools, describesTools, choice, parallelToolCalls, required, reasoning]);
    return remembered(this.#formats, key, () =>
      this.#make(tools, describesTools, { ...options, toolChoice: choice }).then(withLongNumbers),
    );
  }

  async #make(
    tools: readonly ToolDefinition[],
    describesTools: boolean,
    { jsonSchema, grammar, ...options }: CallOptions,
  ): Promise<ReplyFormat> {
    const { reasoning = true } = options;
    if (grammar !== undefined) {
      (await this.#model.createSampler({ grammar })).close(); // so that an error quotes this grammar
      return this.#grammarFormat(grammar, reasoning);
    }
    if (jsonSchema === undefined) {
      return tools.length === 0 ? this.#ownFormat(tools, options) : this.#callFormat(tools, describesTools, options);
    }
    const schema = requiredSchema(jsonSchema);
    return tools.length === 0
      ? this.#jsonFormat(schema, reasoning)
      : this.#callOrJsonFormat(tools, describesTools, schema, options);
  }

  /** The format of a reply that either calls tools or is JSON. */
  async #callOrJsonFormat(
    tools: readonly ToolDefinition[],
    describesTools: boolean,
    jsonSchema: object,
    options: CallOptions,
  ): Promise<ReplyFormat> {
    const free = await this.#callFormat(tools, describesTools, { ...options, toolChoice: 'auto' });
    const call = await this.#callFormat(tools, describesTools, { ...options, toolChoice: 'required' });
    const { reasoning = true } = options;
    const json = await this.#jsonFormat(jsonSchema, reasoning);
    if (fitsCalls(json, free)) {
      return callOrJsonFormat(free, call, json);
    }
    const plain = await this.#grammarFormat(await jsonSchemaToGrammar(jsonSchema), false);
    return callOrJsonFormat(free, call, plain);
  }

  /** The format of a reply that is JSON. */
  async #jsonFormat(jsonSchema: object, reasoning: boolean): Promise<ReplyFormat> {
    const options = { toolChoice: 'none', reasoning, jsonSchema } as const;
    const format = await this.#chatTemplate.render({}, [QUESTION], [], options);
    return format.grammar === ''
      ? this.#grammarFormat(await jsonSchemaToGrammar(jsonSchema), reasoning)
      : withEndedThought(format);
  }

  /** The format of a reply that follows a grammar. */
  async #grammarFormat(grammar: string, reasoning: boolean): Promise<ReplyFormat> {
    const options = { toolChoice: 'none', reasoning } as const;
    const format = await this.#chatTemplate.render({}, [QUESTION], [], options);
    const conversation = [QUESTION, { role: 'assistant', content: TEXT_PROBE }] as const;
    const { prompt = '' } = (await this.#chatTemplate.tryToRender({}, conversation, [], options)) ?? {};
    const at = prompt.startsWith(format.prompt) ? prompt.indexOf(TEXT_PROBE) : -1;
    const opening = at === -1 ? '' : prompt.slice(format.prompt.length, at);
    return grammarReplyFormat(format, grammar, opening, reasoning);
  }

  /**
   * Makes the format of a reply that may call tools. The format is first made with stand-ins for names. Then the real
   * names replace the stand-ins.
   */
  async #callFormat(
    tools: readonly ToolDefinition[],
    describesTools: boolean,
    options: CallOptions,
  ): Promise<ReplyFormat> {
    const { toolChoice, parallelToolCalls = false } = options;
    const form = describesTools ? await this.#findArgumentForm() : 'json';
    const standIns = standInsFor(tools, form);
    const making = describesTools
      ? this.#ownFormat(toolsForParser(standIns.tools, form), options)
      : hermesReplyFormat(this.#model, standIns.tools.map(toOpenAiTool), { toolChoice, parallelToolCalls });
    const format = await making.catch((error: unknown) => {
      throw withRealNamesInError(error, standIns);
    });
    const narrow = withNarrowedCalls(format, toolChoice === 'required', parallelToolCalls);
    const exact = await withExactArguments(narrow, standIns.tools, form);
    return withRealNames(withParsableGrammar(exact), standIns);
  }

  #findArgumentForm(): Promise<ArgumentForm> {
    this.#argumentForm ??= (async () => {
      const parameters = { type: 'object', properties: { [ARGUMENT_PROBE]: { type: 'boolean' } } };
      const tools = [{ name: TOOL_PROBE, parameters }];
      const { grammar } = await this.#chatTemplate.render({}, [QUESTION], tools, { toolChoice: 'required' });
      return argumentForm(grammar, TOOL_PROBE, ARGUMENT_PROBE);
    })();
    return this.#argumentForm;
  }

  /** The format that `common` derives from the chat template. */
  async #ownFormat(tools: readonly ToolDefinition[], options: CallOptions): Promise<ReplyFormat> {
    const formatOf = (toolChoice: CallOptions['toolChoice']) =>
      this.#chatTemplate.render({}, [QUESTION], tools, { ...options, toolChoice });
    const format = await formatOf(options.toolChoice);
    return tools.length === 0 || format.grammar !== '' || options.toolChoice !== 'auto'
      ? format
      : bareCallFormat(format, await formatOf('required'));
  }
}

function withGrammarSchema({ grammarSchema, ...tool }: ToolDefinition): ToolDefinition {
  return grammarSchema === undefined ? tool : { ...tool, parameters: grammarSchema };
}
