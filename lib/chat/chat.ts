import { randomUUID } from 'node:crypto';
import { orAborted, throwIfAborted } from '../abort.js';
import type { PrefixSetup } from '../cache/prefix-setup.js';
import type { PartQueue } from '../generate/part-queue.js';
import type { PrefillProgress } from '../generate/prefill-progress.js';
import { type ReplyStream, type StreamEnd, StreamedTask } from '../generate/reply-stream.js';
import { prepareFormat } from '../generate/response-format.js';
import type { Reply, StreamPart } from '../generate/stream-parts.js';
import { callable, checked, group, type OptionsOf, text, value } from '../option-types.js';
import type { ReplyOptions, TemplateSource } from '../prompt/renderer.js';
import type { Boundary } from '../prompt/template-boundary.js';
import type { Schema, SchemaValue } from '../tools/schemas/schema.js';
import { checkTools, type Tool } from '../tools/tool.js';
import { type CacheHint, checkCacheHints, hintsOf } from './cache-hints.js';
import { type ChatHost, templateSource } from './chat-host.js';
import { ConversationSequence } from './conversation-sequence.js';
import { invalidMessage } from './invalid-message.js';
import type { RequestMessage } from './message-input.js';
import type { PromptContents } from './prompt-places.js';
import { type ReplyLimits, type ReplyOwner, readLimits, runReply } from './reply-run.js';
import { SEND, type SendOptions } from './send-options.js';
import { type RequestConversation, readTolerantHistory } from './tolerant-history.js';
import { Turn } from './turn.js';
import { TurnLock } from './turn-lock.js';
import { promptOptions, type TurnRequest, turnRequest } from './turn-request.js';

const CHAT = {
  ...SEND,
  /**
   * The whole conversation. It must end with a message that the model answers: a user message, a system message or a
   * tool result. Histories of other APIs are accepted: system messages may stand anywhere, unknown fields are ignored,
   * and missing results are replaced.
   */
  messages: value<readonly RequestMessage[]>(Array.isArray, 'an array of messages'),
  /**
   * The tools that the model may call. Tools with `execute` run as in a session. Calls of other tools are returned.
   * @default the agent's tools
   */
  tools: checked<readonly Tool[]>(checkTools, 'an array of tools').optional(),
  /** The tenant of the request. Different tenants never share cached tokens. @default none */
  tenant: text().optional(),
  /**
   * The client's name for the conversation, for example a session id or a cache key. If several earlier conversations
   * of the tenant share equally many tokens with the prompt, the request continues the one with this name. @default none
   */
  affinity: text().optional(),
  /**
   * At most 8 places up to which later requests probably have the same prompt: `{ message }`, `{ tool }` (indices) or
   * `{ system: true }`. If the memory cannot be trimmed, a state is kept at each place. Hints of tools and of the
   * system prompt also pin the template. A place that does not exist has no effect. @default none
   */
  cacheHints: checked<readonly CacheHint[]>(checkCacheHints, 'an array of at most 8 cache hints').optional(),
  /**
   * Called with the number of tokens of the first prompt, as soon as the prompt is known to fit into the context. The
   * request may then still wait for a sequence. @default none
   */
  onPrompt: callable<(tokens: number) => void>().optional(),
  /**
   * Called while the model reads the first prompt: when the longest reusable prefix is loaded, and after each decode of
   * the prompt. The last call has `processed` equal to `total`. If the function throws, the request fails with this
   * error. @default none
   */
  onPrefill: callable<(progress: PrefillProgress) => void>().optional(),
};

/** One request with its whole conversation. */
export interface ChatRequest<S extends Schema = Schema>
  extends Omit<OptionsOf<typeof CHAT>, 'messages' | 'responseFormat'>,
    Pick<SendOptions<S>, 'responseFormat'> {
  /** The whole conversation: see the option of this name. */
  messages: readonly RequestMessage[];
}

export const CHAT_OPTIONS = group(CHAT);

/** What a program can do if the prompt of a request is too long. */
const REMEDY =
  'Shorten or leave out messages, lower `maxToolResultLength` if tool results fill the context, or raise `contextSize`.';

/**
 * Answers a conversation that the caller keeps.
 *
 * @param closing aborts when the agent is closed
 * @throws HeadstartError as `AgentServer.chat`.
 */
export function chat<S extends Schema>(
  host: ChatHost,
  request: ChatRequest<S>,
  closing: AbortSignal,
): ReplyStream<StreamPart, Reply<SchemaValue<S>>> {
  const task = new StreamedTask<StreamPart, Reply>((queue, leaveSignal) =>
    answer(host, request, closing, queue, leaveSignal),
  );
  return task as ReplyStream<StreamPart, Reply<SchemaValue<S>>>;
}

async function answer(
  host: ChatHost,
  request: ChatRequest,
  closing: AbortSignal,
  queue: PartQueue<StreamPart>,
  leaveSignal: AbortSignal,
): Promise<StreamEnd<StreamPart, Reply>> {
  host.requireOpen();
  const epoch = host.engine.forgets.count;
  const arrivedAt = host.engine.now();
  const limits = readLimits(request, CHAT_OPTIONS, closing, leaveSignal);
  const conversation = readChat(request.messages);
  return runReply(ownerOf(request), limits, queue, async () => {
    const { source, turn } = await readRequest(host, request, conversation, limits);
    const hints = hintsOf(host, request, source);
    const find = () => hints?.template() ?? host.templates.find(source);
    const boundary = await host.cache.expecting(request.tenant, find);
    const arrival = { hasTools: (source.tools?.length ?? 0) > 0, at: arrivedAt };
    const sequence = requestSequence(host, request, boundary, { epoch, arrival, isHinted: hints?.isOfTemplate });
    const lock = new TurnLock(host.lock, sequence);
    const services = {
      ...host,
      source,
      sequence,
      lock,
      queue,
      remedy: REMEDY,
      hints,
      mayOmitToolRounds: true,
      onPrefill: request.onPrefill,
    };
    return new Turn(services, turn);
  });
}

function ownerOf({ onPrompt }: ChatRequest): ReplyOwner<Turn> {
  return {
    what: 'request',
    owner: 'agent',
    onPrepared: (turn) => turn.prepare(onPrompt),
    end: (sequence) => sequence.abandon(),
  };
}

/** Makes the sequence of a request, which holds no tokens and has no id yet. */
export function requestSequence(
  host: ChatHost,
  { tenant, affinity }: Pick<ChatRequest, 'tenant' | 'affinity'>,
  { tokens: template, reason: templateReason, breakpoints }: Boundary,
  more: Pick<PrefixSetup, 'epoch' | 'arrival' | 'isHinted'> = {},
): ConversationSequence {
  const prefix = { template, templateReason, breakpoints, tenant, affinity, useCache: true };
  return new ConversationSequence({ ...host, ...prefix, ...more, kind: 'request' });
}

/** The first prompt of a request, and the conversation from which the prompt was rendered. */
export interface FirstPrompt extends PromptContents {
  options: ReplyOptions;
}

/**
 * Counts the tokens of a request's first prompt, with the generation prompt.
 *
 * @param signal aborts the count
 * @throws HeadstartError as `ChatModel.countTokens`.
 */
export async function countPromptTokens(host: ChatHost, request: ChatRequest, signal: AbortSignal): Promise<number> {
  const limits = readLimits(request, CHAT_OPTIONS, signal);
  return (await firstPrompt(host, request, limits)).prompt.tokens.length;
}

/**
 * Renders the text of a request's first prompt, with the generation prompt. Earlier replies appear as the chat template
 * writes them.
 *
 * @param signal aborts the call
 * @throws HeadstartError as `AgentServer.renderPrompt`.
 */
export async function renderPromptText(host: ChatHost, request: ChatRequest, signal: AbortSignal): Promise<string> {
  const { source, turn, options } = await readFirstTurn(host, request, readLimits(request, CHAT_OPTIONS, signal));
  return (await orAborted(host.renderer.text(source, turn.messages, options), turn.signal)).text;
}

/**
 * Renders the first prompt of a request, without a reply.
 *
 * @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`, `ABORTED`, and the errors of rendering.
 */
export async function firstPrompt(host: ChatHost, request: ChatRequest, limits: ReplyLimits): Promise<FirstPrompt> {
  const { source, turn, options } = await readFirstTurn(host, request, limits);
  const { messages, indices, signal } = turn;
  const replyScope = host.engine.reproducible ? undefined : { group: host.cache.keyring(request.tenant).group };
  const prompt = await orAborted(host.sampledReplies.tokens({ replyScope }, source, messages, options), signal);
  return { prompt, source, messages, indices, options };
}

/** @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`, `ABORTED`. */
async function readFirstTurn(host: ChatHost, request: ChatRequest, limits: ReplyLimits) {
  const { source, turn } = await readRequest(host, request, readChat(request.messages), limits);
  const options = promptOptions(turn, await prepareFormat(turn.responseFormat), 0);
  throwIfAborted(turn.signal);
  return { source, turn, options };
}

/** @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`. */
async function readRequest(
  host: ChatHost,
  request: ChatRequest,
  { systemPrompt, messages, indices }: RequestConversation,
  limits: ReplyLimits,
): Promise<{ source: TemplateSource; turn: TurnRequest }> {
  const { contextSize, defaults } = host;
  const { signal } = limits;
  const { source, tools } = await templateSource(host, { systemPrompt, tools: request.tools, messages, signal });
  const session = { id: randomUUID(), messages };
  const { sampling } = defaults;
  const turn = turnRequest(request, limits, { messages, source, tools, session, sampling, contextSize });
  return { source, turn: { ...turn, indices } };
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
function readChat(input: readonly RequestMessage[]): RequestConversation {
  const conversation = readTolerantHistory(input);
  const last = conversation.messages.at(-1);
  if (last === undefined) {
    throw invalidMessage('Expected `messages` to have a message of the user, got none');
  }
  if (last.role === 'assistant') {
    throw invalidMessage(
      'Expected `messages` to end with a message that the model answers, got a reply at the end: leave the reply out, ' +
        'because the model cannot continue it',
    );
  }
  return conversation;
}
