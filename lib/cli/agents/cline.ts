import { join } from 'node:path';
import { type AgentConnection, type AgentSetup, type CodingAgent, NO_KEY, replyLimit } from './coding-agent.js';

/** Cline's name for servers with OpenAI's API. */
const PROVIDER = 'openai-compatible';
const PROVIDERS_FILE = 'providers.json';
/** Cline reads this file beside the file of the providers. */
const MODELS_FILE = 'models.json';

export const cline: CodingAgent = {
  name: 'Cline',
  command: 'cline',
  install: 'npm install --global cline',
  headTokens: 6_000,
  setUp({ url, apiKey = NO_KEY, model, contextSize, directory }: AgentConnection): AgentSetup {
    const settings = { provider: PROVIDER, apiKey, model, baseUrl: `${url}/v1` };
    const entry = { settings, updatedAt: new Date().toISOString(), tokenSource: 'manual' };
    const providers = { version: 1, lastUsedProvider: PROVIDER, providers: { [PROVIDER]: entry } };
    const limits = { contextWindow: contextSize, maxInputTokens: contextSize, maxTokens: replyLimit(contextSize) };
    const models = { [model]: { id: model, name: model, ...limits, capabilities: ['tools'] } };
    return {
      environment: {
        CLINE_PROVIDER_SETTINGS_PATH: join(directory, PROVIDERS_FILE),
        CLINE_SESSION_BACKEND_MODE: 'local', // otherwise a background process keeps running after Cline
      },
      args: ['--provider', PROVIDER, '--model', model],
      files: {
        [PROVIDERS_FILE]: JSON.stringify(providers),
        [MODELS_FILE]: JSON.stringify({ version: 1, providers: { [PROVIDER]: { models } } }),
      },
    };
  },
};
