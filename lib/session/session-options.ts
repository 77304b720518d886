// The options of a session. If a program passes an option of another call, the error names that call.
import { CACHE } from '../cache/cache-options.js';
import type { ConversationMessage } from '../chat/message-input.js';
import { IN_SEND, TOOL_CALLS } from '../chat/send-options.js';
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

/** The options that make up the template. An agent has them too, as defaults for its sessions. */
export const TEMPLATE = {
  /** The system prompt. @default the agent's system prompt */
  systemPrompt: string().optional(),
  /** The tools that the model may call. @default the agent's tools */
  tools: checked<readonly Tool[]>(checkTools, 'an array of tools').optional(),
};

const SESSION = {
  ...TEMPLATE,
  ...TOOL_CALLS,
  /** Sampling options. Each one overrides the same option of the agent. */
  sampling: SAMPLING_OPTIONS.optional(),
  /**
   * The messages of a conversation to continue. If the first message is a system message, it is the session's system
   * prompt. A system message together with the option `systemPrompt` is `INVALID_ARGUMENT`. @default none
   */
  messages: value<readonly ConversationMessage[]>(Array.isArray, 'an array of messages').optional(),
  /**
   * Replaces older turns by a summary when the conversation becomes long. `true` means the default options.
   * @default false
   */
  compaction: switchable(COMPACTION_OPTIONS).default(false),
  /**
   * Whether the session reuses cached templates and other conversations. With `false` it prefills its template and its
   * messages, and reuses only its own KV state. @default true
   */
  templateCache: boolean().default(true),
  /**
   * The tenant of the session. Different tenants never share cached templates. All sessions without a tenant share
   * their cached templates. @default none
   */
  tenant: text().optional(),
  /** Aborts the opening of the session, with `ABORTED`. Has no effect on an open session. */
  signal: abortSignal().optional(),
};

/** How a session is opened. */
export interface SessionOptions extends OptionsOf<typeof SESSION> {}

const SAVE = {
  /**
   * Also saves the KV state, in the file `<path>.kv`. The file is as large as the state in the KV cache. The restored
   * session then continues without another prefill of its conversation. @default false
   */
  state: boolean().default(false),
  /** Aborts the save, with `ABORTED`. */
  signal: abortSignal().optional(),
};

/** How a session is saved. */
export interface SaveOptions extends OptionsOf<typeof SAVE> {}

export const SAVE_OPTIONS = group(SAVE);

const { messages: _, ...RESTORE } = SESSION;

export const SESSION_OPTIONS: Group<SessionOptions, unknown> = group(SESSION);
export const RESTORE_OPTIONS: Group<Omit<SessionOptions, 'messages'>, unknown> = group(RESTORE);

/** The hint for session options that were passed to another call. */
export const IN_CREATE_SESSION: Place = { names: Object.keys(SESSION), where: 'in `createSession`' };

const OTHER_PLACES: readonly Place[] = [
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
  checkedOptions(schema, options, { where: 'the session options', places: OTHER_PLACES });
}
