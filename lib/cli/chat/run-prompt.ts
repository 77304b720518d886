// Answers the prompt of `run`.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { AgentServer } from '../../agent/agent-server.js';
import { HeadstartError } from '../../errors.js';
import type { Reply } from '../../generate/stream-parts.js';
import { chooseModel } from '../choose-model.js';
import { withFiles } from '../inputs/attachments.js';
import { readStandardInput } from '../inputs/standard-input.js';
import { openAgent } from '../open-agent.js';
import { ask } from '../questions.js';
import { Conversation } from './conversation.js';
import { type ConversationCall, readInputs } from './conversation-options.js';
import { ReplyPrinter } from './reply-printer.js';
import { replyStyle } from './reply-style.js';
import { statusLine } from './status-line.js';
import { approvalHook } from './tool-approval.js';

/** The call of `run`. */
export interface RunCall extends ConversationCall {
  args: { model: string | undefined; prompt: readonly string[] };
}

/** @throws HeadstartError as `AgentServer.initialize` and `Session.stream`. */
export async function runPrompt(call: RunCall): Promise<void> {
  const { model, words } = splitArguments(call);
  const prompt = await promptText(call, words);
  const source = await chooseModel(call, model);
  const { mcpServers, systemPrompt, tools, turn } = await readInputs(call);
  const agent = await openAgent(call, source, mcpServers === undefined ? {} : { mcpServers });
  try {
    const onToolCall = call.options.yes ? undefined : approvalHook(approver(call));
    const conversation = await Conversation.open(agent, { systemPrompt, tools, turn, onToolCall }, call.signal);
    await answer(call, agent, conversation, prompt);
  } finally {
    await agent.close();
  }
}

/** Separates the model from the words of the prompt. Both are optional. */
function splitArguments({ args, io }: RunCall): { model: string | undefined; words: readonly string[] } {
  const { model, prompt } = args;
  if (model === undefined || namesModel(model, io.cwd)) {
    return { model, words: prompt };
  }
  return { model: undefined, words: [model, ...prompt] };
}

function namesModel(word: string, directory: string): boolean {
  const isAddress = /^(hf|https?|file):/.test(word) || word.startsWith('~/') || /\.gguf$/i.test(word);
  return isAddress || (!/\s/.test(word) && word.includes('/')) || existsSync(resolve(directory, word));
}

/**
 * The prompt: the words of the command line with their files, and then standard input.
 *
 * @throws HeadstartError `INVALID_ARGUMENT` if there is no prompt, `READ_FAILED`.
 */
async function promptText({ io, output, signal }: RunCall, words: readonly string[]): Promise<string> {
  const { text, missing } = await withFiles(words.join(' '), io.cwd);
  for (const path of missing) {
    output.note(`There is no file "${path}", so @${path} is sent as it is.`);
  }
  const piped = io.stdin.isTTY ? '' : await readStandardInput(io, signal);
  const parts = [text, piped].map((part) => part.trim()).filter((part) => part !== '');
  if (parts.length === 0) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      'Expected a prompt after the model, or on standard input. `llama-headstart chat` starts a conversation.',
    );
  }
  return parts.join('\n\n');
}

/** Asks before each tool call. If nobody can answer, calls are refused. */
function approver(call: RunCall) {
  return async (question: string) => {
    if (!call.output.isInteractive) {
      call.output.note(`${question} Nobody can answer here, so the call is refused. Pass --yes to run tools.`);
      return 'no';
    }
    return (await ask(call, question)) ? 'yes' : 'no';
  };
}

async function answer(call: RunCall, agent: AgentServer, conversation: Conversation, prompt: string): Promise<void> {
  const stream = conversation.stream(prompt, call.signal);
  if (call.output.settings.json) {
    call.output.result(resultOf(agent, conversation, await stream.result), () => []);
    return;
  }
  const style = await replyStyle(call.io, call.output, { raw: call.options.raw, notes: 'stderr' });
  const printer = new ReplyPrinter(style);
  try {
    for await (const part of stream) {
      printer.print(part);
    }
  } finally {
    printer.end();
  }
  const reply = await stream.result;
  style.notes?.write(`${style.dim(await statusLine(reply, conversation, agent.contextSize))}\n`);
  warnOfUnfinished(call, reply);
}

function warnOfUnfinished({ output }: RunCall, { finishReason, detail, toolCalls }: Reply): void {
  if (finishReason === 'length') {
    output.warn(`The reply was cut off (${detail}).`);
  } else if (finishReason === 'tool-calls') {
    const names = [...new Set(toolCalls.map(({ toolName }) => toolName))].join(', ');
    output.warn(`The model called tools that have no code here (${names}). --json prints the calls.`);
  }
}

/** The object that `--json` prints. */
function resultOf(agent: AgentServer, conversation: Conversation, reply: Reply): object {
  const { source, cache, templateTokens, cachedTokens, bytes, ms } = conversation.report;
  return { model: agent.id, start: { source, cache, templateTokens, cachedTokens, bytes, ms }, ...reply };
}
