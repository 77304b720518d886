import { CONVERSATION_OPTIONS } from '../chat/conversation-options.js';
import { command } from '../command.js';

export const chat = command({
  name: 'chat',
  summary: 'starts a conversation',
  details: [
    'Without a model, `chat` uses the only downloaded model, or asks which one. Ctrl-C stops a reply, and Ctrl-C twice ' +
      'leaves. `@path` in a message adds the text of a file. If standard input is not a terminal, each of its lines ' +
      'is a message, even if it begins with a slash.',
    'These commands work in a conversation: `/save FILE`, `/load FILE`, `/fork`, `/undo`, `/system TEXT`, ' +
      '`/tools FILE`, `/stats`, `/help` and `/exit`.',
  ],
  arguments: {
    model: { about: 'a path, an address, or `hf:owner/name[:quantization]`', optional: true, completion: 'file' },
  },
  options: CONVERSATION_OPTIONS,
  examples: [
    { line: 'chat hf:owner/model', about: 'Download a model, and talk to it.' },
    { line: 'chat model.gguf --mcp mcp.json', about: 'Let the model use the tools of MCP servers.' },
    { line: 'chat model.gguf --system @prompt.txt', about: 'Read the system prompt from a file.' },
  ],
  async run(call) {
    const { runChat } = await import('../chat/run-chat.js');
    await runChat(call);
  },
});
