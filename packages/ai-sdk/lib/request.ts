// Converts the options of a call of the AI SDK to a request of llama-headstart.
import { type ChatRequest, HeadstartError, type SamplingOptions, type Tool } from 'llama-headstart';
import { readPrompt } from './messages.js';
import { boundariesOfTools, limitBoundaries, PROVIDER, readCallOptions } from './provider-options.js';
import type { CallOptions, FunctionTool, Warning } from './specification.js';

/** A request, and warnings about settings that have no effect. */
export interface ReadCall {
  request: ChatRequest;
  warnings: Warning[];
}

/**
 * Converts the options of a call.
 *
 * @throws HeadstartError `INVALID_ARGUMENT`. UnsupportedFunctionalityError if the prompt contains a file or an image.
 */
export function readCall(options: CallOptions): ReadCall {
  const warnings: Warning[] = [];
  const { maxOutputTokens: maxTokens, stopSequences: stop = [], abortSignal: signal } = options;
  const { grammar, ...ofCall } = readCallOptions(options, warnings);
  const { messages, boundaries } = readPrompt(options.prompt, warnings);
  const tools = functionTools(options, warnings);
  const cacheHints = limitBoundaries(boundariesOfTools(tools, warnings), boundaries, warnings);
  const request: ChatRequest = {
    messages,
    tools: tools.map(toolOf), // an empty list too, because the agent's own tools must not run
    ...toolChoiceOf(options, tools),
    ...formatOf(options, tools, grammar, warnings),
    ...reasoningOf(options, warnings),
    ...ofCall,
    ...(cacheHints.length > 0 && { cacheHints }),
    sampling: samplingOf(options),
    ...(stop.length > 0 && { stop }),
    ...(maxTokens !== undefined && { maxTokens }),
    ...(signal !== undefined && { signal }),
  };
  warnAboutHeaders(options, warnings);
  return { request, warnings };
}

/** The tools that the model can call. */
function functionTools({ tools = [] }: CallOptions, warnings: Warning[]): FunctionTool[] {
  return tools.flatMap((tool) => {
    if (tool.type === 'function') {
      if (tool.inputExamples !== undefined) {
        warnings.push({ type: 'unsupported', feature: `inputExamples of the tool "${tool.name}"` });
      }
      return [tool];
    }
    warnings.push({ type: 'unsupported', feature: `provider-defined tool ${tool.id}` });
    return [];
  });
}

function toolOf({ name, description, inputSchema }: FunctionTool): Tool {
  return { name, ...(description !== undefined && { description }), inputSchema };
}

function toolChoiceOf({ toolChoice }: CallOptions, tools: readonly FunctionTool[]): Pick<ChatRequest, 'toolChoice'> {
  if (toolChoice === undefined || tools.length === 0) {
    return {};
  }
  return { toolChoice: toolChoice.type === 'tool' ? { name: toolChoice.toolName } : toolChoice.type };
}

/** If the reply must be a call, it has no text, so the request has no format. */
function formatOf(
  { responseFormat, toolChoice }: CallOptions,
  tools: readonly FunctionTool[],
  grammar: string | undefined,
  warnings: Warning[],
): Pick<ChatRequest, 'responseFormat' | 'grammar'> {
  const json = responseFormat?.type === 'json' ? responseFormat : undefined;
  if (grammar !== undefined && json !== undefined) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected a JSON response format or \`providerOptions.${PROVIDER}.grammar\`, got both. Leave out one of them.`,
    );
  }
  for (const name of ['name', 'description'] as const) {
    if (json?.[name] !== undefined) {
      const details = 'The grammar makes the reply follow the schema. The model does not see the schema.';
      warnings.push({ type: 'unsupported', feature: `responseFormat.${name}`, details });
    }
  }
  if (grammar !== undefined) {
    return { grammar };
  }
  const choice = tools.length === 0 ? 'none' : (toolChoice?.type ?? 'auto');
  if (json === undefined || choice === 'required' || choice === 'tool') {
    return {};
  }
  const allowTools = choice === 'auto';
  return { responseFormat: { type: 'json', schema: json.schema ?? {}, ...(allowTools && { allowTools }) } };
}

/** Version 4 of the specification has levels of reasoning. */
function reasoningOf({ reasoning }: CallOptions, warnings: Warning[]): Pick<ChatRequest, 'reasoning'> {
  if (reasoning === undefined || reasoning === 'provider-default') {
    return {};
  }
  if (reasoning !== 'none') {
    const details = `A model reasons or does not reason. "${reasoning}" turns reasoning on.`;
    warnings.push({ type: 'compatibility', feature: 'reasoning', details });
  }
  return { reasoning: reasoning !== 'none' };
}

/** Seeds are smaller than this number, because llama.cpp takes this number as a request for a random seed. */
const SEEDS = 2 ** 32 - 1;

function samplingOf(options: CallOptions): SamplingOptions {
  const { temperature, topP, topK, presencePenalty, frequencyPenalty, seed } = options;
  const sampling: SamplingOptions = { temperature, topP, topK, presencePenalty, frequencyPenalty };
  const given = Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== undefined));
  return { ...given, ...(seed !== undefined && { seed: ((seed % SEEDS) + SEEDS) % SEEDS }) };
}

/** The AI SDK itself sets the header `user-agent`. */
function warnAboutHeaders({ headers = {} }: CallOptions, warnings: Warning[]): void {
  const names = Object.keys(headers).filter((name) => name.toLowerCase() !== 'user-agent');
  if (names.length > 0) {
    const details = `The model runs in this process. Ignored: ${names.join(', ')}.`;
    warnings.push({ type: 'unsupported', feature: 'headers', details });
  }
}
