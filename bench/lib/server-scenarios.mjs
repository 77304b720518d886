// What a coding agent does with a server, as a sequence of measured requests.

import { streamChat } from './chat-client.mjs';

/** The scenarios in the order in which they run. */
export const SCENARIOS = {
  cold: 'the first request of a new server',
  secondSession: 'another conversation with the same head',
  secondTurn: 'the second turn of that conversation',
  afterTitle: 'its third turn, after a request for a title',
  restart: 'a new conversation with the same head after a restart of the server',
  eightAtOnce: 'eight such conversations at once: the last first text, and the last end',
};

const TITLE = [
  { role: 'system', content: 'Write a title of at most five words for the conversation.' },
  { role: 'user', content: 'The order of a customer arrived twice.' },
];
const TITLE_TOKENS = 16;
const QUESTIONS = [
  'My chain broke on the way to work. What should I do now?',
  'What does a new chain cost, and how long does the work take?',
  'Which of the tools would you use to find the newest order?',
  'Write one sentence about the return of a part that was used.',
  'A customer wants two bells and a lamp. What do you ask first?',
  'The lamp of order 4711 has not arrived. Where can it be?',
  'Is there a discount if I buy three tires at the same time?',
  'My brakes squeak when it rains. Is that dangerous?',
];

/**
 * Runs all scenarios once, in a new server.
 *
 * @param {() => Promise<{ url: string, stop: () => Promise<void>, save?: () => Promise<void>, restore?: () =>
 *   Promise<void> }>} start starts the server. `save` runs before the restart, `restore` after it.
 * @param {{ head: string, request: object }} workload the system prompt, and the other fields of each request
 * @returns {Promise<Record<keyof typeof SCENARIOS, { firstMs: number, endMs: number }>>}
 */
export async function runScenarios(start, { head, request }) {
  let server = await start();
  try {
    const system = { role: 'system', content: head };
    const ask = (messages, limits) => streamChat(server.url, { ...request, ...limits, messages });
    const results = {};
    results.cold = await ask([system, user(QUESTIONS[0])]);
    const messages = [system];
    const nextTurn = async (question) => {
      messages.push(user(question));
      const reply = await ask(messages);
      messages.push({ role: 'assistant', content: reply.text });
      return reply;
    };
    results.secondSession = await nextTurn(QUESTIONS[1]);
    results.secondTurn = await nextTurn(QUESTIONS[2]);
    await ask(TITLE, { max_tokens: TITLE_TOKENS });
    results.afterTitle = await nextTurn(QUESTIONS[3]);
    await server.save?.();
    await server.stop();
    server = await start();
    await server.restore?.();
    results.restart = await ask([system, user(QUESTIONS[4])]);
    const replies = await Promise.all(QUESTIONS.map((question) => ask([system, user(`${question} Thank you.`)])));
    results.eightAtOnce = { firstMs: latest(replies, 'firstMs'), endMs: latest(replies, 'endMs') };
    return results;
  } finally {
    await server.stop();
  }
}

const user = (content) => ({ role: 'user', content });
const latest = (replies, time) => Math.max(...replies.map((reply) => reply[time]));
