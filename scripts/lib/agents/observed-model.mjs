// The model between the server and an agent. It decides what each reply says, because the replies of a generated model
// make no sense: the first replies to the user's words call a tool that reads a file, and the next reply is a short
// text. Every token is still decoded and sampled. The model also records what each request reuses.

import { constantCall, constantReply } from './constants.mjs';

/**
 * @typedef {import('llama-headstart').AgentServer} AgentServer
 * @typedef {import('llama-headstart').ChatRequest} ChatRequest
 *
 * @typedef {object} Observation what a request reused
 * @property {number | undefined} step the number of earlier replies to the user's words; undefined for requests without
 *   tools or without the user's words, for example for a title
 * @property {number} promptTokens
 * @property {number} cachedTokens
 * @property {number} outputTokens
 * @property {number} [headTokens] at step 0: the number of tokens in front of the user's words
 * @property {number} [rewrittenFrom] at later steps: the number of tokens up to the first change, if the chat template
 *   writes the end of the earlier prompt in another way now
 * @property {object | undefined} difference where the prompt differs from the nearest stored prefix
 *
 * @typedef {object} Reading how an agent reads a file
 * @property {readonly string[]} tools the names that the tool may have
 * @property {Record<string, unknown>} input
 *
 * @typedef {object} Script what a session says
 * @property {string} words the user's words. They are in no other session
 * @property {number} calls the number of replies with a call
 */

/** Implements `ChatModel`. */
export class ObservedModel {
  #agent;
  #reading;
  /** @type {Script} */
  #script = { words: '', calls: 0 };
  /** @type {Promise<Observation>[]} */
  #observations = [];
  /** The text of the newest prompt with the user's words. */
  #prompt = '';

  /** @param {AgentServer} agent @param {Reading} reading */
  constructor(agent, reading) {
    this.#agent = agent;
    this.#reading = reading;
  }

  get id() {
    return this.#agent.id;
  }

  /** @param {Script} script */
  beginSession(script) {
    this.#script = script;
    this.#observations = [];
  }

  /** Returns the answered requests of the session, in the order of their replies. */
  observations() {
    return Promise.all(this.#observations);
  }

  /** @param {ChatRequest} request @param {{ signal?: AbortSignal }} [options] */
  countTokens(request, options) {
    return this.#agent.countTokens(this.#scripted(request), options);
  }

  /** @param {ChatRequest} request */
  chat(request) {
    const scripted = this.#scripted(request);
    const step = this.#stepOf(request);
    const inspection = step === undefined ? Promise.resolve({}) : this.#inspect(scripted, step);
    inspection.catch(() => undefined); // the request fails with the same error
    return new ObservedStream(this.#agent.chat(scripted), ({ usage, cache }) => {
      const { inputTokens: promptTokens, cachedInputTokens: cachedTokens, outputTokens } = usage;
      const observation = { step, promptTokens, cachedTokens, outputTokens, difference: cache.difference };
      this.#observations.push(inspection.then((inspected) => ({ ...observation, ...inspected })));
    });
  }

  /** Makes the reply a call, a short text, or the JSON that the client asks for. @param {ChatRequest} request */
  #scripted(request) {
    const { toolChoice: _, responseFormat, tools = [], ...others } = request;
    const isReading = ({ name }) => this.#reading.tools.includes(name);
    // The tool has this schema in all requests, so that the schema does not change the head.
    const changed = tools.map((tool) => (isReading(tool) ? constantCall(tool, this.#reading.input) : tool));
    const reading = changed.find(isReading);
    const step = this.#stepOf(request);
    const calls = step !== undefined && step < this.#script.calls && reading !== undefined;
    return {
      ...others,
      tools: changed,
      ...(calls
        ? { toolChoice: { name: reading.name }, parallelToolCalls: false }
        : { responseFormat: constantReply(responseFormat?.schema) }),
    };
  }

  /** @param {ChatRequest} request @returns {number | undefined} see {@link Observation} */
  #stepOf({ tools = [], messages }) {
    const { words } = this.#script;
    const start = messages.findLastIndex(({ role, content }) => role === 'user' && textOf(content).includes(words));
    if (tools.length === 0 || start < 0) return undefined;
    return messages.slice(start).filter(({ role }) => role === 'assistant').length;
  }

  /**
   * @param {ChatRequest} request a request with the user's words
   * @param {number} step
   * @returns {Promise<Pick<Observation, 'headTokens' | 'rewrittenFrom'>>}
   */
  async #inspect(request, step) {
    const before = this.#prompt;
    const prompt = await this.#agent.renderPrompt({ ...request, signal: undefined });
    this.#prompt = prompt;
    if (step === 0) return { headTokens: await this.#count(prompt.slice(0, prompt.lastIndexOf(this.#script.words))) };
    if (prompt.startsWith(before)) return {};
    let shared = 0;
    while (prompt[shared] === before[shared]) shared++;
    return { rewrittenFrom: await this.#count(prompt.slice(0, shared)) };
  }

  /** @param {string} text of a prompt */
  async #count(text) {
    return (await this.#agent.model.tokenize(text, { parseSpecial: true })).length;
  }
}

/** A stream that reports the end of the reply. Implements `ReplyStream`. */
class ObservedStream {
  #stream;
  #onEnd;

  /** @param {ReturnType<AgentServer['chat']>} stream @param {(end: Pick<import('llama-headstart').Reply, 'usage' | 'cache'>) => void} onEnd */
  constructor(stream, onEnd) {
    this.#stream = stream;
    this.#onEnd = onEnd;
  }

  get result() {
    return this.#stream.result.then((reply) => {
      this.#onEnd(reply);
      return reply;
    });
  }

  async *[Symbol.asyncIterator]() {
    for await (const part of this.#stream) {
      if (part.type === 'finish') this.#onEnd(part);
      yield part;
    }
  }
}

/** @param {unknown} content @returns {string} */
function textOf(content) {
  return typeof content === 'string' ? content : JSON.stringify(content ?? '');
}
