// Finds the positions inside a template at which another template may differ: after the system prompt, and after each
// block of tools.
import { commonPrefixLength } from '../tokens.js';
import type { Renderer, TemplateSource, ToolDefinition } from './renderer.js';
import { MERGE_MARGIN, PROBES } from './template-boundary.js';

/** Represents any other tool, because the text in front of a tool does not depend on that tool. */
const OTHER_TOOL: ToolDefinition = { name: 'zz_headstart_other', description: 'x' };

/**
 * Finds breakpoints by rendering prompts in which another tool follows the first blocks of tools. Such a prompt begins
 * like the template, up to the end of these blocks. The breakpoint is at that end.
 *
 * @param template the tokens of the template
 * @returns ascending token counts, each smaller than the token count of the template
 */
export async function findBreakpoints(
  renderer: Renderer,
  source: TemplateSource,
  template: Int32Array,
): Promise<number[]> {
  const breakpoints: number[] = [];
  const kept: ToolDefinition[] = [];
  for (const block of blocksOf(source.tools ?? [])) {
    const { tokens } = await renderer.prompt({ ...source, tools: [...kept, OTHER_TOOL] }, [
      { role: 'user', content: PROBES[0] },
    ]);
    const position = commonPrefixLength(tokens, template) - MERGE_MARGIN;
    if (position > (breakpoints.at(-1) ?? 0) && position < template.length) {
      breakpoints.push(position);
    }
    kept.push(...block);
  }
  return breakpoints;
}

/** Groups adjacent tools that come from the same server, and adjacent tools without a server. */
function blocksOf(tools: readonly ToolDefinition[]): ToolDefinition[][] {
  const blocks: ToolDefinition[][] = [];
  for (const tool of tools) {
    const last = blocks.at(-1);
    if (last !== undefined && last[0]?.server === tool.server) {
      last.push(tool);
    } else {
      blocks.push([tool]);
    }
  }
  return blocks;
}
