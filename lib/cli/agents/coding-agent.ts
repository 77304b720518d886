// What `launch` knows about a coding agent.

/** The server to which a coding agent connects. */
export interface AgentConnection {
  /** The address of the server, for example `http://127.0.0.1:8080`. */
  url: string;
  /** The API key. Undefined if the server needs none. */
  apiKey: string | undefined;
  /** The name of the model. */
  model: string;
  /** Maximum number of tokens of a conversation. */
  contextSize: number;
  /** The absolute path of a temporary directory that receives `files`. */
  directory: string;
}

/** The environment, arguments and files with which a coding agent starts. They last only as long as the agent runs. */
export interface AgentSetup {
  /** Environment variables, in addition to those of this process. */
  environment: Record<string, string>;
  /** Arguments in front of the user's arguments. */
  args: readonly string[];
  /** Files to write into the temporary directory: their names and texts. */
  files: Record<string, string>;
}

/** A coding agent. */
export interface CodingAgent {
  /** The name for people. */
  name: string;
  /** The program, which is looked up in `PATH`. */
  command: string;
  /** The command that installs the agent. */
  install: string;
  /** Tokens that the agent sends in front of the user's words: system prompt, tools and reminders. */
  headTokens: number;
  setUp(connection: AgentConnection): AgentSetup;
}

/** The key for agents that need one even if the server needs none. */
export const NO_KEY = 'none';

const LARGEST_REPLY = 8192;

/** The limit of a reply in tokens, for agents that reserve a part of the context for the reply. */
export function replyLimit(contextSize: number): number {
  return Math.min(LARGEST_REPLY, Math.floor(contextSize / 4));
}
