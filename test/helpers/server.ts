// Starts servers on micro models. When the test ends, these helpers close them.
import type { AgentServer } from 'llama-headstart';
import {
  createHandler,
  type HandlerOptions,
  type ListeningServer,
  type ListenOptions,
  listen,
} from 'llama-headstart/server';
import { onTestFinished } from 'vitest';
import { type AgentSettings, startAgent } from './agents.js';

/** A running server and its agent. */
export interface TestServer extends ListeningServer {
  agent: AgentServer;
  /** Sends a JSON body. */
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
  get(path: string, init?: RequestInit): Promise<Response>;
}

/** Starts an agent on a micro model, and serves it on a free port. */
export async function startServer(
  settings: AgentSettings = {},
  options: HandlerOptions = {},
  listening: ListenOptions = {},
): Promise<TestServer> {
  const agent = await startAgent(settings);
  const server = await listen(createHandler(agent, options), { port: 0, ...listening });
  onTestFinished(() => server.close());
  const { url } = server;
  return {
    ...server,
    agent,
    get: (path, init) => fetch(url + path, init),
    post: (path, body, init = {}) =>
      fetch(url + path, {
        method: 'POST',
        body: typeof body === 'string' ? body : JSON.stringify(body),
        ...init,
        headers: { 'content-type': 'application/json', ...init.headers },
      }),
  };
}

/** A server-sent event as it was received. */
export interface ReceivedEvent {
  event: string | undefined;
  data: string;
}

/** The names of events in order, with each run of one name as one. */
export function withoutRepeats<Name>(names: readonly Name[]): Name[] {
  return names.filter((name, index) => name !== names[index - 1]);
}

/** Reads all events of a response. */
export async function eventsOf(response: Response): Promise<ReceivedEvent[]> {
  const blocks = (await response.text()).split('\n\n').filter((block) => block !== '');
  return blocks.map((block) => {
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1];
    return { event: field('event'), data: field('data') ?? '' };
  });
}
