// Computes reference replies: prefills a whole conversation in a new context, without a cache and without a session.
import type { ChatMessage } from 'llama-headstart';
import { Engine, Renderer, ReplyReader, type TemplateSource } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { EXACT } from './agents.js';

/** Returns the greedy reply to `messages`. */
export async function coldReply(
  path: string,
  source: TemplateSource,
  messages: readonly ChatMessage[],
  maxTokens: number,
  chatTemplate?: string,
): Promise<{ text: string; reasoning: string }> {
  const model = await Model.load({ path });
  const context = await model.createContext({ kvCells: 2048, batchSize: 512, maxOutputs: 1, ...EXACT });
  const engine = new Engine(context);
  try {
    const renderer = new Renderer(model, chatTemplate);
    const { tokens, format } = await renderer.prompt(source, messages, { parallelToolCalls: true });
    const reply: number[] = [];
    const sequence = engine.createSequence();
    await engine.sessions.lease(sequence);
    let token = await engine.prefill(sequence, tokens);
    while (!model.isEndOfGeneration(token) && reply.length < maxTokens) {
      reply.push(token);
      token = await engine.prefill(sequence, Int32Array.of(token));
    }
    const reader = new ReplyReader(model, format, (source.tools ?? []).length > 0);
    await reader.push(new TextDecoder().decode(await model.detokenize(Int32Array.from(reply))));
    await reader.finish(reply.length === maxTokens);
    return { text: reader.text, reasoning: reader.reasoning };
  } finally {
    await engine.close();
    await model.close();
  }
}
