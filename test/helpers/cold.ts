// Computes reference replies: prefills a whole conversation in a new context, without a cache and without a session.
import type { ChatMessage } from 'llama-headstart';
import {
  Engine,
  Renderer,
  type ReplyOptions,
  ReplyReader,
  SampledReplies,
  type TemplateSource,
} from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { EXACT } from './agents.js';

/**
 * Renders a prompt in which earlier replies have the tokens that were sampled.
 *
 * @param replies those of the agent that gave the earlier replies
 */
export function sampledPrompt(
  model: Model,
  renderer: Renderer,
  replies: SampledReplies,
  source: TemplateSource,
  messages: readonly ChatMessage[],
  options: ReplyOptions = {},
) {
  const copy = new SampledReplies(model, renderer);
  for (const { replies: records } of replies.all()) {
    copy.addRecords('copy', records);
  }
  return copy.prompt({ replyScope: { group: 'copy' } }, source, messages, options);
}

/**
 * Returns the greedy reply to `messages`.
 *
 * @param replies those of the agent that gave the earlier replies. Without `replies`, all messages are as rendered.
 */
export async function coldReply(
  path: string,
  source: TemplateSource,
  messages: readonly ChatMessage[],
  maxTokens: number,
  { chatTemplate, replies }: { chatTemplate?: string; replies?: SampledReplies } = {},
): Promise<{ text: string; reasoning: string }> {
  const model = await Model.load({ path });
  const context = await model.createContext({ kvCells: 2048, batchSize: 512, maxOutputs: 1, ...EXACT });
  const engine = new Engine(context);
  try {
    const renderer = new Renderer(model, chatTemplate);
    const options = { parallelToolCalls: true };
    const { tokens, format } = await (replies === undefined
      ? renderer.prompt(source, messages, options)
      : sampledPrompt(model, renderer, replies, source, messages, options));
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
