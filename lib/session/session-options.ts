// The options of a session, and where an option belongs that is none of a session's.
import { CACHE } from '../cache/options.js';
import { IN_SAMPLING } from '../generate/sampling.js';
import { MODEL } from '../model/model-options.js';
import {
  abortSignal,
  boolean,
  checked,
  type Group,
  group,
  type OptionsOf,
  string,
  switchable,
  text,
  value,
} from '../option-types.js';
import type { Place } from '../options.js';
import { checkedOptions } from '../parse-options.js';
import { SAMPLING_OPTIONS } from '../sampling-options.js';
import { checkTools, type Tool } from '../tools/tool.js';
import { COMPACTION_OPTIONS } from './compaction/compaction.js';
import type { ConversationMessage } from './message-input.js';
import { IN_SEND, TOOL_CALLS } from './options.js';

/** What sessions start from; also of an agent, for sessions that name none. */
export const TEMPLATE = {
  /** The system prompt. @default the agent's */
  systemPrompt: string().optional(),
  /** The tools that the model may call. @default the agent's */
  tools: checked<readonly Tool[]>(checkTools, 'an array of tools').optional(),
};

const SESSION = {
  ...TEMPLATE,
  ...TOOL_CALLS,
  /** How tokens are chosen, over the agent's, option by option. */
  sampling: SAMPLING_OPTIONS.optional(),
  /**
   * A conversation to continue. Its first message may be a system message, which is then the session's system prompt; with a
   * `systemPrompt` beside it, it is `INVALID_ARGUMENT`. @default none
   */
  messages: value<readonly ConversationMessage[]>(Array.isArray, 'an array of messages').optional(),
  /** Shorten the conversation when it gets long; `true` for the defaults. @default false */
  compaction: switchable(COMPACTION_OPTIONS).default(false),
  /** False prefills the template and bypasses the cache. @default true */
  templateCache: boolean().default(true),
  /** Whose session it is: cached templates of one tenant never serve another. @default none, which is a tenant of its own */
  tenant: text().optional(),
  /** Aborts the start with `ABORTED`; not the session. */
  signal: abortSignal().optional(),
};

/** How a session is opened. */
export interface SessionOptions extends OptionsOf<typeof SESSION> {}

const SAVE = {
  /**
   * Keep the KV state too, in a file beside it (`<path>.kv`, as large as the state): the restored session then continues without
   * prefilling its conversation again. @default false
   */
  state: boolean().default(false),
  /** Ends it with `ABORTED`. */
  signal: abortSignal().optional(),
};

/** How a session is saved. */
export interface SaveOptions extends OptionsOf<typeof SAVE> {}

export const SAVE_OPTIONS = group(SAVE);

const { messages: _, ...RESTORE } = SESSION;

export const SESSION_OPTIONS: Group<SessionOptions, unknown> = group(SESSION);
export const RESTORE_OPTIONS: Group<Omit<SessionOptions, 'messages'>, unknown> = group(RESTORE);

/** For those who look for them elsewhere. */
export const IN_CREATE_SESSION: Place = { names: Object.keys(SESSION), where: 'in `createSession`' };

const ELSEWHERE: readonly Place[] = [
  IN_SAMPLING,
  IN_SEND,
  {
    names: ['model', 'cache', 'mcpServers', 'logger', 'onProgress', 'debug', 'reproducible', 'maxQueueSize'],
    where: 'in `AgentServer.initialize`',
  },
  { names: Object.keys(MODEL), where: 'in `model` of `AgentServer.initialize`' },
  { names: Object.keys(CACHE), where: 'in `cache` of `AgentServer.initialize`' },
];

/** @throws HeadstartError `CONFIG_INVALID`, `INVALID_ARGUMENT` (in `sampling`). */
export function checkSessionOptions(
  options: SessionOptions,
  schema: Group<SessionOptions, unknown> = SESSION_OPTIONS,
): void {
  checkedOptions(schema, options, { where: 'the session options', places: ELSEWHERE });
}
