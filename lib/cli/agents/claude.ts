import { type AgentConnection, type AgentSetup, type CodingAgent, NO_KEY, replyLimit } from './coding-agent.js';

/** The longest time of one request in ms. A prompt of 20,000 tokens takes minutes on a slow machine. */
const TIMEOUT_MS = 3_000_000;

export const claude: CodingAgent = {
  name: 'Claude Code',
  command: 'claude',
  install: 'npm install --global @anthropic-ai/claude-code',
  headTokens: 15_300,
  setUp({ url, apiKey, model, contextSize }: AgentConnection): AgentSetup {
    return {
      environment: {
        ANTHROPIC_BASE_URL: url,
        ANTHROPIC_AUTH_TOKEN: apiKey ?? NO_KEY,
        ANTHROPIC_API_KEY: '', // otherwise Claude Code asks whether to use the key of the user's account
        ANTHROPIC_MODEL: model,
        ANTHROPIC_DEFAULT_OPUS_MODEL: model,
        ANTHROPIC_DEFAULT_SONNET_MODEL: model,
        ANTHROPIC_DEFAULT_HAIKU_MODEL: model,
        CLAUDE_CODE_MAX_CONTEXT_TOKENS: String(contextSize),
        CLAUDE_CODE_MAX_OUTPUT_TOKENS: String(replyLimit(contextSize)),
        // Text that differs between sessions would change the beginning of the prompt.
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
        CLAUDE_CODE_ATTRIBUTION_HEADER: '0',
        API_TIMEOUT_MS: String(TIMEOUT_MS),
      },
      // The mode `auto` asks Anthropic's servers whether a command is safe.
      args: ['--permission-mode', 'default'],
      files: {},
    };
  },
};
