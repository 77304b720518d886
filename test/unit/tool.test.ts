// Tests both names of a tool's schema, and the types that `tool()` derives from the schema.
import { type Tool, type ToolContext, tool } from 'llama-headstart';
import { ToolSet } from 'llama-headstart/internal';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { z } from 'zod';

const SWITCH = { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'] };

describe('the schema of a tool', () => {
  it.each<[string, Partial<Tool>]>([
    ['`inputSchema`', { inputSchema: SWITCH }],
    ['its alias `parameters`', { parameters: SWITCH }],
    ['`inputSchema` if `parameters` is undefined', { inputSchema: SWITCH, parameters: undefined }],
  ])('is read from %s, and the model sees the same schema', async (_, schema) => {
    const tools = await ToolSet.prepare([{ name: 'lamp', ...schema }]);
    expect(tools.definitions).toMatchObject([{ name: 'lamp', parameters: SWITCH }]);
    await expect(tools.get('lamp')?.schema.parse({ on: 1 })).rejects.toMatchObject({ code: 'SCHEMA_MISMATCH' });
    expect(await tools.get('lamp')?.schema.parse({ on: true })).toEqual({ on: true });
  });

  it.each(['inputSchema', 'parameters'])('has the name `%s` in errors if the program used this name', async (name) => {
    for (const schema of [{ type: 'array' }, { type: 'color' }]) {
      await expect(ToolSet.prepare([{ name: 'lamp', [name]: schema }])).rejects.toMatchObject({
        code: 'SCHEMA_INVALID',
        message: expect.stringContaining(`Expected \`${name}\` of the tool "lamp" to be`),
      });
    }
  });
});

describe('the types of `tool()`', () => {
  it('come from a zod schema under either name', () => {
    const schema = z.object({ city: z.string(), days: z.number().default(1) });
    type Arguments = { city: string; days: number };
    const made = [
      tool({
        name: 'weather',
        inputSchema: schema,
        execute: (args, context) => {
          expectTypeOf(args).toEqualTypeOf<Arguments>();
          expectTypeOf(context).toEqualTypeOf<ToolContext>();
        },
      }),
      tool({ name: 'weather', parameters: schema, execute: (args) => expectTypeOf(args).toEqualTypeOf<Arguments>() }),
    ];
    expectTypeOf(made).toEqualTypeOf<Tool[]>();
    expect(made.map(({ name }) => name)).toEqual(['weather', 'weather']);
  });

  it('are `unknown` for the arguments of a JSON Schema, and forbid two schemas in one tool', () => {
    tool({ name: 'lamp', inputSchema: SWITCH, execute: (args) => expectTypeOf(args).toBeUnknown() });
    // @ts-expect-error -- both names at once
    const both = tool({ name: 'lamp', inputSchema: SWITCH, parameters: SWITCH });
    expect(both).toHaveProperty('parameters');
  });
});
