// Makes the formats of replies. A format contains a grammar, which the reply has to follow, and a parser, which reads
// the reply.
import { LRUCache } from 'lru-cache';
import type { Model } from '../native/model.js';
import type { ReplyFormat } from '../native/reply.js';
import { remembered } from '../remembered.js';
import { bareCallFormat } from './bare-calls.js';
import { type ChatTemplate, TOOL_PROBE } from './chat-template.js';
import { type ArgumentForm, argumentForm, toolsForParser, withExactArguments } from './exact-arguments.js';
import { withLongNumbers } from './exact-json.js';
import { hermesReplyFormat } from './hermes.js';
import { jsonReplyFormat, requiredSchema, withEndedThought } from './json-reply.js';
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
   * @throws HeadstartError as {@link ChatTemplate.render}.
   */
  find(definitions: readonly ToolDefinition[], describesTools: boolean, options: ReplyOptions): Promise<ReplyFormat> {
    const { toolChoice = 'auto', parallelToolCalls = false, jsonSchema, reasoning = true } = options;
    const all = jsonSchema === undefined && toolChoice !== 'none' ? definitions : [];
    const chosen = typeof toolChoice === 'object' ? all.filter(({ name }) => name === toolChoice.name) : all;
    const tools = chosen.map(withGrammarSchema);
    const choice = typeof toolChoice === 'object' ? 'required' : toolChoice;
    const key = JSON.stringify([tools, describesTools, choice, parallelToolCalls, jsonSchema ?? null, reasoning]);
    return remembered(this.#formats, key, () =>
      this.#make(tools, describesTools, { ...options, toolChoice: choice }).then(withLongNumbers),
    );
  }

  #make(tools: readonly ToolDefinition[], describesTools: boolean, options: CallOptions): Promise<ReplyFormat> {
    const { jsonSchema, reasoning = true } = options;
    if (jsonSchema !== undefined) {
      return this.#jsonFormat(requiredSchema(jsonSchema), reasoning);
    }
    return tools.length === 0 ? this.#ownFormat(tools, options) : this.#callFormat(tools, describesTools, options);
  }

  /** The format of a reply that is JSON. */
  async #jsonFormat(jsonSchema: object, reasoning: boolean): Promise<ReplyFormat> {
    const options = { toolChoice: 'none', reasoning } as const;
    const format = await this.#chatTemplate.render({}, [QUESTION], [], { ...options, jsonSchema });
    if (format.grammar !== '') {
      return withEndedThought(format);
    }
    const conversation = [QUESTION, { role: 'assistant', content: TEXT_PROBE }] as const;
    const { prompt = '' } = (await this.#chatTemplate.tryToRender({}, conversation, [], options)) ?? {};
    const at = prompt.startsWith(format.prompt) ? prompt.indexOf(TEXT_PROBE) : -1;
    const opening = at === -1 ? '' : prompt.slice(format.prompt.length, at);
    return jsonReplyFormat(format, jsonSchema, opening, reasoning);
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
