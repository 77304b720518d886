// How to install the coding agents, and how to start them without a person. `llama-headstart launch` knows how the agents
// connect to the server.

/**
 * @typedef {object} AgentDefinition
 * @property {string} name the name in `CODING_AGENTS`
 * @property {string} packageName
 * @property {string} version the version that `npm run test:agents` installs
 * @property {string} program the path of the program in `node_modules`
 * @property {boolean} [needsNode] whether the program is a script
 * @property {boolean} [isProprietary] whether the user must accept its license
 * @property {boolean} [hasOwnClock] whether the clock of the program cannot be moved, because it is linked statically
 * @property {Record<string, string>} environment turns off updates and telemetry
 * @property {Record<string, object>} [files] JSON files in the home directory, for the same purpose
 * @property {(words: string) => string[]} args the arguments of a session without a person
 * @property {import('./observed-model.mjs').Reading} reading
 */

/** @type {readonly AgentDefinition[]} */
export const AGENTS = [
  {
    name: 'opencode',
    packageName: 'opencode-linux-x64',
    version: '1.18.33',
    program: 'opencode-linux-x64/bin/opencode',
    environment: {
      OPENCODE_DISABLE_AUTOUPDATE: '1',
      OPENCODE_DISABLE_MODELS_FETCH: '1',
      OPENCODE_DISABLE_LSP_DOWNLOAD: '1',
    },
    args: (words) => ['run', words],
    reading: { tools: ['read'], input: { filePath: 'README.md' } },
  },
  {
    name: 'codex',
    packageName: '@openai/codex',
    version: '0.171.0',
    program: '@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex',
    hasOwnClock: true,
    environment: {},
    args: (words) => [
      ...['-c', 'check_for_update_on_startup=false', '-c', 'analytics.enabled=false'],
      ...['exec', '--skip-git-repo-check', '--sandbox', 'danger-full-access', words],
    ],
    reading: { tools: ['exec_command'], input: { cmd: 'cat README.md' } },
  },
  {
    name: 'claude',
    packageName: '@anthropic-ai/claude-code',
    version: '2.1.332',
    program: '@anthropic-ai/claude-code-linux-x64/claude',
    isProprietary: true,
    environment: {
      DISABLE_AUTOUPDATER: '1',
      DISABLE_TELEMETRY: '1',
      CLAUDE_CODE_ATTRIBUTION_HEADER: '1', // as without `launch`: the server has a rule for this text
    },
    args: (words) => ['-p', words],
    reading: { tools: ['Read'], input: { file_path: 'README.md' } },
  },
  {
    name: 'cline',
    packageName: 'cline',
    version: '3.0.65',
    program: '@cline/cli-linux-x64/bin/cline',
    environment: { CLINE_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1', CLINE_NO_AUTO_UPDATE: '1' },
    args: (words) => [words],
    reading: { tools: ['read_files'], input: { files: [{ path: 'README.md' }] } },
  },
  {
    name: 'pi',
    packageName: '@earendil-works/pi-coding-agent',
    version: '1.6.0',
    program: '@earendil-works/pi-coding-agent/dist/bundle/cli.js',
    needsNode: true,
    environment: { PI_OFFLINE: '1', PI_SKIP_VERSION_CHECK: '1', PI_TELEMETRY: '0' },
    args: (words) => ['-p', words],
    reading: { tools: ['read'], input: { path: 'README.md' } },
  },
  {
    name: 'qwen',
    packageName: '@qwen-code/qwen-code',
    version: '0.24.4',
    program: '@qwen-code/qwen-code/cli-entry.js',
    needsNode: true,
    environment: {},
    files: {
      '.qwen/settings.json': {
        privacy: { usageStatisticsEnabled: false },
        telemetry: { enabled: false },
        general: { enableAutoUpdate: false },
      },
    },
    args: (words) => ['-y', '-p', words],
    reading: { tools: ['read_file'], input: { file_path: 'README.md' } },
  },
];
