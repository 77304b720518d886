import type { ToolDefinition } from './renderer.js';

/**
 * Puts the tools of MCP servers after all other tools, sorted by server and name. A server may list its tools in a
 * different order each time, and without the sort the prompt would then change.
 */
export function stableToolOrder<Tool extends ToolDefinition>(tools: readonly Tool[]): readonly Tool[] {
  if (tools.every(({ server }) => server === undefined)) {
    return tools;
  }
  const ofProgram = tools.filter(({ server }) => server === undefined);
  const listed = tools.filter(({ server }) => server !== undefined);
  return [...ofProgram, ...listed.sort((a, b) => compare(a.server ?? '', b.server ?? '') || compare(a.name, b.name))];
}

/** Compares code units, so that the order does not depend on the locale. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
