import { randomUUID } from 'node:crypto';
import { combinedSignal, eitherSignal } from '../abort.js';
import type { PartQueue } from '../generate/part-queue.js';
import { type ReplyStream, type StreamEnd, StreamedTask } from '../generate/reply-stream.js';
import { prepareFormat } from '../generate/response-format.js';
import { mergeSampling } from '../generate/sampling.js';
import type { Reply, StreamPart } from '../generate/stream-parts.js';
import { UsageCounter } from '../generate/usage-counter.js';
import { checked, group, type OptionsOf, text, value } from '../option-types.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { TemplateSource } from '../prompt/renderer.js';
import type { Boundary } from '../prompt/template-boundary.js';
import type { Schema, SchemaValue } from '../tools/schemas/schema.js';
import { checkTools, type Tool } from '../tools/tool.js';
import { type ChatHost, findTemplate } from './chat-host.js';
import { readConversation } from './conversation.js';
import { ConversationSequence } from './conversation-sequence.js';
import { type ConversationMessage, invalidMessage } from './message-input.js';
import { resolveGeneration, SEND, type SendOptions } from './send-options.js';
import { Turn, type TurnRequest } from './turn.js';
import { requestError } from './turn-errors.js';
import { TurnEvents } from './turn-events.js';
import { TurnLock } from './turn-lock.js';
import { prepareToolRun, requireOneGoal } from './turn-request.js';

const CHAT = {
  ...SEND,
  /**
   * The whole conversation: an optional system message, then the messages up to the user message or the tool results
   * that the model answers.
   */
  messages: value<readonly ConversationMessage[]>(Array.isArray, 'an array of messages'),
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
};

/** One request with its whole conversation. */
export interface ChatRequest<S extends Schema = Schema>
  extends Omit<OptionsOf<typeof CHAT>, 'messages' | 'responseFormat'>,
    Pick<SendOptions<S>, 'responseFormat'> {
  /** The whole conversation: see the option of this name. */
  messages: readonly ConversationMessage[];
}

export const CHAT_OPTIONS = group(CHAT);

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
  const generation = resolveGeneration(request, CHAT_OPTIONS);
  requireOneGoal(request);
  const { systemPrompt, messages } = readChat(request.messages);
  const signal = combinedSignal(closing, leaveSignal, request.signal);
  const usage = new UsageCounter();
  const stopDropping = queue.closeOnAbort(signal);
  let events: TurnEvents | undefined;
  try {
    const { tools: requested } = request;
    const template = await findTemplate(host, { systemPrompt, tools: requested, signal });
    const session = { id: randomUUID(), messages };
    const { toolRun, ...options } = prepareToolRun(host.contextSize, [request], {
      tools: template.tools,
      session,
      signal: eitherSignal(signal, generation.deadline),
    });
    const sampling = mergeSampling(host.defaults.sampling, generation.sampling);
    const { reasoning = true } = request;
    const format = await prepareFormat(request.responseFormat);
    const turn = { messages, generation, sampling, ...options, toolRun, format, reasoning, signal, usage };
    events = new TurnEvents({ turnId: toolRun.turnId, sessionId: session.id, model: host.model.path });
    return await runTurn(host, request, template, turn, { queue, events });
  } catch (error) {
    const limit = { deadline: generation.deadline, timeoutMs: request.timeoutMs, signal };
    const reported = requestError(error, 'request', { closing, limit, usage });
    events?.end({ error: reported });
    throw reported;
  } finally {
    stopDropping();
  }
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
function readChat(input: readonly ConversationMessage[]): {
  systemPrompt: string | undefined;
  messages: ChatMessage[];
} {
  const conversation = readConversation(input, undefined);
  const last = conversation.messages.at(-1);
  if (last === undefined || last.role === 'assistant') {
    throw invalidMessage('Expected `messages` to end with a user message or the results of tool calls');
  }
  return conversation;
}

async function runTurn(
  host: ChatHost,
  { tenant, affinity }: ChatRequest,
  { source, boundary }: { source: TemplateSource; boundary: Boundary },
  request: TurnRequest,
  { queue, events }: { queue: PartQueue<StreamPart>; events: TurnEvents },
): Promise<StreamEnd<StreamPart, Reply>> {
  const { model, renderer, messageEnds, contextSize, engine, cache } = host;
  const { tokens: template, reason: templateReason, breakpoints } = boundary;
  const setup = {
    engine,
    cache,
    template,
    templateReason,
    breakpoints,
    tenant,
    affinity,
    useCache: true,
    kind: 'request' as const,
  };
  const sequence = new ConversationSequence(setup);
  const lock = new TurnLock(host.lock, sequence);
  const services = { model, renderer, messageEnds, contextSize, source, sequence, lock, queue };
  try {
    await lock.enter(request.toolRun.signal);
    events.begin();
    const turn = new Turn({ ...services, compaction: undefined, onPrompt: () => undefined }, request);
    const end = await turn.run();
    await lock.untilRead(queue, request.signal);
    events.end(end.result);
    return end;
  } catch (error) {
    sequence.afterFailure();
    throw error;
  } finally {
    lock.leave();
    sequence.abandon();
  }
}
