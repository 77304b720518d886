import type { ContentOwner } from '../engine/forget-calls.js';
import { group, type OptionsOf, text } from '../option-types.js';

const FORGET = {
  /** The tenant of the conversations. @default any */
  tenant: text().optional(),
  /** The `affinity` of their requests. @default any */
  affinity: text().optional(),
};

/** Names the conversations to forget. At least one field must be present, and a conversation must match all of them. */
export interface ForgetOptions extends OptionsOf<typeof FORGET> {}

export const FORGET_OPTIONS = group(FORGET);

/** What was forgotten. */
export interface ForgetReport {
  /** Number of idle sequences of the KV cache that were emptied. */
  sequences: number;
  /** Number of states in memory that were dropped. */
  states: number;
  /** Number of files that were deleted. */
  files: number;
}

/** Whether the options name this owner of a conversation. */
export function isOf(owner: ContentOwner, { tenant, affinity }: ForgetOptions): boolean {
  return (tenant === undefined || owner.tenant === tenant) && (affinity === undefined || owner.affinity === affinity);
}
