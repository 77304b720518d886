// docs/guide/low-level.md documents everything that llama-headstart/native exports.
import * as native from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { namesIn, sectionOf, tableOf } from '../helpers/document-sections.js';
import { readDocument } from '../helpers/documents.js';

const document = readDocument('docs/guide/low-level.md');
const section = sectionOf(document, 'Classes');

/**
 * Returns the names in code formatting that the section has about a class: in the paragraph and the table of the class,
 * or in the row of the class in the last table.
 */
function namesOf(className: string): string[] {
  const blocks = section.split(/^(?=\*\*`|The other classes)/m);
  const block = blocks.find((each) => each.startsWith(`**\`${className}\`**`)) ?? '';
  const row = tableOf(section, 'class').find(([name]) => name === `\`${className}\``) ?? [];
  return [block, ...row].flatMap((text) => [...text.matchAll(/`(?:\w+\.)?(\w+)`/g)].map(([, name]) => name as string));
}

const isClass = (value: unknown): value is { prototype: object } =>
  typeof value === 'function' && Object.getOwnPropertyNames(value.prototype ?? {}).length > 1;

/** Members that the tables need not list. The section "Rules" explains `close()` for all classes. */
const IN_THE_RULES = ['constructor', 'close'];

describe('docs/guide/low-level.md', () => {
  const classes = Object.entries(native).flatMap(([name, value]) =>
    isClass(value) && name !== 'HeadstartError' ? [[name, value.prototype] as const] : [],
  );

  it.each(classes)('names every member of %s', (name, prototype) => {
    const members = Object.getOwnPropertyNames(prototype).filter((each) => !IN_THE_RULES.includes(each));
    const named = namesOf(name);
    expect(members.filter((each) => !named.includes(each))).toEqual([]);
  });

  it('names every class and function', () => {
    const named = new Set([
      ...namesIn(section),
      ...classes.flatMap(([name]) => (namesOf(name).length > 0 ? [name] : [])),
    ]);
    const names = Object.keys(native).filter((name) => name !== 'HeadstartError');
    expect(names.length).toBeGreaterThan(8);
    expect(names.filter((name) => !named.has(name))).toEqual([]);
    expect(sectionOf(document, 'Rules')).toMatch(/`close\(\)`/);
  });
});
