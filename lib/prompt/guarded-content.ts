// Guards all content of a conversation: texts, names and ids.
import type { ContentGuard } from './content-guard.js';
import type { ChatMessage, ToolCall } from './messages.js';
import type { TemplateSource, ToolDefinition } from './renderer.js';

export function guardSource({ systemPrompt, tools }: TemplateSource, guard: ContentGuard): TemplateSource {
  return {
    tools: tools?.map((tool) => guardTool(tool, guard)),
    systemPrompt: systemPrompt === undefined ? undefined : guard.text(systemPrompt),
  };
}

export function guardTool({ name, grammarSchema: _, ...tool }: ToolDefinition, guard: ContentGuard): ToolDefinition {
  return { ...guard.json(tool), name: guard.name(name) };
}

export function guardMessage(message: ChatMessage, guard: ContentGuard): ChatMessage {
  switch (message.role) {
    case 'assistant': {
      const { content, reasoning, toolCalls } = message;
      return {
        role: 'assistant',
        content: guard.text(content, true),
        ...(reasoning !== undefined && { reasoning: guard.text(reasoning, true) }),
        ...(toolCalls !== undefined && { toolCalls: toolCalls.map((call) => guardCall(call, guard)) }),
      };
    }
    case 'tool': {
      const { toolCallId, toolName, content } = message;
      return {
        role: 'tool',
        content: guard.text(content),
        toolCallId: guard.text(toolCallId),
        ...(toolName !== undefined && { toolName: guard.name(toolName) }),
      };
    }
    default:
      return { ...message, content: guard.text(message.content) };
  }
}

function guardCall({ toolCallId, toolName, input }: ToolCall, guard: ContentGuard): ToolCall {
  return { toolCallId: guard.text(toolCallId), toolName: guard.name(toolName), input: guard.json(input) };
}
