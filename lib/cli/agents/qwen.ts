import { join } from 'node:path';
import { type AgentConnection, type AgentSetup, type CodingAgent, NO_KEY, replyLimit } from './coding-agent.js';

const SETTINGS_FILE = 'qwen-settings.json';

export const qwen: CodingAgent = {
  name: 'Qwen Code',
  command: 'qwen',
  install: 'npm install --global @qwen-code/qwen-code',
  headTokens: 21_500,
  setUp({ url, apiKey = NO_KEY, model, contextSize, directory }: AgentConnection): AgentSetup {
    const generationConfig = {
      contextWindowSize: contextSize,
      samplingParams: { max_tokens: replyLimit(contextSize) },
    };
    const entry = { id: model, name: model, envKey: 'OPENAI_API_KEY', baseUrl: `${url}/v1`, generationConfig };
    const settings = {
      security: { auth: { selectedType: 'openai' } },
      model: { name: model },
      modelProviders: { openai: [entry] },
    };
    return {
      environment: {
        OPENAI_API_KEY: apiKey,
        OPENAI_BASE_URL: `${url}/v1`,
        OPENAI_MODEL: model,
        // The settings of the system override those of the user.
        QWEN_CODE_SYSTEM_SETTINGS_PATH: join(directory, SETTINGS_FILE),
      },
      args: ['--auth-type', 'openai', '--model', model],
      files: { [SETTINGS_FILE]: JSON.stringify(settings) },
    };
  },
};
