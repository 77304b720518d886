// The commands of a chat: lines that begin with a slash.
import { resolve } from 'node:path';
import { nearestName } from '../../options.js';
import { readToolFile } from '../inputs/tool-file.js';
import type { ChatLoop } from './chat-loop.js';
import { withoutControls } from './reply-printer.js';

interface SlashCommand {
  /** What follows the name. */
  argument?: string;
  help: string;
  run(chat: ChatLoop, argument: string, signal: AbortSignal): Promise<void> | void;
}

const COMMANDS: Readonly<Record<string, SlashCommand>> = {
  save: {
    argument: 'FILE',
    help: 'save the conversation, with its KV state in FILE.kv',
    async run(chat, argument, signal) {
      const path = pathOf(chat, argument);
      if (path !== undefined) {
        await chat.conversation.save(path, signal);
        chat.print(`Saved to ${path}`);
      }
    },
  },
  load: {
    argument: 'FILE',
    help: 'continue a saved conversation',
    async run(chat, argument) {
      const path = pathOf(chat, argument);
      if (path !== undefined) {
        await chat.conversation.load(path);
        chat.print(`Loaded ${chat.conversation.messages.length} messages`);
      }
    },
  },
  fork: {
    argument: '[NUMBER]',
    help: 'continue in a copy of the conversation, or switch to conversation NUMBER',
    run: fork,
  },
  undo: {
    help: 'take back the last message and its reply',
    async run(chat) {
      const message = await chat.conversation.undo();
      chat.print(message === undefined ? 'There is no message to take back.' : `Took back: ${message}`);
    },
  },
  system: {
    argument: '[TEXT]',
    help: 'show or replace the system prompt',
    async run(chat, argument) {
      if (argument === '') {
        chat.print(chat.conversation.settings.systemPrompt ?? 'There is no system prompt.');
      } else {
        await chat.conversation.change({ systemPrompt: argument });
        chat.print('The conversation continues with this system prompt.');
      }
    },
  },
  tools: {
    argument: '[FILE|none]',
    help: 'list the tools, or use those of a file',
    run: tools,
  },
  stats: {
    help: 'show where the tokens came from, and how full the memory is',
    run: showStatistics,
  },
  help: {
    help: 'list the commands',
    run(chat) {
      for (const [name, { argument = '', help }] of Object.entries(COMMANDS)) {
        chat.print(`  ${`/${name} ${argument}`.padEnd(20)} ${help}`);
      }
      chat.print('  """                  begins and ends a message of several lines');
      chat.print('  @path                puts the text of a file into the message');
      chat.print('  Ctrl-C               stops the reply; twice leaves');
    },
  },
  exit: {
    help: 'leave',
    run: (chat) => chat.leave(),
  },
};

/** The names that a line may begin with, for example `/save`. */
export const COMMAND_NAMES: readonly string[] = Object.keys(COMMANDS).map((name) => `/${name}`);

/** Whether a line is a command. A message that begins with a slash needs a space in front. */
export function isCommand(line: string): boolean {
  return line.startsWith('/');
}

/** Runs a command. */
export async function runCommand(chat: ChatLoop, line: string, signal: AbortSignal): Promise<void> {
  const [, name = '', argument = ''] = /^\/(\S*)\s*(.*)$/s.exec(line) ?? [];
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command !== undefined) {
    await command.run(chat, argument.trim(), signal);
    return;
  }
  const nearest = nearestName(name, Object.keys(COMMANDS));
  const hint = nearest === undefined ? '/help lists the commands.' : `did you mean /${nearest}?`;
  chat.print(`There is no command /${name}: ${hint} A message that begins with a slash needs a space in front.`);
}

/** The path that the user named. If there is none, prints what to do and returns undefined. */
function pathOf(chat: ChatLoop, argument: string): string | undefined {
  if (argument === '') {
    chat.print('Name a file, for example: chat.json');
    return undefined;
  }
  return resolve(chat.parts.directory, argument);
}

async function fork(chat: ChatLoop, argument: string): Promise<void> {
  if (argument === '') {
    chat.branches.push(await chat.conversation.fork());
    const from = chat.current + 1;
    chat.current = chat.branches.length - 1;
    chat.print(`This is conversation ${chat.current + 1}, a copy of ${from}. /fork ${from} goes back.`);
    return;
  }
  const index = Number(argument) - 1;
  if (chat.branches[index] === undefined) {
    chat.print(`Expected a number from 1 to ${chat.branches.length}, got ${argument}`);
    return;
  }
  chat.current = index;
  chat.print(`This is conversation ${argument}, with ${chat.conversation.messages.length} messages.`);
}

async function tools(chat: ChatLoop, argument: string): Promise<void> {
  if (argument !== '') {
    const own = argument === 'none' ? [] : await readToolFile(resolve(chat.parts.directory, argument));
    await chat.conversation.change({ tools: own });
  }
  const own = chat.conversation.settings.tools ?? [];
  const all = [...own, ...(await chat.parts.agent.mcp.tools(own.map(({ name }) => name)))];
  if (all.length === 0) {
    chat.print('There are no tools.');
  }
  for (const { name, description } of all) {
    // The description may come from an MCP server.
    chat.print(`  ${name}${description ? `: ${withoutControls(description.split('\n')[0] ?? '')}` : ''}`);
  }
}

async function showStatistics(chat: ChatLoop): Promise<void> {
  const { agent } = chat.parts;
  const { report, messages } = chat.conversation;
  const { kvCells, states } = agent.health();
  const lines = [
    `Conversation: ${messages.length} messages, ${await chat.conversation.countTokens()} of ${agent.contextSize} tokens`,
    `Start: ${report.cachedTokens} of ${report.templateTokens} template tokens from ${report.source}, ${report.ms.toFixed(0)} ms`,
    `KV cache: ${kvCells.used} of ${kvCells.total} cells in use`,
    `States in memory: ${states.bytes} bytes`,
  ];
  const { lastTurn } = chat;
  if (lastTurn !== undefined) {
    const { usage, cache } = lastTurn;
    lines.push(`Last reply: ${usage.outputTokens} tokens, ${usage.tokensPerSecond.toFixed(1)} tokens/s`);
    if (cache.reason !== undefined) {
      lines.push(`Why no more was reused: ${cache.reason}`);
    }
  }
  chat.print(lines.join('\n'));
}
