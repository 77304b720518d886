// Runs `chat`.
import { onAbort } from '../../abort.js';
import type { AgentServer } from '../../agent/agent-server.js';
import { chooseModel } from '../choose-model.js';
import { openAgent } from '../open-agent.js';
import { countText } from '../words.js';
import { ChatLoop } from './chat-loop.js';
import { Conversation } from './conversation.js';
import { type ConversationCall, readInputs } from './conversation-options.js';
import { readHistory, saveHistory } from './history.js';
import { LineReader } from './line-reader.js';
import { replyStyle } from './reply-style.js';
import { COMMAND_NAMES } from './slash-commands.js';
import { approvalHook } from './tool-approval.js';

/** The call of `chat`. */
export interface ChatCall extends ConversationCall {
  args: { model: string | undefined };
}

/** @throws HeadstartError as `AgentServer.initialize` and `Session.stream`. */
export async function runChat(call: ChatCall): Promise<void> {
  const source = await chooseModel(call, call.args.model);
  const inputs = await readInputs(call);
  const { mcpServers } = inputs;
  const agent = await openAgent(call, source, mcpServers === undefined ? {} : { mcpServers });
  try {
    await converse(call, agent, inputs);
  } finally {
    await agent.close();
  }
}

async function converse(
  call: ChatCall,
  agent: AgentServer,
  { systemPrompt, tools, turn }: Awaited<ReturnType<typeof readInputs>>,
): Promise<void> {
  const { io, output, options, signal, interrupts } = call;
  const isPerson = output.isInteractive;
  let chat: ChatLoop | undefined;
  const onToolCall = options.yes ? undefined : approvalHook((question) => (chat as ChatLoop).approve(question));
  const settings = { systemPrompt, tools, turn, onToolCall };
  const conversation = await call.step('system prompt', () => Conversation.open(agent, settings, signal));
  const reader = new LineReader({
    input: io.stdin,
    output: io.stdout,
    terminal: isPerson,
    history: isPerson ? await readHistory() : [],
    complete: (line) => [line.startsWith('/') ? COMMAND_NAMES.filter((name) => name.startsWith(line)) : [], line],
  });
  const style = await replyStyle(io, output, { raw: options.raw, notes: 'stdout' });
  chat = new ChatLoop({
    agent,
    conversation,
    reader,
    style,
    directory: io.cwd,
    isPerson,
    fail: (message) => output.fail(message),
  });
  const stopHandling = isPerson ? interrupts.handle(() => chat.interrupt()) : () => undefined;
  const stopWaiting = onAbort(signal, () => reader.close());
  if (isPerson) {
    chat.print(style.dim(`${agent.id} · context ${countText(agent.contextSize)} tokens · /help lists the commands`));
  }
  try {
    await chat.run(signal);
  } finally {
    stopHandling();
    stopWaiting();
    reader.close();
    if (isPerson) {
      await saveHistory(reader.history);
    }
  }
}
