import { type ChatTemplate, unlessRefused } from './chat-template.js';
import type { ChatMessage } from './messages.js';
import type { ToolDefinition } from './renderer.js';

const MESSAGES: readonly ChatMessage[] = [{ role: 'user', content: 'x' }];

const BARE: ToolDefinition = { name: 'a_headstart' };
const FULL: ToolDefinition = {
  name: 'z_headstart',
  description: 'Headstart.',
  parameters: { type: 'object', properties: { headstart: { type: 'integer' } }, required: ['headstart'] },
};

export async function toolForm(
  chatTemplate: ChatTemplate,
  tool: ToolDefinition,
  withSystemPrompt: boolean,
): Promise<string | undefined> {
  const source = withSystemPrompt ? { systemPrompt: 'x' } : {};
  const render = async (tools: readonly ToolDefinition[]) =>
    (await unlessRefused(chatTemplate.render(source, MESSAGES, tools, { toolChoice: 'none', textOnly: true })))?.prompt;
  const alone = await render([tool]);
  const bare = await render([BARE]);
  const full = await render([FULL]);
  const both = await render([BARE, FULL]);
  const swapped = await render([FULL, BARE]);
  if (alone === undefined || bare === undefined || full === undefined || both === undefined || swapped === undefined)
    return undefined;
  const texts = [alone, bare, full];
  const front = texts.reduce(commonStart);
  const back = texts.map((text) => text.slice(front.length)).reduce(commonEnd);
  const core = (text: string) => text.slice(front.length, text.length - back.length);
  const between = (text: string, first: string, second: string) => {
    const start = front + core(first);
    const end = core(second) + back;
    return text.length >= start.length + end.length && text.startsWith(start) && text.endsWith(end)
      ? text.slice(start.length, text.length - end.length)
      : undefined;
  };
  const joint = between(both, bare, full);
  if (joint === undefined || joint !== between(swapped, full, bare)) return undefined;
  const head = commonEnd(joint, front);
  const tail = commonStart(joint, back);
  let note = '';
  if (head.length + tail.length > joint.length) note = `OVERLAP ${JSON.stringify([tail, head, joint])}\n`;
  return `${note}${head}⟦${core(alone)}⟧${tail}`.trim();
}

function commonStart(a: string, b: string): string {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return a.slice(0, length);
}
function commonEnd(a: string, b: string): string {
  let length = 0;
  while (length < a.length && length < b.length && a[a.length - 1 - length] === b[b.length - 1 - length]) length++;
  return a.slice(a.length - length);
}
