// A random program of one agent with few sequences and little memory: requests with and without tools, sessions, forks,
// several tenants, cache hints, stop strings, aborts, readers that leave, changes of adapters, calls of `forget`, and
// restarts with conversations on disk.
import { AsyncLocalStorage } from 'node:async_hooks';
import type {
  AgentServer,
  CacheHint,
  ChatMessage,
  ChatRequest,
  LoraConfig,
  MessageInput,
  Reply,
  SendOptions,
  Session,
  StreamPart,
  Tool,
  ToolCall,
} from 'llama-headstart';
import type { ConversationPrompt } from 'llama-headstart/internal';
import { expect } from 'vitest';
import { lamp } from './lamp.js';
import { assistant, user } from './messages.js';

/** A reply with the prompt of its last step. A cold run over this prompt must have the same logits. */
export interface CheckedReply {
  reply: Reply;
  prompt: Int32Array;
  /** The index of the adapters. Undefined if the test does not know it, because the conversation was forgotten. */
  adapters: number | undefined;
}

/** A conversation that a later request or session can continue. */
interface Conversation {
  messages: readonly ChatMessage[];
  tenant: string;
  affinity: string | undefined;
  /** The calls at the end that have no result. */
  pending: readonly ToolCall[];
  tools: readonly Tool[];
}

interface OpenSession extends Pick<Conversation, 'tenant' | 'tools'> {
  session: Session;
}

const TENANTS = ['one', 'other'] as const;
const WORDS = ['chain', 'wheel', 'brake', 'saddle', 'price', 'repair', 'today', 'again'];
const TOOL_SETS: readonly (readonly Tool[])[] = [[], [lamp(() => 'It is on.')], [lamp(undefined, 'switch')]];

/** The prompts of a request, one for each step and each repeated render. */
const promptsOfRequest = new AsyncLocalStorage<ConversationPrompt[]>();

function recordPrompts({ sampledReplies }: AgentServer): void {
  const prompt = sampledReplies.prompt.bind(sampledReplies);
  sampledReplies.prompt = async (...args) => {
    const rendered = await prompt(...args);
    promptsOfRequest.getStore()?.push(rendered);
    return rendered;
  };
}

export interface ProgramOptions {
  start: () => Promise<AgentServer>;
  /** The sets of adapters. The first one is that of a new agent. */
  adapters: readonly (readonly LoraConfig[])[];
  below: (max: number) => number;
  steps: number;
}

/** Runs a program, and returns its replies. The last agent stays open. */
export async function runProgram(options: ProgramOptions): Promise<CheckedReply[]> {
  return new Program(options, await options.start()).run();
}

class Program {
  readonly #options: ProgramOptions;
  readonly #replies: CheckedReply[] = [];
  readonly #conversations: Conversation[] = [];
  /** The index of the adapters of each key group. */
  readonly #adaptersOf = new Map<string, number>();
  #agent: AgentServer;
  #sessions: OpenSession[] = [];

  constructor(options: ProgramOptions, agent: AgentServer) {
    this.#options = options;
    this.#agent = agent;
  }

  async run(): Promise<CheckedReply[]> {
    const { steps } = this.#options;
    recordPrompts(this.#agent);
    await this.#learnGroups();
    for (let step = 0; step < steps; step++) {
      await Promise.all(Array.from({ length: 1 + this.#below(3) }, () => this.#action().call(this)));
      this.#expectBounded();
      if (step === Math.floor(steps / 4)) {
        await this.#agent.setLoras(this.#options.adapters[1] ?? []);
      }
      if (step === Math.floor(steps / 2) || this.#below(12) === 0) {
        await this.#restart();
      }
      if (step === Math.floor(steps / 3) || this.#below(12) === 0) {
        await this.#forgetAlone(TENANTS[this.#below(2)] as string);
      }
    }
    return this.#replies;
  }

  #below(max: number): number {
    return this.#options.below(max);
  }

  #action(): () => Promise<void> {
    const ofSessions = [this.#openSession, this.#send, this.#send, this.#fork, this.#close];
    const rare = [this.#setAdapters, this.#forget];
    const all = this.#below(10) === 0 ? rare : ofSessions;
    const action = all[this.#below(2 * all.length)] ?? this.#request;
    const needsSession = ofSessions.slice(1).includes(action);
    return needsSession && this.#sessions.length === 0 ? this.#request : action;
  }

  /** Finds the key group of each tenant and each set of adapters. */
  async #learnGroups(): Promise<void> {
    for (const index of [...this.#options.adapters.keys()].reverse()) {
      await this.#agent.setLoras(this.#options.adapters[index] ?? []);
      for (const tenant of TENANTS) {
        const prompts: ConversationPrompt[] = [];
        const request = { messages: [user('Hi')], tenant, maxTokens: 1 };
        await promptsOfRequest.run(prompts, () => this.#agent.chat(request).result);
        this.#adaptersOf.set(prompts[0]?.scope?.group as string, index);
      }
    }
  }

  async #request(): Promise<void> {
    const request = this.#nextRequest();
    await this.#note(request, this.#withHints(request), (options, signal) => this.#agent.chat({ ...options, signal }));
  }

  /** Returns a new conversation, or a continuation or branch of an earlier conversation. */
  #nextRequest(): Conversation {
    const words = Array.from({ length: 1 + this.#below(12) }, () => WORDS[this.#below(WORDS.length)]).join(' ');
    const earlier = this.#conversations[this.#below(this.#conversations.length + 2)];
    if (earlier === undefined) {
      const affinity = this.#below(3) === 0 ? undefined : `conversation ${this.#below(4)}`;
      const tools = TOOL_SETS[this.#below(TOOL_SETS.length)] ?? [];
      const tenant = TENANTS[Number(this.#below(4) === 0)] as string;
      return { messages: [user(words)], tenant, affinity, tools, pending: [] };
    }
    const users = earlier.messages.flatMap(({ role }, index) => (role === 'user' ? [index] : []));
    const isBranch = this.#below(3) === 0;
    const kept = isBranch ? earlier.messages.slice(0, users[this.#below(users.length)]) : earlier.messages;
    const results = isBranch ? [] : earlier.pending.map(resultOf);
    const isLoop = results.length > 0 && this.#below(3) > 0;
    return { ...earlier, messages: [...kept, ...results, ...(isLoop ? [] : [user(words)])], pending: [] };
  }

  #withHints({ messages, tenant, affinity, tools }: Conversation): ChatRequest {
    const cacheHints: CacheHint[] = [{ message: this.#below(messages.length + 1) }];
    if (this.#below(2) === 0) {
      cacheHints.push(tools.length > 0 && this.#below(2) === 0 ? { tool: 0 } : { system: true });
    }
    return { messages, tenant, tools, cacheHints, ...(affinity !== undefined && { affinity }) };
  }

  #replyOptions(tools: readonly Tool[]): SendOptions {
    const isCall = tools.length > 0 && this.#below(2) === 0;
    return {
      logProbabilities: 3,
      maxParallelTools: 1,
      parallelToolCalls: false,
      maxSteps: 2,
      toolChoice: tools.length === 0 ? 'auto' : isCall ? 'required' : 'none',
      maxTokens: isCall ? 80 : 1 + this.#below(10),
      ...(this.#below(4) === 0 && { stop: [' ', 'e', 'in'] }),
      ...(this.#below(2) === 0 && { sampling: { temperature: 1, seed: this.#below(1000) } }),
    };
  }

  /** Opens a session that continues an earlier conversation. */
  async #openSession(): Promise<void> {
    const { messages, tenant, tools } = this.#nextRequest();
    const isPlain = messages.every(({ role, ...message }) => role !== 'tool' && !('toolCalls' in message));
    const history = (isPlain ? messages.slice(0, -1) : []) as MessageInput[];
    const session = await this.#agent.createSession({ messages: history, tenant, tools });
    this.#sessions.push({ session, tenant, tools });
  }

  async #send(): Promise<void> {
    const open = this.#takeSession();
    if (open === undefined) {
      return;
    }
    const { session, tenant, tools } = open;
    const results = session.pendingToolCalls.map(resultOf);
    const input = results.length > 0 ? results : [user(WORDS[this.#below(WORDS.length)] as string)];
    const messages = [...session.messages, ...input];
    const conversation = { messages, tenant, affinity: undefined, tools, pending: [] };
    await this.#note(conversation, {}, (options, signal) =>
      session.stream(input as MessageInput[], { ...options, signal }),
    );
    this.#sessions.push(open);
  }

  async #fork(): Promise<void> {
    const open = this.#takeSession();
    if (open !== undefined) {
      this.#sessions.push(open, { ...open, session: await open.session.fork() });
    }
  }

  async #close(): Promise<void> {
    await this.#takeSession()?.session.close();
  }

  /** Takes a session out of the list, so that no other action uses it at the same time. */
  #takeSession(): OpenSession | undefined {
    return this.#sessions.splice(this.#below(this.#sessions.length + 1), 1)[0];
  }

  async #setAdapters(): Promise<void> {
    const { adapters } = this.#options;
    await this.#agent.setLoras(adapters[this.#below(adapters.length)] ?? []);
  }

  async #forget(): Promise<void> {
    const tenant = TENANTS[this.#below(2)] as string;
    const affinity = `conversation ${this.#below(4)}`;
    await this.#agent.forget([{ tenant }, { affinity }, { tenant, affinity }][this.#below(3)] ?? { tenant });
  }

  /** Forgets a tenant while nothing else runs. The next request of the tenant then reuses only its template. */
  async #forgetAlone(tenant: string): Promise<void> {
    await this.#agent.forget({ tenant });
    const conversation = this.#conversations.findLast((each) => each.tenant === tenant && each.pending.length === 0);
    if (conversation !== undefined) {
      const { tools, messages } = conversation;
      const session = await this.#agent.createSession({ tenant, tools });
      const { templateTokens } = session.report;
      await session.close();
      const request = { tenant, tools, messages: [...messages, user('And now?')], maxTokens: 1 };
      const reply = await this.#agent.chat(request).result.catch(expectRefusal);
      expect(reply?.usage.cachedInputTokens ?? 0).toBeLessThanOrEqual(templateTokens);
    }
  }

  /** Closes the agent, which saves its conversations, and starts another one on the same directory. */
  async #restart(): Promise<void> {
    this.#sessions = [];
    await this.#agent.close();
    this.#agent = await this.#options.start();
    recordPrompts(this.#agent);
  }

  /** Runs a request or a turn. Some of them are aborted, or their reader leaves. */
  async #note<Options extends object>(
    conversation: Conversation,
    more: Options,
    run: (options: Options & SendOptions, signal: AbortSignal) => ReturnType<AgentServer['chat']>,
  ): Promise<void> {
    const controller = new AbortController();
    const prompts: ConversationPrompt[] = [];
    const options = { ...more, ...this.#replyOptions(conversation.tools) };
    const partsToRead = this.#below(5) === 0 ? this.#below(6) : Number.POSITIVE_INFINITY;
    if (this.#below(8) === 0) {
      setImmediate(() => controller.abort());
    }
    const work = () => readReply(run(options, controller.signal), partsToRead);
    const reply = await promptsOfRequest.run(prompts, work).catch(expectRefusal);
    if (typeof reply === 'string') {
      const messages = [...conversation.messages, ...(reply === '' ? [] : [assistant(reply)])];
      this.#conversations.push({ ...conversation, messages });
    } else if (reply !== undefined) {
      const prompt = prompts.at(-1) as ConversationPrompt;
      const { group } = prompt.scope ?? {};
      const adapters = group === undefined ? undefined : this.#adaptersOf.get(group);
      if ((reply.logProbabilities ?? []).length > 0) {
        this.#replies.push({ reply, prompt: prompt.tokens, adapters });
      }
      this.#conversations.push(this.#continued(conversation, reply));
    }
  }

  /** The conversation with a reply. Some clients leave out the calls that the agent has run. */
  #continued(conversation: Conversation, { text, toolCalls, toolResults }: Reply): Conversation {
    const answered = new Set(toolResults.map(({ toolCallId }) => toolCallId));
    const pending = toolCalls.filter(({ toolCallId }) => !answered.has(toolCallId));
    const rounds: ChatMessage[] = [];
    if (toolCalls.length > pending.length && this.#below(2) === 0) {
      const calls = toolCalls.filter(({ toolCallId }) => answered.has(toolCallId));
      rounds.push({ ...assistant(''), toolCalls: calls }, ...calls.map(resultOf));
    }
    const last = { ...assistant(text), ...(pending.length > 0 && { toolCalls: pending }) };
    return { ...conversation, messages: [...conversation.messages, ...rounds, last], pending };
  }

  #expectBounded(): void {
    const { states, kvCells, heldSequences, maxSequences } = this.#agent.health();
    expect(states.bytes).toBeLessThanOrEqual(states.maxBytes);
    expect(heldSequences).toBeLessThanOrEqual(maxSequences);
    if (!this.#agent.model.info.recurrent) {
      expect(kvCells.used).toBeLessThanOrEqual(kvCells.total); // recurrent states take no cells
    }
  }
}

const resultOf = ({ toolCallId, toolName }: ToolCall): ChatMessage => ({
  role: 'tool',
  toolCallId,
  toolName,
  content: 'It is on.',
});

/** Reads a reply. Leaves the stream after some parts, and then returns the text so far. */
async function readReply(stream: AsyncIterable<StreamPart> & { result: Promise<Reply> }, partsToRead: number) {
  if (partsToRead === Number.POSITIVE_INFINITY) {
    return stream.result;
  }
  let text = '';
  let left = partsToRead;
  for await (const part of stream) {
    text += part.type === 'text-delta' ? part.text : '';
    if (left-- <= 0 && part.type !== 'finish') {
      return text;
    }
  }
  return stream.result;
}

/** A long conversation may outgrow the context. */
function expectRefusal(error: { code?: string }): undefined {
  expect(['ABORTED', 'CONTEXT_FULL'], String(error)).toContain(error.code);
}
