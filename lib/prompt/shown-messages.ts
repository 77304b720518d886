// A chat template has to write the messages of a conversation. The name of a template, the path of a file and any other text are valid
// Jinja too, but write none: the model would reply to nothing.
import { stat } from 'node:fs/promises';
import { HeadstartError } from '../errors.js';
import { describe } from '../options.js';
import type { ChatMessage } from './messages.js';

const QUESTIONS = ['headstart question 41d7', 'headstart question 9b0e'] as const;

/** Conversations that a chat template is tried with. The second is for those that refuse the first. */
const CONVERSATIONS: readonly (readonly ChatMessage[])[] = [
  [
    { role: 'user', content: QUESTIONS[0] },
    { role: 'assistant', content: 'x' },
    { role: 'user', content: QUESTIONS[1] },
  ],
  [{ role: 'user', content: QUESTIONS[0] }],
];

/**
 * @param render gives the prompt of a conversation; undefined if the chat template refuses it
 * @param option the chat template, if it is one of the program; undefined for the model's own
 * @throws HeadstartError `CHAT_TEMPLATE_INVALID` if the chat template leaves out what the user says.
 */
export async function requireShownMessages(
  render: (messages: readonly ChatMessage[]) => Promise<string | undefined>,
  option: string | undefined,
): Promise<void> {
  for (const conversation of CONVERSATIONS) {
    const prompt = (await render(conversation))?.toLowerCase(); // a chat template may change that
    if (prompt !== undefined) {
      // Templates for a single turn, such as those of translation models, leave out the history.
      const newest = conversation.at(-1)?.content ?? '';
      if (!prompt.includes(newest)) {
        throw new HeadstartError('CHAT_TEMPLATE_INVALID', await messageFor(option));
      }
      return;
    }
  }
}

async function messageFor(option: string | undefined): Promise<string> {
  if (option === undefined) {
    return "The model's own chat template leaves out what the user says: pass another one as `chatTemplate`";
  }
  const remedy = (await isFile(option))
    ? 'This is the path of a file: read the file, and pass its text'
    : "Pass the text of a template (a path or the name of a template is not enough), or leave `chatTemplate` out to use the model's own";
  return `Expected \`chatTemplate\` to be a Jinja template that writes the messages, got ${describe(option)}, which leaves out what the user says. ${remedy}`;
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
