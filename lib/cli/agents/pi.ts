import { join } from 'node:path';
import { type AgentConnection, type AgentSetup, type CodingAgent, NO_KEY, replyLimit } from './coding-agent.js';

const PROVIDER = 'headstart';
const EXTENSION_FILE = 'headstart-provider.ts';
const KEY_VARIABLE = 'LLAMA_HEADSTART_API_KEY';

export const pi: CodingAgent = {
  name: 'pi',
  command: 'pi',
  install: 'npm install --global @earendil-works/pi-coding-agent',
  headTokens: 1_480,
  setUp({ url, apiKey = NO_KEY, model, contextSize, directory }: AgentConnection): AgentSetup {
    const provider = {
      baseUrl: `${url}/v1`,
      apiKey: `$${KEY_VARIABLE}`,
      api: 'openai-completions',
      models: [
        {
          id: model,
          name: model,
          reasoning: false,
          input: ['text'],
          cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
          contextWindow: contextSize,
          maxTokens: replyLimit(contextSize),
        },
      ],
    };
    // An extension adds a provider for one run of pi. The user's own providers and settings stay in use.
    const extension = `export default (pi) => pi.registerProvider('${PROVIDER}', ${JSON.stringify(provider)});\n`;
    return {
      environment: { [KEY_VARIABLE]: apiKey },
      args: ['--extension', join(directory, EXTENSION_FILE), '--provider', PROVIDER, '--model', model],
      files: { [EXTENSION_FILE]: extension },
    };
  },
};
