import { CONVERSATION_OPTIONS } from '../chat/conversation-options.js';
import { command } from '../command.js';

export const run = command({
  name: 'run',
  summary: 'answers one prompt',
  details: [
    'The prompt is the text after the model, followed by the text on standard input. `@path` in the prompt adds the ' +
      'text of a file. Without a model, `run` uses the only downloaded model, or asks which one.',
    'The reply goes to standard output. Reasoning, tool calls and a line of numbers go to standard error, if that is a ' +
      'terminal.',
  ],
  arguments: {
    model: { about: 'a path, an address, or `hf:owner/name[:quantization]`', optional: true, completion: 'file' },
    prompt: { about: 'the prompt', optional: true, variadic: true },
  },
  options: CONVERSATION_OPTIONS,
  examples: [
    { line: 'run model.gguf "Why is the sky blue?"', about: 'Answer a question.' },
    { line: 'run hf:owner/model "Explain @src/main.c"', about: 'Download a model, and ask about a file.' },
    { line: 'run model.gguf "Summarize this" < report.txt', about: 'Ask about the text on standard input.' },
    { line: 'run model.gguf --schema person.json "Invent a person"', about: 'Print JSON that matches a schema.' },
  ],
  json: {
    model: 'the name of the model',
    text: 'the reply',
    reasoning: 'the reasoning in front of the reply',
    toolCalls: 'the tool calls of the turn, and `toolResults` their results',
    finishReason: 'why the reply ended, and `detail` the exact cause',
    object: 'the parsed reply, with --schema',
    start: 'the report of the start: whether the system prompt and the tools were loaded or prefilled',
    usage: 'the numbers of tokens, and the speed',
    cache: 'what the prompt reused, and why not more',
  },
  async run(call) {
    const { runPrompt } = await import('../chat/run-prompt.js');
    await runPrompt(call);
  },
});
