// `node turns-program.mjs PACKAGE session|chat OPTIONS`: an agent that runs turns for bench/turns.mjs. PACKAGE is the
// main file of a built checkout, and OPTIONS are the options of its agent as JSON. The parent process sends messages,
// and the program answers each of them:
//
// - `{ system }` starts a conversation with this system prompt.
// - `{ question, maxTokens }` runs the next turn. The answer is `{ ms }`, the time to the first text of the reply.

import { once } from 'node:events';
import { argv } from 'node:process';
import { setTimeout as wait } from 'node:timers/promises';

/** In this time after a turn, an agent finishes the turn's work, such as a checkpoint. */
const SETTLING_MS = 60;

const [, , packageFile, kind, options] = argv;
const { AgentServer } = await import(packageFile);
const agent = await AgentServer.initialize({ ...JSON.parse(options), logger: () => {} });
const startConversation = { session: startSession, chat: startChat }[kind];

/** A conversation in a session. */
async function startSession(systemPrompt) {
  const session = await agent.createSession({ systemPrompt });
  return {
    stream: (question, limits) => session.stream(question, limits),
    onReply: () => {},
    close: () => session.close(),
  };
}

/** The same conversation in requests that contain all its messages. */
async function startChat(systemPrompt) {
  const messages = [{ role: 'system', content: systemPrompt }];
  return {
    stream: (question, limits) => {
      messages.push({ role: 'user', content: question });
      return agent.chat({ messages: [...messages], ...limits });
    },
    onReply: (text) => messages.push({ role: 'assistant', content: text }),
    close: () => {},
  };
}

async function runTurn(conversation, { question, maxTokens }) {
  const begin = performance.now();
  let ms;
  let text = '';
  for await (const part of conversation.stream(question, { maxTokens })) {
    if (part.type !== 'text-delta') continue;
    ms ??= performance.now() - begin;
    text += part.text;
  }
  conversation.onReply(text);
  await wait(SETTLING_MS);
  return { ms };
}

let conversation;
process.send('ready');
for (;;) {
  const [message] = await once(process, 'message');
  if (message === 'stop') break;
  if (message.system === undefined) {
    process.send(await runTurn(conversation, message));
  } else {
    await conversation?.close();
    conversation = await startConversation(message.system);
    process.send('started');
  }
}
await conversation?.close();
await agent.close();
process.disconnect();
