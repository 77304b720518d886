// What tests do in a process of its own: `node child.js TASK INPUT`, both JSON but for the name. See processes.ts.
import { argv, stdout } from 'node:process';
import {
  type AgentOptions,
  AgentServer,
  type ModelSourceInput,
  type ResolveModelOptions,
  resolveModel,
  type SessionOptions,
} from 'llama-headstart';
import { Lab, type LabOptions } from './lab.js';

/** One session: its start, its replies to `messages`, the cache's statistics before and after. */
async function agent(input: {
  options: AgentOptions;
  session?: SessionOptions;
  messages?: string[];
  maxTokens?: number;
}) {
  const server = await AgentServer.initialize(input.options);
  const before = server.getTemplateCacheStats();
  const session = await server.createSession(input.session);
  const texts: string[] = [];
  for (const message of input.messages ?? []) {
    texts.push((await session.send(message, { maxTokens: input.maxTokens ?? 24 })).text);
  }
  await server.flush();
  const after = server.getTemplateCacheStats();
  await server.close();
  return { report: session.report, texts, before, after };
}

/** One continuation of a template of raw tokens. */
async function continuation(input: { options: LabOptions; template: number[]; message: number[]; steps: number }) {
  const lab = await Lab.open(input.options);
  const { report, tokens, logits } = await lab.run(
    Int32Array.from(input.template),
    Int32Array.from(input.message),
    input.steps,
  );
  await lab.close();
  return { report, tokens, logits: logits.map((row) => [...row]) };
}

/** A model fetched. */
function resolve(input: { source: ModelSourceInput; options: ResolveModelOptions }) {
  return resolveModel(input.source, input.options);
}

const tasks = { agent, continuation, resolve };

export type Tasks = typeof tasks;

const [, , name, input] = argv;
// Every number of a float32 survives JSON: it is printed with all the digits of a double.
stdout.write(JSON.stringify(await tasks[name as keyof Tasks](JSON.parse(input as string))));
