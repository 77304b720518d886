// The texts in the system prompts of clients that differ between directories, days and users.

/** A text that differs between directories, days or users. */
export interface PortableText {
  /** The name in reports. */
  name: string;
  /** The index of the system message. */
  message: number;
  /** The index of the part of the message. */
  part: number;
  text: RegExp;
}

/** The texts of one client. */
export interface PortableTexts {
  /** The version of the client in which the texts were seen. */
  seenIn: string;
  /** The text with which the first system message begins. */
  opening: string;
  /**
   * The place of the moved texts: the end of the system prompt, or in front of the user's words. If the client sends
   * more text in front of the user's words, sessions share this text only with the place `words`.
   */
  place: 'system' | 'words';
  texts: readonly PortableText[];
}

export const PORTABLE_TEXTS: readonly PortableTexts[] = [
  {
    seenIn: 'opencode 1.18.33',
    opening: 'You are opencode,',
    place: 'system',
    texts: [
      {
        name: 'opencode/environment',
        message: 0,
        part: 0,
        text: /^Here is some useful information about the environment you are running in:\n<env>\n(?: {2}.*\n)+<\/env>\n/m,
      },
    ],
  },
  {
    seenIn: 'Codex 0.171.0',
    opening: 'You are a coding agent running in the Codex CLI,',
    place: 'system',
    texts: [{ name: 'codex/skill-roots', message: 1, part: 0, text: /^### Skill roots\n(?:- `r\d+` = `.*`\n)+/m }],
  },
  {
    seenIn: 'Cline 3.0.65',
    opening: 'You are Cline,',
    place: 'system',
    texts: [
      {
        name: 'cline/environment',
        message: 0,
        part: 0,
        text: /^Environment you are running in:\n<env>\n(?:\d+\. .*\n)+<\/env>\n/m,
      },
    ],
  },
  {
    seenIn: 'pi 1.6.0',
    opening: 'You are a coding assistant running inside pi,',
    place: 'system',
    texts: [{ name: 'pi/directory', message: 0, part: 0, text: /^<cwd>\n.*\n<\/cwd>$/m }],
  },
  {
    seenIn: 'Qwen Code 0.24.4',
    opening: 'You are Qwen Code,',
    place: 'words',
    texts: [
      {
        name: 'qwen-code/output-language',
        message: 0,
        part: 0,
        text: /^--- Context from: \S*output-language\.md ---\n[\s\S]*?^--- End of Context from: \S*output-language\.md ---\n/m,
      },
      {
        name: 'qwen-code/git-snapshot',
        message: 0,
        part: 0,
        text: /^Git snapshot at conversation start\. .*\n```text\n(?:git: .*\n)+```\n/m,
      },
      {
        name: 'qwen-code/memory-directories',
        message: 0,
        part: 0,
        text: /^- USER memory \(.*\): `.*`\n- PROJECT memory \(.*\): `.*`\n/m,
      },
      {
        name: 'qwen-code/memories',
        message: 0,
        part: 0,
        text: /(?<=reserve memory for durable cross-conversation knowledge\.\n\n)## \S+\/MEMORY\.md\n[\s\S]*$/,
      },
    ],
  },
];
