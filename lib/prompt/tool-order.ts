import type { ToolDefinition } from './renderer.js';

/**
 * Puts the tools of MCP servers after the others, sorted by server and name. A server may list its tools in another
 * order each time, and a different order would make a different prompt.
 */
export function stableToolOrder<Tool extends ToolDefinition>(tools: readonly Tool[]): readonly Tool[] {
  if (tools.every(({ server }) => server === undefined)) {
    return tools;
  }
  const ofProgram = tools.filter(({ server }) => server === undefined);
  const listed = tools.filter(({ server }) => server !== undefined);
  return [...ofProgram, ...listed.sort((a, b) => compare(a.server ?? '', b.server ?? '') || compare(a.name, b.name))];
}

/** Compares code units, which gives the same order for every locale. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
