// The endpoints of OpenAI's responses.
import type { ReadReplyRequest, RequestDetails } from '../handler.js';
import type { Client } from '../http/access.js';
import { clientRequest } from '../http/client-request.js';
import { HttpError } from '../http/http-error.js';
import type { ResolvedHandlerOptions } from '../server-options.js';
import { type Item, referenceOf } from './items.js';
import { responseIdOf } from './output-items.js';
import {
  inputItemsOf,
  isLoadProbe,
  type ResponseBody,
  readResponseBody,
  responseRequestOf,
} from './response-request.js';
import { ResponseStore, type StoredResponse } from './response-store.js';
import { ResponseWriter } from './response-writer.js';

/** Answers requests for responses, and keeps responses that clients want to continue. */
export class Responses {
  readonly #stored: ResponseStore;

  constructor({ storedResponses }: ResolvedHandlerOptions) {
    this.#stored = new ResponseStore(storedResponses);
  }

  /** Reads the body of a request for a response. */
  readonly read: ReadReplyRequest = (input, details) => {
    const { body, request, rules, tools, warnings, previous, added, items } = this.#read(input, details);
    const { tenant } = details.client;
    const writer = new ResponseWriter({
      body,
      tools,
      warnings,
      rules,
      model: details.model.id,
      onResponse: (id, response, output) => {
        if (body.store !== false) {
          const bytes = (previous?.bytes ?? 0) + jsonBytes(added) + jsonBytes(response);
          this.#stored.add(tenant, id, { response, output, items: [...items, ...output], bytes });
        }
      },
    });
    return {
      choices: isLoadProbe(body) ? [] : [request],
      events: body.stream ? writer : undefined,
      body: ([reply]) => writer.whole(reply),
    };
  };

  /**
   * Counts the tokens of a body's prompt.
   *
   * @throws HttpError 400, 404, and the errors of `ChatModel.countTokens`.
   */
  readonly countTokens = async (input: unknown, details: RequestDetails): Promise<object> => {
    const { request } = this.#read(input, details);
    const count = await details.model.countTokens(request, { signal: details.signal });
    return { object: 'response.input_tokens', input_tokens: count };
  };

  /** @throws HttpError 404. */
  find(id: string, { tenant }: Client): object {
    const stored = this.#find(id, tenant);
    if (stored === undefined) {
      throw notFound(`Response with id '${id}' not found.`);
    }
    return stored.response;
  }

  /** @throws HttpError 404. */
  delete(id: string, { tenant }: Client): object {
    if (!this.#stored.delete(tenant, storeKey(id))) {
      throw notFound(`Response with id '${id}' not found.`);
    }
    return { id, object: 'response', deleted: true };
  }

  #read(input: unknown, details: RequestDetails) {
    const body = readResponseBody(input);
    const { tenant } = details.client;
    const previous = this.#previousOf(body, tenant);
    const added = inputItemsOf(body).map((item) => this.#resolved(item, tenant));
    const items = [...(previous?.items ?? []), ...added];
    const { request, ...rest } = responseRequestOf(body, items);
    return { ...rest, ...clientRequest(request, details), body, previous, added, items };
  }

  #previousOf({ previous_response_id: id }: ResponseBody, tenant: string | undefined): StoredResponse | undefined {
    if (!id) {
      return undefined;
    }
    const previous = this.#find(id, tenant);
    if (previous === undefined) {
      throw notFound(`Previous response with id '${id}' not found.`, 'previous_response_not_found');
    }
    return previous;
  }

  /** Returns the stored item to which an item refers, or the item itself. */
  #resolved(item: Item, tenant: string | undefined): Item {
    const id = referenceOf(item);
    if (id === undefined) {
      return item;
    }
    const stored = this.#stored.find(tenant, responseIdOf(id) ?? '');
    const found = stored?.output.find((each) => each.id === id);
    if (found === undefined) {
      throw notFound(
        `Item with id '${id}' not found. Items are not persisted when \`store\` is set to false. ` +
          'Try again with `store` set to true, or remove this item from your input.',
      );
    }
    return found;
  }

  #find(id: string, tenant: string | undefined): StoredResponse | undefined {
    return this.#stored.find(tenant, storeKey(id));
  }
}

/** The part of a response's id that the ids of its items contain too. */
function storeKey(id: string): string {
  return id.replace(/^resp_/, '');
}

function notFound(message: string, code = 'not_found'): HttpError {
  return new HttpError(404, code, message);
}

function jsonBytes(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
}
