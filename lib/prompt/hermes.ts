// The Hermes form of tool calls, for chat templates that do not describe tools. The system message describes the tools,
// and the model calls a tool with <tool_call>{"name": ..., "arguments": {...}}</tool_call>.
import type { Model, RenderRequest } from '../native/model.js';
import type { ReplyFormat } from '../native/reply.js';
import { type AssistantMessage, type ChatMessage, toOpenAiTool } from './messages.js';
import type { TemplateSource } from './renderer.js';

/**
 * A chat template with tool calls in the Hermes form. `common` derives the format of replies from this chat template
 * (grammar, triggers and parser). The rendered prompt is not used. `<tool_call>` has no line break after it, so that
 * `common` accepts calls with and without a line break.
 */
const HERMES_TEMPLATE = `{%- if tools %}
{{- '<|im_start|>system\\n<tools>' }}
{%- for tool in tools %}
{{- '\\n' + (tool | tojson) }}
{%- endfor %}
{{- '\\n</tools><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif message.role == 'assistant' and message.tool_calls %}
{{- '<|im_start|>assistant' }}
{%- if message.content %}
{{- '\\n' + message.content }}
{%- endif %}
{%- for tool_call in message.tool_calls %}
{%- if tool_call.function is defined %}
{%- set tool_call = tool_call.function %}
{%- endif %}
{{- '\\n<tool_call>{"name": "' + tool_call.name + '", "arguments": ' }}
{{- tool_call.arguments | tojson }}
{{- '}</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
`;

export type HermesOptions = Pick<RenderRequest, 'toolChoice' | 'parallelToolCalls'>;

/**
 * Returns the format of replies if the system message describes the tools. The render of the prompt cannot return this
 * format, because it receives no tools.
 *
 * @param tools the tools, in the OpenAI chat format
 * @throws HeadstartError as {@link Model.render}.
 */
export async function hermesReplyFormat(
  model: Model,
  tools: readonly object[],
  options: HermesOptions = {},
): Promise<ReplyFormat> {
  return model.render({
    ...options,
    messages: [{ role: 'user', content: 'x' }],
    tools,
    chatTemplate: HERMES_TEMPLATE,
  });
}

/** Adds the Hermes function-calling prompt (by NousResearch). The chat templates of Qwen contain the same prompt. */
export function withToolsInSystemPrompt(source: TemplateSource): TemplateSource {
  if (source.tools === undefined || source.tools.length === 0) {
    return source;
  }
  const definitions = source.tools.map((tool) => JSON.stringify(toOpenAiTool(tool))).join('\n');
  const instructions = [
    '# Tools',
    '',
    'You may call one or more functions to assist with the user query.',
    '',
    'You are provided with function signatures within <tools></tools> XML tags:',
    `<tools>\n${definitions}\n</tools>`,
    '',
    'For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:',
    '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>',
  ].join('\n');
  return { systemPrompt: source.systemPrompt ? `${source.systemPrompt}\n\n${instructions}` : instructions };
}

/**
 * Writes calls and results as text, for chat templates that do not show them. Results become user messages, so that the
 * messages of user and assistant alternate.
 */
export function withCallsAsText(messages: readonly ChatMessage[]): ChatMessage[] {
  const written: ChatMessage[] = [];
  let results: string[] = [];
  for (const message of messages) {
    if (message.role === 'tool') {
      results.push(`<tool_response>\n${message.content}\n</tool_response>`);
    } else if (message.role === 'user') {
      written.push({ role: 'user', content: [...results, message.content].join('\n') });
      results = [];
    } else {
      if (results.length > 0) {
        written.push({ role: 'user', content: results.join('\n') });
        results = [];
      }
      written.push(message.role === 'assistant' ? withCallText(message) : message);
    }
  }
  return results.length > 0 ? [...written, { role: 'user', content: results.join('\n') }] : written;
}

function withCallText({ content, reasoning, toolCalls = [] }: AssistantMessage): ChatMessage {
  const calls = toolCalls.map(
    ({ toolName, input }) =>
      `<tool_call>\n{"name": ${JSON.stringify(toolName)}, "arguments": ${JSON.stringify(input)}}\n</tool_call>`,
  );
  const text = [...(content === '' ? [] : [content]), ...calls].join('\n');
  return { role: 'assistant', content: text, ...(reasoning !== undefined && { reasoning }) };
}
