// Remembers the template of a coding agent's last run, so that the next run loads or prefills it while the agent starts.
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { AgentServer } from '../../agent/agent-server.js';
import type { TemplateOptions } from '../../cache/template-cache.js';
import { readTolerantHistory } from '../../chat/tolerant-history.js';
import { makeDirectory, replaceText } from '../../files.js';
import { isObject } from '../../json.js';
import { userCache } from '../../native/places.js';
import { definedOptions } from '../../options.js';
import type { ServedModel } from '../../server/served-model.js';
import { checkTools } from '../../tools/tool.js';

/** The system prompt and the tools of an agent. If they cannot be saved or loaded, the agent starts more slowly. */
export class LastTemplate {
  readonly #id: string;
  #template: TemplateOptions | undefined;

  /** @param id the name of the coding agent */
  constructor(id: string) {
    this.#id = id;
  }

  /**
   * Returns the agent as a model to serve. Remembers the template of each request with tools. Requests without tools
   * have short prompts, for example the request for a title.
   */
  watch(agent: AgentServer): ServedModel {
    const chat: ServedModel['chat'] = (request) => {
      const { messages, tools = [] } = request;
      if (tools.length > 0) {
        const { systemPrompt } = readTolerantHistory(messages);
        this.#template = definedOptions({ systemPrompt, tools }) as TemplateOptions;
      }
      return agent.chat(request);
    };
    return new Proxy(agent, {
      get: (target, name) => {
        const value: unknown = name === 'chat' ? chat : Reflect.get(target, name, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  /**
   * Brings the template of the last run into the KV cache.
   *
   * @returns a function that stops the warm-up, and resolves when it has ended
   */
  warm(agent: AgentServer): () => Promise<void> {
    const stop = new AbortController();
    const work = async () => {
      const template = await this.#read();
      if (template !== undefined) {
        await agent.templateCache.warm([template], { signal: stop.signal });
      }
    };
    const done = work().catch(() => undefined);
    return () => {
      stop.abort();
      return done;
    };
  }

  /** Saves the newest template, if there was a request. */
  async save(): Promise<void> {
    if (this.#template === undefined) {
      return;
    }
    try {
      const path = this.#path();
      await makeDirectory(dirname(path), 0o700);
      await replaceText(path, JSON.stringify(this.#template), { durable: false });
    } catch {
      // The next run prefills the template at its first request.
    }
  }

  async #read(): Promise<TemplateOptions | undefined> {
    const file: unknown = JSON.parse(await readFile(this.#path(), 'utf8'));
    const hasPrompt = isObject(file) && ['string', 'undefined'].includes(typeof file.systemPrompt);
    return hasPrompt && checkTools(file.tools) === undefined ? (file as TemplateOptions) : undefined;
  }

  /** @throws HeadstartError `CONFIG_INVALID` if the user has no home directory. */
  #path(): string {
    return join(userCache(), 'launch', `${this.#id}.json`);
  }
}
