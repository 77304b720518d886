// Starts a server for a model, with a context that fits into the memory.
import type { AgentServer } from '../../agent/agent-server.js';
import type { Logger } from '../../logger.js';
import { resolveModel } from '../../model/resolve-model.js';
import { selectGpu } from '../../native/addon.js';
import { Model } from '../../native/model.js';
import { createHandler } from '../../server/handler.js';
import { type ListeningServer, listen } from '../../server/listen.js';
import type { ServedModel } from '../../server/served-model.js';
import type { HandlerOptions, ListenOptions } from '../../server/server-options.js';
import { usableTemplatesDirectory } from '../directories.js';
import { show } from '../model-step.js';
import { type ModelCall, openAgent } from '../open-agent.js';
import { type ContextChoice, chooseContext } from './context-choice.js';
import { memoryBudget } from './free-memory.js';

export interface ModelServerOptions {
  /** Receives warnings of the agent and failures of the server. */
  logger: Logger;
  handler: HandlerOptions;
  listen: ListenOptions;
  /** Whether to use any free port if another program uses the wanted one. @default false */
  acceptsAnyPort?: boolean;
  /** Checks the context before the model is loaded. @default none */
  check?(context: ContextChoice): void;
  /** Returns the model to serve. @default the agent */
  served?(agent: AgentServer): ServedModel;
}

/** A server and its agent. */
export interface ModelServer {
  readonly agent: AgentServer;
  readonly url: string;
  readonly context: ContextChoice;
  /** Waits for replies in progress, and saves conversations. */
  close(): Promise<void>;
}

/**
 * Loads a model and serves it. Conversations are kept on disk.
 *
 * @param source the source of the model
 * @throws HeadstartError the codes of `AgentServer.initialize`. The error of node:net if the port is in use.
 */
export async function startModelServer(
  call: ModelCall,
  source: string,
  options: ModelServerOptions,
): Promise<ModelServer> {
  const { gpu, contextSize, modelsDir, cacheDir } = call.options;
  const { served = (agent) => agent } = options;
  selectGpu(gpu === 'none' ? false : gpu);
  const { path } = await call.step('model files', (step) =>
    resolveModel(source, {
      generationConfig: 'with-model',
      ...(modelsDir !== undefined && { modelsDir }),
      signal: call.signal,
      onProgress: (state) => show(step, state),
    }),
  );
  const context = chooseContext(await metadataOf(path), await memoryBudget(path), contextSize);
  options.check?.(context);
  const dir = usableTemplatesDirectory(cacheDir, call.output);
  const agent = await openAgent(call, path, {
    logger: options.logger,
    model: {
      contextSize: context.contextSize,
      kvCells: context.kvCells,
      ...(call.options.threads === undefined && { nThreads: 'auto' }), // other programs use the machine, too
    },
    cache: { dir, conversations: dir !== null },
  });
  let server: ListeningServer;
  try {
    server = await listenTo(served(agent), options);
  } catch (error) {
    await agent.close();
    throw error;
  }
  const close = async () => {
    try {
      await server.close();
    } finally {
      await agent.close();
    }
  };
  return { agent, url: server.url, context, close };
}

async function listenTo(
  model: ServedModel,
  { handler, logger, listen: options, acceptsAnyPort = false }: ModelServerOptions,
): Promise<ListeningServer> {
  const handle = createHandler(model, { ...handler, logger });
  try {
    return await listen(handle, options);
  } catch (error) {
    if (!acceptsAnyPort || (error as NodeJS.ErrnoException).code !== 'EADDRINUSE') {
      throw error;
    }
    return listen(handle, { ...options, port: 0 });
  }
}

/** The metadata of a model file, without its weights. */
async function metadataOf(path: string): Promise<Record<string, string>> {
  const model = await Model.load({ path, vocabularyOnly: true });
  try {
    return model.metadata();
  } finally {
    await model.close();
  }
}
