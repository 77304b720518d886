// A realistic system prompt and tools, long enough to be worth caching.
import type { ToolDefinition } from 'llama-headstart/internal';

export const SYSTEM_PROMPT = [
  'You are a patient assistant in a small workshop that repairs bicycles.',
  'Answer in short sentences. Say when you are not sure. Prices are in euros.',
  'The workshop opens at nine and closes at six, and is closed on Sundays.',
].join('\n');

export const TOOLS: readonly ToolDefinition[] = [
  {
    name: 'find_part',
    description: 'Looks up a spare part by its name and says how many are in stock.',
    parameters: {
      type: 'object',
      properties: { name: { type: 'string', description: 'For example: chain, brake pad' } },
      required: ['name'],
    },
  },
  {
    name: 'book_repair',
    description: 'Books a repair.',
    parameters: {
      type: 'object',
      properties: { day: { type: 'string' }, hours: { type: 'integer', minimum: 1 } },
      required: ['day'],
    },
  },
];

/** Returns a different system prompt for each number. */
export function numberedPrompt(number: number): string {
  return `${SYSTEM_PROMPT}\nYour workshop has the number ${number}.`;
}

/** A system prompt or message of about 2,000 tokens. */
export const LONG_PROMPT = Array.from({ length: 25 }, (_, index) => numberedPrompt(index)).join('\n');
