import { type AgentConnection, type AgentSetup, type CodingAgent, NO_KEY, replyLimit } from './coding-agent.js';

export const opencode: CodingAgent = {
  name: 'opencode',
  command: 'opencode',
  install: 'npm install --global opencode-ai',
  headTokens: 8_900,
  setUp({ url, apiKey, model, contextSize }: AgentConnection): AgentSetup {
    const limit = { context: contextSize, output: replyLimit(contextSize) };
    const provider = {
      npm: '@ai-sdk/openai-compatible',
      name: 'llama-headstart',
      options: { baseURL: `${url}/v1`, apiKey: apiKey ?? NO_KEY },
      models: { [model]: { name: model, limit } },
    };
    const config = {
      $schema: 'https://opencode.ai/config.json',
      model: `headstart/${model}`,
      small_model: `headstart/${model}`,
      provider: { headstart: provider },
    };
    // opencode merges this configuration over the user's files.
    return { environment: { OPENCODE_CONFIG_CONTENT: JSON.stringify(config) }, args: [], files: {} };
  },
};
