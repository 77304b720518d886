import { CODING_AGENTS } from '../agents/all-agents.js';
import { command } from '../command.js';
import { SERVER_OPTIONS } from '../serve/server-options.js';

const AGENTS = Object.keys(CODING_AGENTS);

export const launch = command({
  name: 'launch',
  summary: 'starts a coding agent with a local model',
  details: [
    `The agents are ${AGENTS.slice(0, -1).join(', ')} and ${AGENTS.at(-1)}. If a server is already running at the ` +
      'port, the agent uses it. Otherwise `launch` starts a server, and stops it after the agent. No file of the agent is changed: ' +
      'its settings are environment variables, arguments, and files in a temporary directory.',
    'The system prompt and the tools of the last run are loaded or prefilled while the agent starts.',
  ],
  arguments: {
    agent: { about: `the agent: ${AGENTS.join(', ')}`, completion: AGENTS },
    arguments: { about: 'arguments for the agent, after `--`', optional: true, variadic: true },
  },
  options: SERVER_OPTIONS,
  examples: [
    { line: 'launch opencode --model hf:owner/model', about: 'Download a model, and start opencode with it.' },
    { line: 'launch claude -- --continue', about: 'Continue the last conversation of Claude Code.' },
    { line: 'launch codex --port 9000', about: 'Use the server at port 9000.' },
  ],
  exitCodes: { 127: 'the agent is not installed' },
  async run(call) {
    const { launchAgent } = await import('../launch/launch-agent.js');
    await launchAgent(call);
  },
});
