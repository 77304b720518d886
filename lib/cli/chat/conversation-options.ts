// The options of `chat` and `run`, and what they mean for the agent and for each turn.
import { resolve } from 'node:path';
import type { SendOptions } from '../../chat/send-options.js';
import { integer, number } from '../../option-types.js';
import { definedOptions } from '../../options.js';
import type { McpServerConfig } from '../../tools/mcp/mcp-config.js';
import type { Tool } from '../../tools/tool.js';
import type { Call } from '../command.js';
import { readJsonFile, readTextFile } from '../inputs/json-file.js';
import { flag, listOption, numberOption, type OptionValues, pathOption, textOption } from '../option.js';
import { MODEL_OPTIONS } from '../shared-options.js';

/** A configuration file cannot set options that run programs, or that let the model run them. */
const NOT_IN_FILES = { isConfigurable: false };

export const CONVERSATION_OPTIONS = {
  ...MODEL_OPTIONS,
  system: textOption('text', 'the system prompt, or `@file` for the text of a file'),
  tools: pathOption('file', 'the tools: a module that exports them, or JSON with their definitions', NOT_IN_FILES),
  mcp: pathOption('file', 'the MCP servers, in the JSON of Claude Desktop, Cursor or VS Code', NOT_IN_FILES),
  schema: pathOption('file', 'replies are JSON that matches the JSON Schema in this file'),
  yes: flag('run tools without asking', NOT_IN_FILES),
  temperature: numberOption('number', number(0, 100), 'randomness; 0 always takes the most likely token', {
    defaultAbout: "as the model's makers recommend, like the next three options",
  }),
  topK: numberOption('count', integer(0), 'choose among this many of the most likely tokens'),
  topP: numberOption('share', number(0, 1), 'choose among the most likely tokens that together have this probability'),
  minP: numberOption(
    'share',
    number(0, 1),
    "choose among tokens with this share of the most likely token's probability",
  ),
  repeatPenalty: numberOption('factor', number(0.01, 100), 'penalty for tokens that occurred recently'),
  seed: numberOption('number', integer(0, 2 ** 32 - 1), 'makes the random choice repeatable'),
  maxTokens: numberOption('tokens', integer(1), 'the maximum length of a reply', {
    defaultAbout: 'up to the end of the context',
  }),
  stop: listOption('text', 'ends the reply at this text'),
  noReasoning: flag('let the model answer without reasoning, if the model can do that'),
  raw: flag('print replies as the model wrote them, without rendering their Markdown'),
};

/** The call of a command with these options. */
export type ConversationCall = Omit<Call, 'args' | 'options'> & {
  options: OptionValues<typeof CONVERSATION_OPTIONS>;
};

/** The contents of the files that the options name, and the options of each turn. */
export interface ConversationInputs {
  systemPrompt: string | undefined;
  tools: readonly Tool[] | undefined;
  mcpServers: readonly McpServerConfig[] | undefined;
  /** The options of each turn. */
  turn: SendOptions;
}

/**
 * Reads the files that the options name.
 *
 * @throws HeadstartError `READ_FAILED`, `CONFIG_INVALID`.
 */
export async function readInputs({ options, io }: ConversationCall): Promise<ConversationInputs> {
  const pathOf = (path: string) => resolve(io.cwd, path);
  const { system, tools, mcp, schema } = options;
  return {
    systemPrompt: system?.startsWith('@') ? await readTextFile(pathOf(system.slice(1))) : system,
    tools: tools === undefined ? undefined : await (await import('../inputs/tool-file.js')).readToolFile(pathOf(tools)),
    mcpServers:
      mcp === undefined
        ? undefined
        : await (await import('../inputs/mcp-file.js')).readMcpFile(pathOf(mcp), {
            environment: io.env,
            directory: io.cwd,
          }),
    turn: turnOptions(options, schema === undefined ? undefined : await readJsonFile(pathOf(schema))),
  };
}

function turnOptions(options: ConversationCall['options'], schema: unknown): SendOptions {
  const { temperature, topK, topP, minP, repeatPenalty, seed, maxTokens, stop, noReasoning } = options;
  return {
    sampling: definedOptions({ temperature, topK, topP, minP, repeatPenalty, seed }),
    ...definedOptions({ maxTokens }),
    ...(stop.length > 0 && { stop }),
    ...(noReasoning && { reasoning: false }),
    ...(schema !== undefined && { responseFormat: { type: 'json', schema: schema as object } }),
  };
}
