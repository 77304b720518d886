import type { ToolDefinition } from './renderer.js';

/**
 * Tools that a server listed come in an order of their own each time. Sorted by server and name, behind the others, they make
 * the same prompt again.
 */
export function stableToolOrder<Tool extends ToolDefinition>(tools: readonly Tool[]): readonly Tool[] {
  if (tools.every(({ server }) => server === undefined)) {
    return tools;
  }
  const own = tools.filter(({ server }) => server === undefined);
  const listed = tools.filter(({ server }) => server !== undefined);
  return [...own, ...listed.sort((a, b) => compare(a.server ?? '', b.server ?? '') || compare(a.name, b.name))];
}

/** By code units: the same on every machine, whatever its language. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
