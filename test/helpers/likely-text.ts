// Micro models have random weights and write random text. Logit biases make a chosen text their most likely reply.
import type { SamplingOptions } from 'llama-headstart';
import { Model } from 'llama-headstart/native';
import { microModel } from './models.js';

/** The token of a newline in the micro models. */
const NEWLINE = 10;

/**
 * Returns sampling options with which a micro model first writes `text` and then ends its reply, unless a grammar
 * forbids the end. All tokens of `text` must differ.
 */
export async function likelyText(text: string): Promise<SamplingOptions> {
  const model = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
  const tokens = [...(await model.tokenize(text, { parseSpecial: true })), model.info.vocabulary.eos as number];
  await model.close();
  return { logitBias: Object.fromEntries(tokens.map((token, index) => [token, 90 - 8 * index])), presencePenalty: 100 };
}

/**
 * Returns sampling options with which a micro model calls a tool in the Hermes format and then ends its reply. If the
 * turn allows several calls, the model makes several calls.
 */
export async function likelyCalls(): Promise<SamplingOptions> {
  const likely = await likelyText('<tool_call>');
  // The newline needs a larger bias. The prompt ends with a newline, so the penalty applies to this token from the
  // start.
  const newline = { [NEWLINE]: 180 };
  return { ...likely, logitBias: { ...likely.logitBias, ...newline }, penaltyLastTokens: 8 };
}
