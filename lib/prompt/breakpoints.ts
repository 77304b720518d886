// Places inside a template that other templates may share: after the system prompt, and after each block of tools.

import { commonPrefixLength } from '../tokens.js';
import type { Renderer, TemplateSource, ToolDefinition } from './renderer.js';
import { MERGE_MARGIN, PROBES } from './template-boundary.js';

/** A tool that stands for any other: what comes before it does not depend on it. */
const OTHER_TOOL: ToolDefinition = { name: 'zz_headstart_other', description: 'x' };

/**
 * Token counts, rising, each short of the template. Found by rendering, as the template's end is: with another tool behind the
 * first blocks, the prompt is the same up to there.
 *
 * @param template its tokens
 */
export async function findBreakpoints(
  renderer: Renderer,
  source: TemplateSource,
  template: Int32Array,
): Promise<number[]> {
  const found: number[] = [];
  const kept: ToolDefinition[] = [];
  for (const block of blocksOf(source.tools ?? [])) {
    const { tokens } = await renderer.prompt({ ...source, tools: [...kept, OTHER_TOOL] }, [
      { role: 'user', content: PROBES[0] },
    ]);
    const position = commonPrefixLength(tokens, template) - MERGE_MARGIN;
    if (position > (found.at(-1) ?? 0) && position < template.length) {
      found.push(position);
    }
    kept.push(...block);
  }
  return found;
}

/** Neighbours that come from one server, or from none. */
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
