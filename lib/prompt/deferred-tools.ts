// Deferred tools. The prompt describes a deferred tool only in the first message that refers to the tool. So a tool that
// is loaded in the middle of a conversation changes no token in front of that message.
import { isObject } from '../json.js';
import { type ChatMessage, callsOf } from './messages.js';
import type { ToolDefinition } from './renderer.js';

/**
 * Loads a deferred tool: the message shows the definition of the tool after its text, and the model may call the tool
 * from then on. Such parts may stand in messages of the user and in results of tools.
 */
export interface ToolReferencePart {
  /** Marks a reference to a tool. */
  readonly type: 'tool-reference';
  /** The name of the tool. */
  readonly toolName: string;
}

function isReference(part: unknown): part is ToolReferencePart {
  return isObject(part) && part.type === 'tool-reference' && typeof part.toolName === 'string' && part.toolName !== '';
}

/** Separates the references in the content of a message from its other parts. */
export function withoutReferences(content: unknown): { content: unknown; toolReferences?: readonly string[] } {
  const parts: readonly unknown[] = Array.isArray(content) ? content : [];
  const references = parts.filter(isReference);
  return references.length === 0
    ? { content }
    : {
        content: parts.filter((part) => !isReference(part)),
        toolReferences: Object.freeze(references.map(({ toolName }) => toolName)),
      };
}

const NO_NAMES: readonly string[] = [];

/** The tools to which a message refers. */
export function referencesIn(message: ChatMessage): readonly string[] {
  return message.role === 'user' || message.role === 'tool' ? (message.toolReferences ?? NO_NAMES) : NO_NAMES;
}

/** The tools that the beginning of the prompt describes. */
export function toolsInHead(tools: readonly ToolDefinition[]): readonly ToolDefinition[] {
  return tools.some(({ deferred }) => deferred) ? tools.filter(({ deferred }) => !deferred) : tools;
}

/** The tools that a reply to these messages may call. */
export function loadedTools(
  tools: readonly ToolDefinition[],
  messages: readonly ChatMessage[],
): readonly ToolDefinition[] {
  if (!tools.some(({ deferred }) => deferred)) {
    return tools;
  }
  const references = new Set(messages.flatMap(referencesIn));
  return tools.filter(({ name, deferred }) => !deferred || references.has(name));
}

/**
 * Moves deferred tools that a history calls without an earlier reference to the end of the tools, and no longer defers
 * them. Otherwise the prompt would contain calls of tools that it does not describe.
 */
export function withCalledTools(
  tools: readonly ToolDefinition[],
  messages: readonly ChatMessage[],
): readonly ToolDefinition[] {
  const deferred = new Set(tools.flatMap((tool) => (tool.deferred ? [tool.name] : [])));
  if (deferred.size === 0) {
    return tools;
  }
  const called = new Set<string>();
  for (const message of messages) {
    for (const { toolName } of callsOf(message)) {
      if (deferred.delete(toolName)) {
        called.add(toolName);
      }
    }
    for (const name of referencesIn(message)) {
      deferred.delete(name);
    }
  }
  const isCalled = ({ name }: ToolDefinition) => called.has(name);
  return [
    ...tools.filter((tool) => !isCalled(tool)),
    ...tools.filter(isCalled).map((tool) => Object.freeze({ ...tool, deferred: false })),
  ];
}

/**
 * Whether messages may show definitions of tools. The answer is the same in all requests of a conversation if each
 * request has a deferred tool.
 */
export function showsDefinitions(tools: readonly ToolDefinition[], messages: readonly ChatMessage[]): boolean {
  return tools.some(({ deferred }) => deferred) || messages.some((message) => referencesIn(message).length > 0);
}

/** What a message shows for its references. */
export interface ShownReferences {
  /** The tools whose definitions the message shows. */
  definitions: readonly ToolDefinition[];
  /** Notes about the other references. */
  notes: readonly string[];
}

/** Returns what each message shows for its references. Each tool is shown once, at its first reference. */
export function shownReferences(
  tools: readonly ToolDefinition[],
  messages: readonly ChatMessage[],
): readonly ShownReferences[] {
  const byName = new Map(tools.map((tool) => [tool.name, tool]));
  const shown = new Set<ToolDefinition>(toolsInHead(tools));
  return messages.map((message) => {
    const definitions: ToolDefinition[] = [];
    const notes: string[] = [];
    for (const name of referencesIn(message)) {
      const tool = byName.get(name);
      if (tool === undefined) {
        notes.push(`There is no tool "${name}".`);
      } else if (shown.has(tool)) {
        notes.push(`The tool "${name}" is loaded already.`);
      } else {
        shown.add(tool);
        definitions.push(tool);
      }
    }
    return { definitions, notes };
  });
}
