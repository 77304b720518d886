import type { CliIo } from '../io.js';
import type { Output } from '../output.js';
import type { ReplyStyle } from './reply-printer.js';

/**
 * How replies are shown: with rendered Markdown, reasoning and tool calls for people, and as plain text for programs.
 *
 * @param notes receives reasoning and tool calls
 */
export async function replyStyle(
  io: CliIo,
  output: Output,
  { raw, notes }: { raw: boolean; notes: 'stdout' | 'stderr' },
): Promise<ReplyStyle> {
  const hasColors = output.style('dim', '') !== '';
  const rendersMarkdown = output.isTerminal && hasColors && !raw;
  const isRead = notes === 'stdout' ? output.isTerminal : io.stderr.isTTY === true;
  return {
    output: io.stdout,
    isTerminal: output.isTerminal,
    notes: isRead && !output.settings.quiet ? io[notes] : undefined,
    markdown: rendersMarkdown ? (await import('./markdown.js')).terminalMarkdown : undefined,
    dim: (text) => (notes === 'stdout' ? output.style('dim', text) : output.styleError('dim', text)),
  };
}
