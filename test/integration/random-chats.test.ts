// Random programs use an agent with few sequences and little memory: new conversations, continuations, branches,
// sessions, forks, tenants, cache hints, aborts, simultaneous requests, and restarts with conversations on disk. Each reply must have
// the logits of an agent that computes the whole conversation anew.
import type { AgentServer, CacheHint, ChatMessage, MessageInput, Reply, Session } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, shareReplies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { expectSameFirstToken } from '../helpers/first-token.js';
import { random } from '../helpers/random.js';
import { rounds, variants } from '../helpers/soak.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
const LAYOUTS = ['unified', 'split'] as const;

interface Request {
  messages: readonly ChatMessage[];
  tenant: string;
  cacheHints: readonly CacheHint[];
}

const WORDS = ['chain', 'wheel', 'brake', 'saddle', 'price', 'repair', 'today', 'again'];

const OPTIONS = { maxTokens: 6, logProbabilities: 3 } as const;

/** Asks for one reply. The tests compare the log-probabilities of its first token. */
const ask = (agent: AgentServer, request: Request, signal?: AbortSignal): Promise<Reply> =>
  agent.chat({ ...request, ...OPTIONS, ...(signal && { signal }) }).result;

/** Returns the next request: a new conversation, or a continuation or branch of an earlier conversation. */
function nextRequest(done: readonly Done[], below: (max: number) => number): Request {
  const words = Array.from({ length: 1 + below(12) }, () => WORDS[below(WORDS.length)]).join(' ');
  const message: ChatMessage = { role: 'user', content: `${words}?` };
  const earlier = done[below(done.length + 2)];
  if (earlier === undefined) {
    return { messages: [message], tenant: below(4) === 0 ? 'other' : 'one', cacheHints: [{ system: true }] };
  }
  const { request, reply } = earlier;
  const history: ChatMessage[] = [...request.messages, { role: 'assistant', content: reply.text }];
  const kept = below(3) === 0 ? 2 * below(history.length / 2 + 1) : history.length; // a branch, or a continuation
  const messages = [...history.slice(0, kept), message];
  return { messages, tenant: request.tenant, cacheHints: [{ message: below(messages.length + 1) }] };
}

/** A conversation that can be continued by a request or a session. */
interface Done {
  request: Request;
  reply: Reply;
}

/** Runs one program of requests, sessions, forks and restarts. */
class Program {
  readonly done: Done[] = [];
  readonly #start: () => Promise<AgentServer>;
  readonly #below: (max: number) => number;
  #agent: AgentServer;
  #sessions: { session: Session; tenant: string }[] = [];

  constructor(start: () => Promise<AgentServer>, agent: AgentServer, below: (max: number) => number) {
    this.#start = start;
    this.#agent = agent;
    this.#below = below;
  }

  /** Returns the agent after the program. */
  async run(steps: number): Promise<AgentServer> {
    for (let step = 0; step < steps; step++) {
      const actions = Array.from({ length: 1 + this.#below(3) }, () => this.#action());
      await Promise.all(actions.map((action) => action.call(this)));
      this.#expectBounded();
      if (step === Math.floor(steps / 2) || this.#below(12) === 0) {
        await this.#restart();
      }
    }
    return this.#agent;
  }

  #action(): () => Promise<void> {
    const ofSessions = [this.#openSession, this.#send, this.#send, this.#fork, this.#close];
    const action = ofSessions[this.#below(2 * ofSessions.length)] ?? this.#request;
    return this.#sessions.length === 0 && action !== this.#openSession ? this.#request : action;
  }

  async #request(): Promise<void> {
    const request = nextRequest(this.done, this.#below);
    await this.#note(request, (signal) => ask(this.#agent, request, signal));
  }

  /** Opens a session that continues an earlier conversation. */
  async #openSession(): Promise<void> {
    const { messages, tenant } = nextRequest(this.done, this.#below);
    const session = await this.#agent.createSession({ messages: messages.slice(0, -1) as MessageInput[], tenant });
    this.#sessions.push({ session, tenant });
  }

  async #send(): Promise<void> {
    const open = this.#takeSession();
    if (open !== undefined) {
      const message: ChatMessage = { role: 'user', content: WORDS[this.#below(WORDS.length)] as string };
      const request = { messages: [...open.session.messages, message], tenant: open.tenant, cacheHints: [] };
      await this.#note(request, (signal) => open.session.send(message.content as string, { ...OPTIONS, signal }));
      this.#sessions.push(open);
    }
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
  #takeSession() {
    return this.#sessions.splice(this.#below(this.#sessions.length + 1), 1)[0];
  }

  /** Closes the agent, which saves its conversations, and starts another one on the same directory. */
  async #restart(): Promise<void> {
    const closed = this.#agent;
    this.#sessions = [];
    await closed.close();
    this.#agent = await this.#start();
    shareReplies(closed, this.#agent);
  }

  /** Runs a request or a turn. Aborts some of them. */
  async #note(request: Request, run: (signal: AbortSignal) => Promise<Reply>): Promise<void> {
    const controller = new AbortController();
    if (this.#below(6) === 0) {
      setImmediate(() => controller.abort());
    }
    const reply = await run(controller.signal).catch((error: { code?: string }) => {
      expect(['ABORTED', 'CONTEXT_FULL']).toContain(error.code); // a long conversation may outgrow the context
    });
    if (reply !== undefined) {
      this.done.push({ request, reply });
    }
  }

  #expectBounded(): void {
    const { states, kvCells } = this.#agent.health();
    expect(states.bytes).toBeLessThanOrEqual(states.maxBytes);
    if (!this.#agent.model.info.recurrent) {
      expect(kvCells.used).toBeLessThanOrEqual(kvCells.total); // recurrent states take no cells
    }
  }
}

describe.each(MEMORIES)('a random program with the %s model', (name) => {
  const layouts = variants(LAYOUTS, (layout) => (layout === 'split') === (name === 'hybrid'));
  it.each(layouts)('gets the logits of cold requests, in the %s layout', async (kvLayout) => {
    const settings: AgentSettings = { name, kvLayout, contextSize: 512, nSeqMax: 3, ...EXACT };
    const onDisk = { cacheDir: await temporaryDirectory(), conversations: { minSpeedup: 0, maxBytes: 2 ** 28 } };
    const start = () => startAgent({ ...settings, ...onDisk, maxMemoryBytes: 2 ** 20 });
    const program = new Program(start, await start(), random(MEMORIES.indexOf(name) + 1));
    const agent = await program.run(rounds(8, 120));
    expect(program.done.length).toBeGreaterThan(8);
    expect(program.done.some(({ reply }) => reply.usage.cachedInputTokens > 60)).toBe(true);
    const cold = await startAgent({ ...settings, nSeqMax: 1, maxMemoryBytes: 0, maxResidentTemplates: 0 });
    shareReplies(agent, cold);
    for (const { request, reply } of program.done) {
      await cold.chat({ messages: [{ role: 'user', content: 'x'.repeat(200) }], tenant: 'nobody', maxTokens: 1 })
        .result;
      const expected = await ask(cold, request);
      expect(expected.usage.cachedInputTokens).toBe(0);
      expectSameFirstToken(reply, expected);
    }
  });
});
