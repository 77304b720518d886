// Random weights say nothing of sense: what a test needs them to begin with is made the likeliest text.
import type { SamplingOptions } from 'llama-headstart';
import { Model } from 'llama-headstart/native';
import { microModel } from './models.js';

/** A token of the micro models. */
const NEWLINE = 10;

/** Makes a micro model begin with a text of different tokens, and then end where it may. */
export async function likelyText(text: string): Promise<SamplingOptions> {
  const model = await Model.load({ path: microModel('dense'), vocabularyOnly: true });
  const tokens = [...(await model.tokenize(text, { parseSpecial: true })), model.info.vocabulary.eos as number];
  await model.close();
  return { logitBias: Object.fromEntries(tokens.map((token, index) => [token, 90 - 8 * index])), presencePenalty: 100 };
}

/** Makes a micro model call a tool in the Hermes form, again and again where it may, and then end. */
export async function likelyCalls(): Promise<SamplingOptions> {
  const likely = await likelyText('<tool_call>');
  const breaks = { [NEWLINE]: 180 }; // penalised from the first: the prompt ends with one
  return { ...likely, logitBias: { ...likely.logitBias, ...breaks }, penaltyLastTokens: 8 };
}
