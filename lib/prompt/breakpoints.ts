// Finds the positions inside a template at which another template may differ: after the system prompt, and after some
// of the tools.
import { commonPrefixLength } from '../tokens.js';
import type { Renderer, TemplateSource, ToolDefinition } from './renderer.js';
import { MERGE_MARGIN, PROBES } from './template-boundary.js';

/** Represents any other tool, because the text in front of a tool does not depend on that tool. */
const OTHER_TOOL: ToolDefinition = { name: 'zz_headstart_other', description: 'x' };

/**
 * Finds breakpoints by rendering prompts in which another tool follows the first tools. Such a prompt begins like the
 * template, up to the end of these tools. The breakpoint is at that end.
 *
 * @param template the tokens of the template
 * @param toolCounts how many tools are in front of each breakpoint, ascending
 * @returns ascending token counts, each smaller than the token count of the template
 */
export async function findBreakpoints(
  renderer: Renderer,
  source: TemplateSource,
  template: Int32Array,
  toolCounts: readonly number[] = countsInFrontOfBlocks(source.tools ?? []),
): Promise<number[]> {
  const breakpoints: number[] = [];
  for (const count of toolCounts) {
    const tools = [...(source.tools ?? []).slice(0, count), OTHER_TOOL];
    const { tokens } = await renderer.prompt({ ...source, tools }, [{ role: 'user', content: PROBES[0] }]);
    const position = commonPrefixLength(tokens, template) - MERGE_MARGIN;
    if (position > (breakpoints.at(-1) ?? 0) && position < template.length) {
      breakpoints.push(position);
    }
  }
  return breakpoints;
}

/** A block consists of adjacent tools that come from the same server, or of adjacent tools without a server. */
function countsInFrontOfBlocks(tools: readonly ToolDefinition[]): number[] {
  return tools.flatMap((tool, index) => (index === 0 || tool.server !== tools[index - 1]?.server ? [index] : []));
}
