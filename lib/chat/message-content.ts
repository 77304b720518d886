// Reads the content of messages: a text or a list of parts.
import { isObject } from '../json.js';
import { describe } from '../options.js';
import { invalidMessage } from './invalid-message.js';

/**
 * The text of a content that has text only.
 *
 * @param where what error messages call the content
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function strictText(content: unknown, where: string): string {
  if (typeof content === 'string') {
    return content;
  }
  if (!Array.isArray(content)) {
    throw invalidMessage(`Expected the content of ${where} to be a string or text parts, got ${describe(content)}`);
  }
  return content
    .map((part: unknown) => {
      const { type, text } = (part ?? {}) as { type?: unknown; text?: unknown };
      if (type !== 'text' || typeof text !== 'string') {
        throw invalidMessage(
          `Expected the content of ${where} to have text parts only, got a part of type ${describe(type)}`,
        );
      }
      return text;
    })
    .join('');
}

/**
 * The text of any content. Missing content is an empty text. Images, audio and files become notes, each on a line of its
 * own. Unknown parts are left out.
 *
 * @throws HeadstartError `INVALID_ARGUMENT` if the content is neither a text nor a list of parts.
 */
export function tolerantText(content: unknown, where: string): string {
  if (!Array.isArray(content)) {
    return content === undefined || content === null ? '' : strictText(content, where);
  }
  let text = '';
  let endsWithNote = false;
  for (const part of content as readonly unknown[]) {
    const partText = textOf(part);
    const note = partText === undefined ? noteAbout(part) : undefined;
    const added = partText ?? note ?? '';
    if (added !== '') {
      const isSeparated = text === '' || text.endsWith('\n') || added.startsWith('\n');
      text += (note !== undefined || endsWithNote) && !isSeparated ? `\n${added}` : added;
      endsWithNote = note !== undefined;
    }
  }
  return text;
}

/** The names of text parts in the APIs of OpenAI and Anthropic. */
const TEXT_TYPES: ReadonlySet<unknown> = new Set(['text', 'input_text', 'output_text']);

function textOf(part: unknown): string | undefined {
  if (typeof part === 'string') {
    return part;
  }
  return isObject(part) && TEXT_TYPES.has(part.type) && typeof part.text === 'string' ? part.text : undefined;
}

/** The kinds of parts that the model cannot read, in their types and media types. */
const MEDIA_KINDS = [/image/, /audio/, /video/, /file|document|media/];

/** A note about content that the model cannot read. Undefined for an unknown part. */
function noteAbout(part: unknown): string | undefined {
  if (!isObject(part) || typeof part.type !== 'string') {
    return undefined;
  }
  const { type, mediaType, file, filename } = part;
  const description = typeof mediaType === 'string' ? `${mediaType} ${type}` : type;
  const kind = MEDIA_KINDS.map((pattern) => pattern.exec(description)?.[0]).find((match) => match !== undefined);
  const name = typeof filename === 'string' ? filename : isObject(file) ? file.filename : undefined;
  return kind === undefined
    ? undefined
    : `[${kind}${typeof name === 'string' ? ` ${name}` : ''} omitted: this model reads only text]`;
}
