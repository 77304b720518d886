// Asks the user before a tool runs.
import type { ToolCall } from '../../prompt/messages.js';
import type { ToolCallDecision, ToolCallHook } from '../../tools/tool-call-hook.js';
import { oneLine } from './reply-printer.js';

/** The user's answer. `always` also approves the later calls of this tool. */
export type Approval = 'yes' | 'always' | 'no';

/** Asks a question, and returns the user's answer. */
export type AskApproval = (question: string) => Promise<Approval>;

/** The question about a call. */
export function approvalQuestion({ toolName, input }: Pick<ToolCall, 'toolName' | 'input'>): string {
  return `Run ${toolName} ${oneLine(input)}?`;
}

/** A hook that asks about each call. If one reply has several calls, it asks one question after another. */
export function approvalHook(ask: AskApproval): ToolCallHook {
  const approvedTools = new Set<string>();
  let lastQuestion: Promise<unknown> = Promise.resolve();
  return (call) => {
    const decide = async (): Promise<ToolCallDecision> => {
      const answer = approvedTools.has(call.toolName) ? 'yes' : await ask(approvalQuestion(call));
      if (answer === 'always') {
        approvedTools.add(call.toolName);
      }
      return answer === 'no' ? { refuse: 'the user refused this call' } : true;
    };
    const decision = lastQuestion.then(decide);
    lastQuestion = decision.catch(() => undefined);
    return decision;
  };
}
