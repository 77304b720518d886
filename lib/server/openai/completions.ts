// OpenAI's completions, which continue a text without a chat template:
// https://platform.openai.com/docs/api-reference/completions
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { CompletionOptions } from '../../chat/completion.js';
import type { FinishPart, Reply, StreamPart, TokenLogProbabilities } from '../../generate/stream-parts.js';
import type { ReadReplyRequest } from '../handler.js';
import { checkedBody } from '../http/checked-body.js';
import { HttpError } from '../http/http-error.js';
import { jsonEvent, type ReplyEvents, type ServerEvent, type StartReply } from '../http/reply-events.js';
import { promptProgress, timingsOf } from '../llama-server/timings.js';
import { withParts } from '../served-model.js';
import { endingOf, finishReasonOf } from './chat-completions.js';
import { CHOICES, MODEL, STOP, STREAM_FIELDS } from './common-fields.js';
import { openAiError } from './error.js';
import { SAMPLING_FIELDS, samplingOf, withSeedOf } from './sampling.js';

/** Maximum number of replies in one response. */
const MAX_CHOICES = 64;

export const COMPLETION_BODY = z.object({
  prompt: z
    .union([z.string(), z.array(z.string()).min(1)], 'expected a string or an array of strings')
    .describe('The text to continue, or several texts.'),
  model: MODEL,
  ...STREAM_FIELDS,
  max_tokens: z.int().nullish().describe('Maximum tokens of a reply, 16 by default.'),
  stop: STOP,
  n: CHOICES.describe('Number of replies to each prompt.'),
  echo: z.boolean().nullish().describe('Whether to repeat the prompt in front of the reply.'),
  logprobs: z
    .int()
    .min(0)
    .max(20)
    .nullish()
    .describe('Returns log-probabilities, with this number of most likely tokens for each token.'),
  parse_special: z
    .boolean()
    .nullish()
    .describe('Whether text such as `<|im_start|>` in the prompt becomes a control token, true by default.'),
  ...SAMPLING_FIELDS,
});

type Body = z.output<typeof COMPLETION_BODY>;

/** Maximum number of tokens of a reply if the body has no limit, as in OpenAI's API. */
const DEFAULT_MAX_TOKENS = 16;

export const readCompletion: ReadReplyRequest = (input, { model, client: { tenant } }) => {
  const body = checkedBody(COMPLETION_BODY, input);
  const served = withParts(model, 'streamComplete');
  const prompts = typeof body.prompt === 'string' ? [body.prompt] : body.prompt;
  const options = { ...optionsOf(body), ...(tenant !== undefined && { tenant }) };
  const count = body.n ?? 1;
  const start = (prompt: string, choice: number): StartReply => {
    const own = withSeedOf(options, choice);
    return (limits) => served.streamComplete(prompt, { ...own, ...limits });
  };
  if (prompts.length * count > MAX_CHOICES) {
    throw new HttpError(
      400,
      'invalid_request',
      `Expected at most ${MAX_CHOICES} choices in total: send fewer prompts or lower \`n\``,
    );
  }
  const texts = prompts.flatMap((prompt) => Array<string>(count).fill(prompt));
  const writer = new Writer(model.id, body.echo ? texts : texts.map(() => ''), count);
  return {
    choices: texts.map((prompt, index) => start(prompt, index % count)),
    events: body.stream ? new CompletionEvents(writer, body) : undefined,
    body: (replies) => writer.completion(replies),
  };
};

function optionsOf(body: Body): CompletionOptions {
  const { stop, max_tokens: maxTokens, logprobs, parse_special: parseSpecial } = body;
  return {
    maxTokens: maxTokens && maxTokens > 0 ? maxTokens : DEFAULT_MAX_TOKENS,
    parseSpecial: parseSpecial ?? true, // the client writes the whole prompt, with its markup
    ...(stop && stop.length > 0 && { stop }),
    ...(typeof logprobs === 'number' && { logProbabilities: logprobs }),
    sampling: samplingOf(body),
  };
}

type Ending = Pick<FinishPart, 'finishReason' | 'usage' | 'cache' | 'logProbabilities'>;

/** Writes the objects of one response. */
class Writer {
  /** The text in front of each choice. */
  readonly prefixes: readonly string[];
  readonly #fields: object;
  readonly #choicesPerPrompt: number;

  constructor(model: string, prefixes: readonly string[], choicesPerPrompt: number) {
    this.prefixes = prefixes;
    this.#choicesPerPrompt = choicesPerPrompt;
    this.#fields = {
      id: `cmpl-${randomUUID()}`,
      object: 'text_completion',
      created: Math.floor(Date.now() / 1000),
      model,
    };
  }

  completion(replies: readonly (Ending & Pick<Reply, 'text'>)[]): object {
    const choices = replies.map((reply, index) => this.choice(index, this.prefixes[index] + reply.text, reply));
    return { ...this.#fields, choices, ...this.ending(replies) };
  }

  chunk(more: object): ServerEvent {
    return jsonEvent({ ...this.#fields, ...more });
  }

  choice(index: number, text: string, end?: Ending): object {
    const { finishReason, logProbabilities } = end ?? {};
    const begin = this.prefixes[index]?.length ?? 0;
    return {
      index,
      text,
      logprobs: logProbabilities === undefined ? null : logProbabilitiesOf(logProbabilities, begin),
      finish_reason: finishReason === undefined ? null : finishReasonOf(finishReason),
    };
  }

  ending(replies: readonly Ending[]): object {
    return endingOf(replies, { choicesPerPrompt: this.#choicesPerPrompt });
  }
}

/** @param begin where the first token begins in the text of the choice */
function logProbabilitiesOf(tokens: readonly TokenLogProbabilities[], begin: number): object {
  const offsets: number[] = [];
  let offset = begin;
  for (const { text } of tokens) {
    offsets.push(offset);
    offset += text.length;
  }
  const bounded = (logProbability: number) => Math.max(logProbability, -9999);
  return {
    tokens: tokens.map(({ text }) => text),
    token_logprobs: tokens.map(({ logProbability }) => bounded(logProbability)),
    top_logprobs: tokens.map(({ likely }) =>
      Object.fromEntries(likely.map(({ text, logProbability }) => [text, bounded(logProbability)])),
    ),
    text_offset: offsets,
  };
}

/** Writes the chunks of a streamed completion. */
class CompletionEvents implements ReplyEvents {
  readonly progress: ReplyEvents['progress'];
  readonly #writer: Writer;
  readonly #includesUsage: boolean;
  /** The last parts of the choices. */
  readonly #finished: Ending[] = [];

  constructor(writer: Writer, { stream_options: options, return_progress: progress }: Body) {
    this.#writer = writer;
    this.#includesUsage = options?.include_usage ?? false;
    this.progress = progress ? (each, choice) => [this.#text(choice, '', promptProgress(each))] : undefined;
  }

  begin(): ServerEvent[] {
    return this.#writer.prefixes.map((prefix, index) => this.#text(index, prefix));
  }

  keepAlive(): ServerEvent[] {
    return [this.#text(0, '')];
  }

  part(part: StreamPart, choice: number): ServerEvent[] {
    switch (part.type) {
      case 'text-delta':
        return [this.#text(choice, part.text)];
      case 'finish':
        this.#finished[choice] = part;
        return [this.#writer.chunk({ choices: [this.#writer.choice(choice, '', part)], timings: timingsOf(part) })];
      default:
        return [];
    }
  }

  end(): ServerEvent[] {
    const usage = { choices: [], ...this.#writer.ending(this.#finished) };
    return [...(this.#includesUsage ? [this.#writer.chunk(usage)] : []), { data: '[DONE]' }];
  }

  fail(error: HttpError): ServerEvent[] {
    return [jsonEvent(openAiError(error))];
  }

  #text(index: number, text: string, more?: object): ServerEvent {
    return this.#writer.chunk({ choices: [this.#writer.choice(index, text)], ...more });
  }
}
