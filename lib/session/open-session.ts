import { ownSignal, throwIfAborted } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { mergeSampling, requireSampling } from '../generate/sampling.js';
import { given } from '../options.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { TemplateSource } from '../prompt/renderer.js';
import type { Boundary } from '../prompt/template-boundary.js';
import type { Templates } from '../prompt/templates.js';
import { stableToolOrder } from '../prompt/tool-order.js';
import type { SamplingOptions } from '../sampling-options.js';
import type { McpServers } from '../tools/mcp/mcp-servers.js';
import { requireToolChoice, type Tool, ToolSet } from '../tools/tool.js';
import { readConversation } from './conversation.js';
import type { ConversationSequence } from './conversation-sequence.js';
import type { OpenSessions } from './open-sessions.js';
import { resolveToolOptions } from './options.js';
import { readCheckpoint, readSession, type SavedSession } from './persistence/saved-session.js';
import { savedTools } from './persistence/saved-tools.js';
import { Session } from './session.js';
import { checkSessionOptions, RESTORE_OPTIONS, type SessionOptions } from './session-options.js';
import type { SessionServices } from './session-setup.js';
import { asAborted } from './turn-errors.js';

/** What becomes of the caller's own objects is of no account. */
function copyOptions({ signal, ...rest }: SessionOptions): SessionOptions & { signal: AbortSignal } {
  const { compaction, sampling, toolChoice } = rest;
  return {
    ...rest,
    ...(typeof compaction === 'object' && { compaction: { ...compaction } }),
    ...(sampling !== undefined && { sampling: { ...sampling } }),
    ...(typeof toolChoice === 'object' && { toolChoice: { ...toolChoice } }),
    signal: ownSignal(signal),
  };
}

/** What sessions have that name nothing else. */
export interface SessionDefaults {
  systemPrompt: string | undefined;
  tools: ToolSet;
  sampling: SamplingOptions;
}

/** What opening a session takes. */
export interface SessionHost extends SessionServices {
  templates: Templates;
  defaults: SessionDefaults;
  /** Tools that servers listed are put in an order of our own. */
  stableTools: boolean;
  /** Whose tools sessions have beside their own. */
  mcp: McpServers;
  /** Throws where no session may be opened any more. */
  requireOpen: () => void;
  onOpened: (session: Session, sequence: ConversationSequence) => void;
  onClosed: (session: Session) => void;
}

/** What a session from a file brings along. */
export interface RestoredSession {
  id: string;
  messages: readonly ChatMessage[];
}

/**
 * Opens a session with its template ready in the KV cache.
 *
 * @throws HeadstartError as `AgentServer.createSession`.
 */
export async function openSession(host: SessionHost, asked: SessionOptions, past?: RestoredSession): Promise<Session> {
  const begin = performance.now();
  checkSessionOptions(asked);
  host.requireOpen();
  throwIfAborted(asked.signal);
  const options = copyOptions(asked);
  const { defaults, templates, contextSize, model, lock } = host;
  const { systemPrompt, messages } = past
    ? { systemPrompt: options.systemPrompt, messages: past.messages }
    : readConversation(options.messages ?? [], options.systemPrompt);
  const { source, tools, boundary } = await findTemplate(host, { ...options, systemPrompt }, past !== undefined);
  requireToolChoice(resolveToolOptions(contextSize, options).toolChoice, tools);
  if (options.sampling !== undefined) {
    await requireSampling(model, mergeSampling(defaults.sampling, options.sampling));
  }
  throwIfAborted(options.signal);
  host.requireOpen();
  const leave = await lock.read(options.signal);
  const session = await Session.start(
    host,
    {
      id: past?.id,
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
      signal: options.signal,
      onMismatch: (mismatched) => templates.forget(mismatched),
      onOpened: host.onOpened,
      onClosed: host.onClosed,
    },
    begin,
  )
    .catch((error: unknown) => {
      throw asAborted(error, 'Opening the session');
    })
    .finally(leave);
  try {
    host.requireOpen();
  } catch (error) {
    await session.close();
    throw error;
  }
  return session;
}

/**
 * What sessions with this system prompt and these tools share.
 *
 * @param isWhole the options say it all, what they leave out included: a saved session's
 * @throws HeadstartError `CONTEXT_FULL`, `SCHEMA_INVALID`, and what rendering throws.
 */
export async function findTemplate(
  {
    defaults,
    stableTools,
    templates,
    contextSize,
    mcp,
  }: Pick<SessionHost, 'defaults' | 'stableTools' | 'templates' | 'contextSize' | 'mcp'>,
  options: { systemPrompt?: string | undefined; tools?: readonly Tool[] | undefined; signal?: AbortSignal | undefined },
  isWhole = false,
): Promise<{ source: TemplateSource; tools: ToolSet; boundary: Boundary }> {
  const own = options.tools === undefined ? defaults.tools : await ToolSet.prepare(options.tools);
  const tools = isWhole ? own : await mcp.extend(own, options.signal);
  const { definitions } = tools;
  const source: TemplateSource = {
    systemPrompt: options.systemPrompt ?? (isWhole ? undefined : defaults.systemPrompt),
    tools: stableTools ? stableToolOrder(definitions) : definitions,
  };
  const boundary = await templates.find(source);
  if (boundary.tokens.length >= contextSize) {
    throw new HeadstartError(
      'CONTEXT_FULL',
      `The template has ${boundary.tokens.length} tokens and leaves no room in a context of ${contextSize}: shorten the system prompt or tools, or raise \`contextSize\``,
    );
  }
  return { source, tools, boundary };
}

/**
 * Opens a session that was saved, under its old id.
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
  const done = reserve(saved.id);
  if (done === undefined) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `The session ${saved.id} is open already: \`fork()\` makes another of it`,
    );
  }
  try {
    return await openSaved(host, path, options, saved);
  } finally {
    done();
  }
}

async function openSaved(
  host: SessionHost,
  path: string,
  options: Omit<SessionOptions, 'messages'>,
  saved: SavedSession,
): Promise<Session> {
  const tools = await savedTools(saved.tools, { own: host.defaults.tools, mcp: host.mcp }, options);
  const past = await readCheckpoint(path, saved);
  let adopted = false;
  try {
    const session = await openSession(
      host,
      {
        ...(saved.systemPrompt !== undefined && { systemPrompt: saved.systemPrompt }),
        ...saved.options,
        ...given(options),
        tools,
      },
      saved,
    );
    if (past !== undefined && host.cache.keyOf(past.tokens, { tenant: options.tenant }) === past.key) {
      session.adopt({ ...past, templateTokens: session.report.templateTokens });
      adopted = true;
    }
    return session;
  } finally {
    if (!adopted) {
      past?.state?.close();
    }
  }
}
