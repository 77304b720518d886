// Finds the members of a type that a document describes, in rows of tables, fields of object shapes, and calls of
// methods.

/** Returns a heading and the text below it, up to the next heading of any level. */
export function sectionOf(markdown: string, heading: string): string {
  const withoutCode = markdown.replace(/```[\s\S]*?```/g, (block) => block.replace(/^#/gm, ' '));
  const sections = withoutCode.split(/^(?=#+ )/m);
  const section = sections.find((each) => each.slice(0, each.indexOf('\n')).replace(/^#+ /, '') === heading);
  if (section === undefined) throw new Error(`Expected a section '${heading}', found none`);
  return section;
}

/** Returns the cells of each row of the table whose header row begins with these cells. */
export function tableOf(section: string, ...header: string[]): string[][] {
  const cellsOf = (line: string) =>
    line
      .trim()
      .replace(/^\||\|$/g, '')
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim());
  const lines = section.split('\n');
  const start = lines.findIndex(
    (line) => line.startsWith('|') && header.every((name, index) => cellsOf(line)[index] === name),
  );
  if (start === -1) throw new Error(`Expected a table '| ${header.join(' | ')} |', found none`);
  const end = lines.findIndex((line, index) => index > start && !line.startsWith('|'));
  return lines.slice(start + 2, end === -1 ? undefined : end).map(cellsOf);
}

/** Returns the names in code formatting in a table's cell: `warm` for `warm(templates)`, `detail` for `detail?`. */
export const namesIn = (cell: string): string[] =>
  [...cell.matchAll(/`([a-z]\w*)[^`]*`/gi)].map(([, name]) => name as string);

/** Returns the fields of each object in inline code: for `{ id, name?, type: 'x' }`, the fields id, name and type. */
export function shapesIn(section: string): string[][] {
  const prose = section.replace(/```[\s\S]*?```/g, '');
  const code = [...prose.matchAll(/`([^`]+)`/g)].map(([, text]) => (text as string).replace(/\s+/g, ' '));
  return code.flatMap((text) => [...objectsIn(text)]).map(fieldsOf);
}

/** Returns the content of each `{ ... }` in a text, including nested objects. */
function objectsIn(text: string): string[] {
  const open: number[] = [];
  const objects: string[] = [];
  for (const [index, character] of [...text].entries()) {
    if (character === '{') open.push(index);
    const start = character === '}' ? open.pop() : undefined;
    if (start !== undefined) objects.push(text.slice(start + 1, index));
  }
  return objects;
}

function fieldsOf(object: string): string[] {
  let flat = object;
  for (let before = ''; before !== flat; ) {
    before = flat;
    flat = flat.replace(/\{[^{}]*\}|\[[^[\]]*\]/g, 'value');
  }
  return flat.split(',').map((field) => field.trim().split(/[?:]/)[0]?.trim() ?? '');
}

/**
 * Returns the members of a variable that code uses. For example, `session.send(...)` uses the member `send` of
 * `session`.
 */
export function usedOf(markdown: string, variable: string): string[] {
  const code = (markdown.match(/```[\s\S]*?```|`[^`\n]+`/g) ?? []).join('\n');
  return [...code.matchAll(new RegExp(`(?<![\\w.])${variable.replace('.', '\\.')}\\.(\\w+)`, 'g'))].map(
    ([, name]) => name as string,
  );
}
