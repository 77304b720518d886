// llama-server's conversions between text and tokens: `/tokenize`, `/detokenize` and `/apply-template`.
import { z } from 'zod';
import type { RequestDetails } from '../handler.js';
import { checkedBody } from '../http/checked-body.js';
import { clientRequest } from '../http/client-request.js';
import { chatRequestOf, readChatBody } from '../openai/chat-request.js';
import { withParts } from '../served-model.js';

export const TOKENIZE = z.object({
  content: z.string().describe('The text.'),
  add_special: z.boolean().nullish().describe('Whether to add the token that begins texts, false by default.'),
  parse_special: z
    .boolean()
    .nullish()
    .describe('Whether text such as `<|im_start|>` becomes a control token, true by default.'),
  with_pieces: z.boolean().nullish().describe('Whether to return the text of each token, false by default.'),
});

const TOKEN = z
  .int()
  .min(0)
  .max(2 ** 31 - 1);

export const DETOKENIZE = z.object({ tokens: z.array(TOKEN) });

/** @throws HttpError 400, 501. */
export async function tokenize(body: unknown, { model: served, signal }: RequestDetails): Promise<object> {
  const { content, add_special: add, parse_special: parse, with_pieces: withPieces } = checkedBody(TOKENIZE, body);
  const { model } = withParts(served, 'model');
  const options = { addSpecial: add ?? false, parseSpecial: parse ?? true, signal };
  const tokens = [...(await model.tokenize(content, options))];
  return { tokens: withPieces ? tokens.map((id) => ({ id, piece: pieceOf(model.tokenToBytes(id)) })) : tokens };
}

/** The text of a token, or its bytes if they are only a part of a character. */
function pieceOf(bytes: Uint8Array): string | number[] {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return [...bytes];
  }
}

/** @throws HttpError 400, 501. */
export async function detokenize(body: unknown, { model: served, signal }: RequestDetails): Promise<object> {
  const { tokens } = checkedBody(DETOKENIZE, body);
  const { model } = withParts(served, 'model');
  const bytes = await model.detokenize(Int32Array.from(tokens), { special: true, signal });
  return { content: new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes) };
}

/**
 * Renders the prompt of a chat completion.
 *
 * @throws HttpError 400, 501.
 */
export async function applyTemplate(body: unknown, details: RequestDetails): Promise<object> {
  const { request } = clientRequest(chatRequestOf(readChatBody(body)), details);
  const model = withParts(details.model, 'renderPrompt');
  return { prompt: await model.renderPrompt({ ...request, signal: details.signal }) };
}
