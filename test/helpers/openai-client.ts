import OpenAI from 'openai';

/** OpenAI's own client for a test server. It neither repeats requests nor logs refusals. */
export const openAiClient = ({ url }: { url: string }, apiKey = 'none'): OpenAI =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, logLevel: 'off' });
