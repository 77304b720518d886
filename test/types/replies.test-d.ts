// Tests the types of replies and streams. Nothing here runs, because the type check of `npm run check` finds wrong
// types. test/unit/tool.test.ts tests the types of `tool()`.
import type {
  AgentServer,
  ChatModel,
  CompactionReport,
  Completion,
  FinishReason,
  Reply,
  Session,
  StreamPart,
  ToolCall,
  ToolResult,
  Usage,
} from 'llama-headstart';
import type { FinishDetail } from 'llama-headstart/internal';
import { expectTypeOf } from 'vitest';
import { z } from 'zod';

const REVIEW = z.object({ stars: z.number(), dishes: z.array(z.string()), note: z.string().default('') });
interface Review {
  stars: number;
  dishes: string[];
  note: string;
}

/** `object` has the output type of the schema. `object` may be absent, because a reply can be cut off. */
export async function replies(session: Session): Promise<void> {
  const review = await session.send('How was it?', { responseFormat: { type: 'json', schema: REVIEW } });
  expectTypeOf(review).toEqualTypeOf<Reply<Review>>();
  expectTypeOf(review.object).toEqualTypeOf<Review | undefined>();

  const schema = { type: 'object', properties: { stars: { type: 'number' } } };
  const untyped = await session.send('How was it?', { responseFormat: { type: 'json', schema } });
  expectTypeOf(untyped.object).toBeUnknown();

  const plain = await session.send('Hello', { maxTokens: 8 });
  expectTypeOf(plain.object).toBeUnknown();
  expectTypeOf(plain.toolCalls).toEqualTypeOf<readonly ToolCall[]>();
  expectTypeOf(plain.toolResults).toEqualTypeOf<readonly ToolResult[]>();
  expectTypeOf(plain.finishReason).toEqualTypeOf<FinishReason>();
}

/** A stateless request has the types of a turn, also through the interface that a server needs. */
export async function requests(agent: AgentServer): Promise<void> {
  const model: ChatModel = agent;
  const messages = [{ role: 'user' as const, content: 'How was it?' }];
  const stream = model.chat({ messages, responseFormat: { type: 'json', schema: REVIEW } });
  expectTypeOf(await stream.result).toEqualTypeOf<Reply<Review>>();
  for await (const part of stream) {
    expectTypeOf(part).toEqualTypeOf<StreamPart>();
  }
  expectTypeOf((await agent.chat({ messages }).result).object).toBeUnknown();
  expectTypeOf(agent.countTokens({ messages })).toEqualTypeOf<Promise<number>>();
}

/** The `type` of a part determines its fields. */
export async function parts(session: Session): Promise<void> {
  for await (const part of session.stream('Hello')) {
    expectTypeOf(part).toEqualTypeOf<StreamPart>();
    switch (part.type) {
      case 'text-delta':
      case 'reasoning-delta':
        expectTypeOf(part.text).toBeString();
        // @ts-expect-error -- a part with text has no `toolCallId`
        part.toolCallId;
        break;
      case 'tool-input-start':
        expectTypeOf(part).toEqualTypeOf<{ type: 'tool-input-start'; toolCallId: string; toolName: string }>();
        break;
      case 'tool-input-delta':
        expectTypeOf(part).toEqualTypeOf<{ type: 'tool-input-delta'; toolCallId: string; delta: string }>();
        break;
      case 'tool-call':
        expectTypeOf(part).toExtend<ToolCall>();
        expectTypeOf(part.input).toBeUnknown();
        break;
      case 'tool-result':
        expectTypeOf(part).toExtend<ToolResult>();
        expectTypeOf(part.isError).toBeBoolean();
        break;
      case 'compaction':
        expectTypeOf(part).toExtend<CompactionReport>();
        break;
      case 'finish':
        expectTypeOf(part.usage).toEqualTypeOf<Usage>();
        expectTypeOf(part.detail).toEqualTypeOf<FinishDetail | undefined>();
        break;
      default:
        expectTypeOf(part).toBeNever(); // a new type of part needs a case here, and a line in the guide
    }
  }
}

/** The stream of a completion has only parts of the types `text-delta` and `finish`. */
export async function completions(agent: AgentServer): Promise<void> {
  expectTypeOf(await agent.complete('Once')).toEqualTypeOf<Completion>();
  for await (const part of agent.streamComplete('Once')) {
    expectTypeOf(part.type).toEqualTypeOf<'text-delta' | 'finish'>();
    if (part.type === 'text-delta') {
      expectTypeOf(part.text).toBeString();
    } else {
      expectTypeOf(part.usage).toEqualTypeOf<Usage>();
      // @ts-expect-error -- a completion has no `object`, because it has no response format
      part.object;
    }
  }
}

expectTypeOf<keyof Usage>().toEqualTypeOf<
  | 'inputTokens'
  | 'cachedInputTokens'
  | 'outputTokens'
  | 'reasoningTokens'
  | 'firstTokenMs'
  | 'tokensPerSecond'
  | 'steps'
>();
