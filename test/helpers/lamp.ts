// Sessions with a tool that switches a lamp. A grammar enforces the format of a call, so that even models with random
// weights make valid calls.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Reply, SendOptions, Session, Tool } from 'llama-headstart';
import { type AgentSettings, startAgent } from './agents.js';

/** The schema of one required argument, a boolean. */
export const ON = {
  type: 'object',
  properties: { on: { type: 'boolean' } },
  required: ['on'],
  additionalProperties: false,
};

/** A tool with one required argument, a boolean. */
export const lamp = (execute?: Tool['execute'], name = 'lamp'): Tool => ({
  name,
  description: 'Switches the lamp.',
  inputSchema: ON,
  ...(execute && { execute }),
});

/** The options of a turn that makes one call and then ends without a reply. */
export const ONE_CALL: SendOptions = { toolChoice: 'required', maxParallelTools: 1, maxSteps: 1, maxTokens: 300 };

/** Opens a session of a new agent on a micro model. */
export async function openSession(tools: readonly Tool[], settings: AgentSettings = {}): Promise<Session> {
  return (await startAgent({ contextSize: 4096, ...settings })).createSession({ tools });
}

/** Makes a model call a tool once. */
export async function call(tool: Tool, options: SendOptions = {}): Promise<{ reply: Reply; session: Session }> {
  const session = await openSession([tool]);
  return { reply: await session.send('Light, please', { ...ONE_CALL, ...options }), session };
}

/** Reads one of the chat templates in llama.cpp's repository. */
export const vendoredTemplate = (name: string): string =>
  readFileSync(
    fileURLToPath(new URL(`../../vendor/llama.cpp/models/templates/${name}.jinja`, import.meta.url)),
    'utf8',
  );

/** Returns the roles of a session's messages. */
export const roles = (session: Session) => session.messages.map(({ role }) => role);
