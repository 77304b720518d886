import type { TemplateCache } from '../cache/template-cache.js';
import type { Engine } from '../engine/engine.js';
import type { RwLock } from '../engine/rw-lock.js';
import type { Model } from '../native/model.js';
import type { MessageEnds } from '../prompt/message-end.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { Renderer, TemplateSource } from '../prompt/renderer.js';
import type { SamplingOptions } from '../sampling-options.js';
import type { ToolSet } from '../tools/tool.js';
import type { Checkpoints } from './checkpoints.js';
import type { CompactionOptions } from './compaction/compaction.js';
import type { ConversationSequence } from './conversation-sequence.js';
import type { ToolOptions } from './options.js';
import type { SavedOptions } from './persistence/saved-options.js';
import type { Session } from './session.js';

/** What sessions of one agent share. */
export interface SessionServices {
  model: Model;
  engine: Engine;
  cache: TemplateCache;
  renderer: Renderer;
  messageEnds: MessageEnds;
  checkpoints: Checkpoints;
  contextSize: number;
  /** Turns pass it. */
  lock: RwLock;
}

export interface SessionSetup {
  id?: string | undefined;
  source: TemplateSource;
  tools: ToolSet;
  /** The template's tokens; empty where conversations share none. */
  template: Int32Array;
  /** Why `template` is empty. */
  templateReason?: string | undefined;
  useCache: boolean;
  /** Whose entries serve it. */
  tenant?: string | undefined;
  /** Where the template's prefill is cut, and its heads kept. */
  breakpoints?: readonly number[] | undefined;
  /** The conversation so far. */
  messages: readonly ChatMessage[];
  /** Over the agent's. */
  sampling: SamplingOptions;
  /** As they were given. */
  options: SavedOptions & ToolOptions;
  /** Undefined: the conversation is never shortened by itself. */
  compaction?: CompactionOptions | undefined;
  signal?: AbortSignal | undefined;
  /** The template was not how the first prompt began. */
  onMismatch: (source: TemplateSource) => void;
  onOpened: (session: Session, sequence: ConversationSequence) => void;
  onClosed: (session: Session) => void;
}
