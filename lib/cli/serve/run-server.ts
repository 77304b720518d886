// Runs `serve`.
import { onAbort } from '../../abort.js';
import { definedOptions } from '../../options.js';
import { CODING_AGENTS } from '../agents/all-agents.js';
import { chooseModel } from '../choose-model.js';
import type { Call } from '../command.js';
import type { SERVE_OPTIONS } from '../commands/serve.js';
import type { OptionValues } from '../option.js';
import { bytesText, countText } from '../words.js';
import type { ContextChoice } from './context-choice.js';
import { startModelServer } from './model-server.js';
import { apiKeysOf, DEFAULT_PORT } from './server-options.js';

/** The call of `serve`. */
export interface ServeCall extends Omit<Call, 'args' | 'options'> {
  args: { model: string | undefined };
  options: OptionValues<typeof SERVE_OPTIONS>;
}

/** Serves until the command is interrupted. */
export async function runServer(call: ServeCall): Promise<void> {
  const { options, output, signal } = call;
  const { host, port, allowedHosts, allowedOrigins, maxRequests, maxBodySize } = options;
  const apiKeys = await apiKeysOf(call, options.apiKeyFile);
  const source = await chooseModel(call, call.args.model);
  const handler = {
    ...definedOptions({ apiKeys, maxBodyBytes: maxBodySize }),
    ...(allowedHosts.length > 0 && { allowedHosts }),
    allowedOrigins,
    maxRequests,
  };
  const server = await startModelServer(call, source, { logger: output.log, handler, listen: { host, port } });
  try {
    const { agent, url, context } = server;
    output.result({ url, model: agent.id, ...withoutReason(context) }, () => [
      `Serving ${agent.id} at ${url}`,
      ...contextLines(context),
      '',
      ...clientLines(url, apiKeys !== undefined),
    ]);
    await aborted(signal);
    output.note('Waiting for replies in progress. Press Ctrl-C again to end at once.');
  } finally {
    await server.close();
  }
}

function withoutReason({ reason: _, ...sizes }: ContextChoice): Omit<ContextChoice, 'reason'> {
  return sizes;
}

function contextLines({ contextSize, trainContextSize, kvCells, kvBytes, reason }: ContextChoice): string[] {
  const trained = trainContextSize === 0 ? '' : `, and the model was trained with ${countText(trainContextSize)}`;
  return [
    `Context: ${countText(contextSize)} tokens${trained}. All conversations together: ${countText(kvCells)} tokens, ${bytesText(kvBytes)}.`,
    ...(reason === undefined ? [] : [`The context is shorter than the training length, because ${reason}.`]),
  ];
}

/** How clients connect. */
function clientLines(url: string, needsKey: boolean): string[] {
  const key = needsKey ? 'one of your API keys' : 'any text';
  const { port } = new URL(url);
  const portFlag = port === String(DEFAULT_PORT) ? '' : ` --port ${port}`;
  return [
    `OpenAI's API:     base URL ${url}/v1, API key: ${key}`,
    `Anthropic's API:  base URL ${url}, API key: ${key}`,
    `Coding agents:    llama-headstart launch ${Object.keys(CODING_AGENTS).join('|')}${portFlag}`,
    `Metrics:          ${url}/metrics`,
  ];
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => onAbort(signal, resolve));
}
