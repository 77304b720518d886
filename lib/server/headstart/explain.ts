import type { ChatRequest } from '../../chat/chat.js';
import { isObject } from '../../json.js';
import type { RequestDetails } from '../handler.js';
import { readChatCompletion } from '../openai/chat-completions.js';
import { withParts } from '../served-model.js';

/**
 * Explains what a chat completion would reuse now. For two chat completions, explains where their prompts begin to
 * differ.
 *
 * @param body the body of a chat completion, or `{ request, other }` with two of them
 * @throws HttpError 400, 501.
 */
export async function explain(body: unknown, details: RequestDetails): Promise<object> {
  const model = withParts(details.model, 'explain');
  const read = (input: unknown): ChatRequest => {
    const [choice] = readChatCompletion(input, details).choices as [ChatRequest];
    return { ...choice, signal: details.signal };
  };
  if (!isObject(body) || body.request === undefined) {
    return model.explain(read(body));
  }
  return body.other === undefined
    ? model.explain(read(body.request))
    : model.explain(read(body.request), read(body.other));
}
