// Counts the rows that a text fills in a terminal.
import stringWidth from 'fast-string-width';

const segmenter = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

/**
 * The number of rows that a text fills, if it begins in the first column. The row of the cursor after the text counts
 * too, even if it is empty.
 */
export function rowsOf(text: string, columns: number): number {
  return text.split('\n').reduce((rows, line) => rows + rowsOfLine(line, columns), 0);
}

function rowsOfLine(line: string, columns: number): number {
  if (stringWidth(line) <= columns) {
    return 1;
  }
  // A wide character that does not fit at the end of a row moves to the next row.
  let rows = 1;
  let column = 0;
  for (const { segment } of segmenter.segment(line)) {
    const width = stringWidth(segment);
    if (column + width > columns) {
      rows++;
      column = 0;
    }
    column += width;
  }
  return rows;
}
