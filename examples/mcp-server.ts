// A small Model Context Protocol server for mcp.ts. Its tool returns the time in a time zone. First run
// `npm install @modelcontextprotocol/server zod`.
import { McpServer } from '@modelcontextprotocol/server';
import { StdioServerTransport } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';

const server = new McpServer({ name: 'clock', version: '1.0.0' });
server.registerTool(
  'time_in',
  {
    description: 'The time of day in a time zone',
    inputSchema: z.object({ zone: z.enum(['Europe/Lisbon', 'Asia/Tokyo', 'America/Lima']) }),
  },
  async ({ zone }) => ({
    content: [{ type: 'text', text: new Intl.DateTimeFormat('en', { timeZone: zone, timeStyle: 'short' }).format() }],
  }),
);
server.registerPrompt(
  'ask_time',
  { description: 'Asks for the time in a city', argsSchema: z.object({ city: z.string() }) },
  ({ city }) => ({ messages: [{ role: 'user', content: { type: 'text', text: `What time is it in ${city}?` } }] }),
);
await server.connect(new StdioServerTransport());
