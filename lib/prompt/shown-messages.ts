// Checks that a chat template writes the messages of a conversation. This check is necessary because any text is valid
// Jinja. For example, the name of a template or the path of a file is valid, but writes no messages.
import { stat } from 'node:fs/promises';
import { HeadstartError } from '../errors.js';
import { describe } from '../options.js';
import type { ChatMessage } from './messages.js';

const QUESTIONS = ['headstart question 41d7', 'headstart question 9b0e'] as const;

/** The conversations of the check. The second one is for chat templates that refuse the first one. */
const CONVERSATIONS: readonly (readonly ChatMessage[])[] = [
  [
    { role: 'user', content: QUESTIONS[0] },
    { role: 'assistant', content: 'x' },
    { role: 'user', content: QUESTIONS[1] },
  ],
  [{ role: 'user', content: QUESTIONS[0] }],
];

/**
 * @param render returns the prompt of a conversation, or undefined if the chat template refuses the conversation
 * @param option the value of the option `chatTemplate`. Undefined for the model's own chat template.
 * @throws HeadstartError `CHAT_TEMPLATE_INVALID` if the chat template leaves out the newest message.
 */
export async function requireShownMessages(
  render: (messages: readonly ChatMessage[]) => Promise<string | undefined>,
  option: string | undefined,
): Promise<void> {
  for (const conversation of CONVERSATIONS) {
    const prompt = (await render(conversation))?.toLowerCase(); // a chat template may change upper and lower case
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
    return "The model's own chat template leaves out the messages of the user: pass another template as `chatTemplate`";
  }
  const remedy = (await isFile(option))
    ? 'This is the path of a file: read the file, and pass its text'
    : 'Pass the text of a template (a path or the name of a template is not enough), ' +
      "or leave out `chatTemplate` to use the model's own template";
  return (
    `Expected \`chatTemplate\` to be a Jinja template that writes the messages, got ${describe(option)}, ` +
    `which leaves out the messages of the user. ${remedy}`
  );
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
