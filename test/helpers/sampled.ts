// Computes what later prompts must contain after a reply: the tokens that were sampled.
import type { AgentServer, ChatMessage, Reply } from 'llama-headstart';
import { Engine, Renderer, type TemplateSource } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { EXACT } from './agents.js';
import { type MicroModelName, microModel } from './models.js';

/** The tokens of a reply that was asked for with `logProbabilities`. */
export const tokensOf = ({ logProbabilities = [] }: Reply): number[] => logProbabilities.map(({ token }) => token);

/** Renders the prompt of a conversation as a new agent would. */
export async function renderedTokens(
  agent: AgentServer,
  source: TemplateSource,
  messages: readonly ChatMessage[],
  chatTemplate?: string,
): Promise<number[]> {
  return [...(await new Renderer(agent.model, chatTemplate).prompt(source, messages)).tokens];
}

/**
 * The prompt of `messages`, in which the last reply has the tokens that were sampled.
 *
 * @param before the tokens of the prompt to which `sampled` is the reply
 * @param rendered the rendered tokens of the whole conversation
 * @param end the token that ends each message
 */
export function promptWith(before: readonly number[], sampled: readonly number[], rendered: number[], end: number) {
  const messages = before.filter((token) => token === end).length;
  let at = -1;
  for (let count = 0; count <= messages; count++) {
    at = rendered.indexOf(end, at + 1);
  }
  return [...before, ...sampled, ...rendered.slice(at)];
}

/** Returns greedy tokens after a prompt, computed by a new context without any cache. */
export async function coldTokens(name: MicroModelName, prompt: readonly number[], count: number): Promise<number[]> {
  const model = await Model.load({ path: microModel(name) });
  const engine = new Engine(await model.createContext({ kvCells: 2048, batchSize: 512, maxOutputs: 1, ...EXACT }));
  try {
    const sequence = engine.createSequence();
    await engine.sessions.lease(sequence);
    const tokens = [await engine.prefill(sequence, Int32Array.from(prompt))];
    while (tokens.length < count) {
      tokens.push(await engine.prefill(sequence, Int32Array.of(tokens.at(-1) as number)));
    }
    return tokens;
  } finally {
    await engine.close();
    await model.close();
  }
}
