import type { AgentConnection, AgentSetup, CodingAgent } from './coding-agent.js';

const KEY_VARIABLE = 'LLAMA_HEADSTART_API_KEY';
/** Codex sends other tools to models whose names it knows, so the name must not be one of these. */
const MODEL = 'local';

export const codex: CodingAgent = {
  name: 'Codex',
  command: 'codex',
  install: 'npm install --global @openai/codex',
  headTokens: 14_200,
  setUp({ url, apiKey, contextSize }: AgentConnection): AgentSetup {
    const provider = {
      name: 'llama-headstart', // Codex compacts conversations on the server if the name is OpenAI
      base_url: `${url}/v1`,
      wire_api: 'responses',
      ...(apiKey !== undefined && { env_key: KEY_VARIABLE }),
    };
    const settings = {
      model: MODEL,
      model_provider: 'headstart',
      model_context_window: contextSize,
      ...Object.fromEntries(
        Object.entries(provider).map(([name, value]) => [`model_providers.headstart.${name}`, value]),
      ),
    };
    return {
      environment: apiKey === undefined ? {} : { [KEY_VARIABLE]: apiKey },
      // A value is TOML. The JSON of a string or of a number is also TOML.
      args: Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${JSON.stringify(value)}`]),
      files: {},
    };
  },
};
