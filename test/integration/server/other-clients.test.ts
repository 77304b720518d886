// The AI SDK and LangChain.js, with their providers for the APIs of OpenAI and Anthropic. `npm run test:package` tests
// the newest versions, which need Node.js 22.
import { describe, expect, it } from 'vitest';
import { expectedReport } from '../../helpers/client-report.js';
import { startServer } from '../../helpers/server.js';
import { clientReport } from '../../package/children/clients.mjs';

describe('clients of other SDKs', () => {
  it('get texts, streams, tool calls and objects', async () => {
    const server = await startServer({ contextSize: 4096 });
    const report = await clientReport(server.url);
    expect(report).toEqual(expectedReport(report));
  });
});
