import { combinedSignal, throwIfAborted } from '../abort.js';
import { type ChatHost, findTemplate } from '../chat/chat-host.js';
import { readConversation } from '../chat/conversation.js';
import type { ConversationSequence } from '../chat/conversation-sequence.js';
import { resolveToolOptions } from '../chat/send-options.js';
import { HeadstartError } from '../errors.js';
import { mergeSampling, requireSampling } from '../generate/sampling.js';
import { definedOptions } from '../options.js';
import type { ChatMessage } from '../prompt/messages.js';
import { requireToolChoice } from '../tools/tool.js';
import type { OpenSessions } from './open-sessions.js';
import { readCheckpoint, readSession, type SavedSession } from './persistence/saved-session.js';
import { savedTools } from './persistence/saved-tools.js';
import { Session } from './session.js';
import { checkSessionOptions, RESTORE_OPTIONS, type SessionOptions } from './session-options.js';

/** Copies the options, so that later changes to the caller's objects have no effect. */
function copyOptions({ signal, ...rest }: SessionOptions): SessionOptions & { signal: AbortSignal } {
  const { compaction, sampling, toolChoice } = rest;
  return {
    ...rest,
    ...(typeof compaction === 'object' && { compaction: { ...compaction } }),
    ...(sampling !== undefined && { sampling: { ...sampling } }),
    ...(typeof toolChoice === 'object' && { toolChoice: { ...toolChoice } }),
    signal: combinedSignal(signal),
  };
}

/** The parts of an agent that are needed to open a session. */
export interface SessionHost extends ChatHost {
  onOpened: (session: Session, sequence: ConversationSequence) => void;
  onClosed: (session: Session) => void;
}

/** A session that was read from a file. */
export interface RestoredSession {
  id: string;
  messages: readonly ChatMessage[];
}

/**
 * Opens a session with its template ready in the KV cache.
 *
 * @throws HeadstartError as `AgentServer.createSession`.
 */
export async function openSession(
  host: SessionHost,
  requested: SessionOptions,
  restored?: RestoredSession,
): Promise<Session> {
  const startedAt = performance.now();
  checkSessionOptions(requested);
  host.requireOpen();
  throwIfAborted(requested.signal);
  const options = copyOptions(requested);
  const { defaults, templates, contextSize, model } = host;
  const { systemPrompt, messages } = restored
    ? { systemPrompt: options.systemPrompt, messages: restored.messages }
    : readConversation(options.messages ?? [], options.systemPrompt);
  const { source, tools, boundary } = await findTemplate(host, {
    ...options,
    systemPrompt,
    messages,
    isRestored: restored !== undefined,
  });
  requireToolChoice(resolveToolOptions(contextSize, options).toolChoice, tools);
  if (options.sampling !== undefined) {
    await requireSampling(model, mergeSampling(defaults.sampling, options.sampling));
  }
  throwIfAborted(options.signal);
  host.requireOpen();
  const session = await Session.start(
    host,
    {
      id: restored?.id,
      source,
      tools,
      template: boundary.tokens,
      templateReason: boundary.reason,
      useCache: options.templateCache ?? true,
      tenant: options.tenant,
      breakpoints: boundary.breakpoints,
      messages,
      sampling: mergeSampling(defaults.sampling, options.sampling),
      options,
      compaction: options.compaction === true ? {} : options.compaction || undefined,
      onMismatch: (mismatched) => templates.forget(mismatched),
      onOpened: host.onOpened,
      onClosed: host.onClosed,
    },
    options.signal,
    startedAt,
  );
  try {
    host.requireOpen();
  } catch (error) {
    await session.close();
    throw error;
  }
  return session;
}

/**
 * Opens a saved session, with its saved id.
 *
 * @param reserve as {@link OpenSessions.reserve}
 * @throws HeadstartError as `AgentServer.restoreSession`.
 */
export async function restoreSession(
  host: SessionHost,
  path: string,
  options: Omit<SessionOptions, 'messages'>,
  reserve: OpenSessions['reserve'],
): Promise<Session> {
  checkSessionOptions(options, RESTORE_OPTIONS);
  const saved = await readSession(path);
  const endReservation = reserve(saved.id);
  if (endReservation === undefined) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected a session that is not open, but session ${saved.id} is open already: use it, close it, or ` +
        '`fork()` it',
    );
  }
  try {
    return await openSaved(host, path, options, saved);
  } finally {
    endReservation();
  }
}

async function openSaved(
  host: SessionHost,
  path: string,
  options: Omit<SessionOptions, 'messages'>,
  saved: SavedSession,
): Promise<Session> {
  const tools = await savedTools(saved.tools, { agent: host.defaults.tools, mcp: host.mcp }, options);
  const checkpoint = await readCheckpoint(path, saved);
  const { group } = host.cache.keyring(options.tenant);
  if (saved.replies?.group === group) {
    host.sampledReplies.addRecords(group, saved.replies.records, { tenant: options.tenant });
  }
  let adopted = false;
  try {
    const session = await openSession(
      host,
      {
        ...(saved.systemPrompt !== undefined && { systemPrompt: saved.systemPrompt }),
        ...saved.options,
        ...definedOptions(options),
        tools,
      },
      saved,
    );
    if (checkpoint !== undefined && host.cache.keyring(options.tenant).keyOf(checkpoint.tokens) === checkpoint.key) {
      session.adopt({ ...checkpoint, end: () => checkpoint.state?.close() });
      adopted = true;
    }
    return session;
  } finally {
    if (!adopted) {
      checkpoint?.state?.close();
    }
  }
}
