import type { ConversationSequence } from '../chat/conversation-sequence.js';
import type { ToolOptions } from '../chat/send-options.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { TemplateSource } from '../prompt/renderer.js';
import type { SamplingOptions } from '../sampling-options.js';
import type { ToolSet } from '../tools/tool.js';
import type { CompactionOptions } from './compaction/compaction.js';
import type { SavedOptions } from './persistence/saved-options.js';
import type { Session } from './session.js';

/** How one session is set up. */
export interface SessionSetup {
  /** The id of the session. If undefined, the session gets a new id. */
  id?: string | undefined;
  source: TemplateSource;
  tools: ToolSet;
  /** The template's tokens. Empty if prompts with this chat template have no common prefix. */
  template: Int32Array;
  /** Why `template` is empty. */
  templateReason?: string | undefined;
  useCache: boolean;
  /** The session uses only cache entries of this tenant. */
  tenant?: string | undefined;
  /** Token counts at which the template's prefill is split, so that its prefixes can be kept. */
  breakpoints?: readonly number[] | undefined;
  /** The conversation that the session starts with. */
  messages: readonly ChatMessage[];
  /** The session's sampling options, merged with those of the agent. */
  sampling: SamplingOptions;
  /** The session's options as the caller passed them, for `save`. */
  options: SavedOptions & ToolOptions;
  /** The options of automatic compaction. If undefined, only `session.compact()` shortens the conversation. */
  compaction?: CompactionOptions | undefined;
  /** Called if the first prompt does not begin with the template. */
  onMismatch: (source: TemplateSource) => void;
  onOpened: (session: Session, sequence: ConversationSequence) => void;
  onClosed: (session: Session) => void;
}
