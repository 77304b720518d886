// Micro models have random weights and write random text. Logit biases make a chosen text their most likely reply.
import type { SamplingOptions } from 'llama-headstart';
import { Model } from 'llama-headstart/native';
import { microModel } from './models.js';

/** A token of the micro models. */
const NEWLINE = 10;

/**
 * Sampling options with which a micro model first writes `text`, whose tokens must all differ, and then ends if it may.
 */
export async function likelyText(text: string): Promise<SamplingOptions> {
  const model = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
  const tokens = [...(await model.tokenize(text, { parseSpecial: true })), model.info.vocabulary.eos as number];
  await model.close();
  return { logitBias: Object.fromEntries(tokens.map((token, index) => [token, 90 - 8 * index])), presencePenalty: 100 };
}

/** Sampling options with which a micro model calls a tool in the Hermes format, repeatedly if it may, and then ends. */
export async function likelyCalls(): Promise<SamplingOptions> {
  const likely = await likelyText('<tool_call>');
  // A larger bias, because the prompt ends with a newline, so that the penalty applies to it from the start.
  const newline = { [NEWLINE]: 180 };
  return { ...likely, logitBias: { ...likely.logitBias, ...newline }, penaltyLastTokens: 8 };
}
