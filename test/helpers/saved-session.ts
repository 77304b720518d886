// Saves a session with one turn to a file, and returns the replies of its next turns.
import { join } from 'node:path';
import { AgentServer } from 'llama-headstart';
import { agentOptions, EXACT, replies, temporaryDirectory } from './agents.js';
import type { MicroModelName } from './models.js';
import { TOOLS } from './prompts.js';

/** The turns after the save. */
export const NEXT = ['And now?', 'Thank you'];

/** @param state whether to save the KV state in addition to the messages */
export async function savedSession(state: boolean, name: MicroModelName = 'dense') {
  const path = join(await temporaryDirectory(), 'session.json');
  const agent = await AgentServer.initialize(agentOptions({ name, tools: TOOLS, ...EXACT }));
  const session = await agent.createSession();
  await replies(session, ['Hello'], 8);
  await session.save(path, { state });
  const saved = { path, id: session.id, messages: session.messages, texts: await replies(session, NEXT, 8) };
  await agent.close();
  return saved;
}
