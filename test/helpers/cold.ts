// The reference: a conversation read from its first token on, in a context of its own, with no cache and no session.
import { type ChatMessage, Engine, type TemplateSource } from 'llama-headstart';
import { Model } from 'llama-headstart/native';
import { Renderer } from '../../lib/template/render.js';
import { EXACT } from './agents.js';

/** What the model says next, greedily. */
export async function coldReply(
  path: string,
  source: TemplateSource,
  messages: readonly ChatMessage[],
  maxTokens: number,
): Promise<string> {
  const model = await Model.load({ path });
  const context = await model.createContext({ kvCells: 2048, batchSize: 512, maxOutputs: 1, ...EXACT });
  const engine = new Engine(context);
  try {
    const { tokens } = await new Renderer(model).prompt(source, messages);
    const reply: number[] = [];
    let token = await engine.prefill(0, tokens, 0);
    while (!model.isEndOfGeneration(token) && reply.length < maxTokens) {
      reply.push(token);
      token = await engine.prefill(0, Int32Array.of(token), tokens.length + reply.length - 1);
    }
    return new TextDecoder().decode(await model.detokenize(Int32Array.from(reply)));
  } finally {
    await engine.close();
    await model.close();
  }
}
