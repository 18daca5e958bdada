/**
 * Any JavaScript string as text that every engine can hold (well-formed, no NUL), and back. Ordinary text stays
 * as it is; only a string that holds a NUL or a lone surrogate, or begins with the escape's own mark, changes.
 */

const mark = "~";

/** Whether every engine can hold the string as it is. */
export function isPortable(text: string): boolean {
  return !text.includes("\0") && text.isWellFormed();
}

/** Escape backslashes, NULs and lone surrogates: a portable string for any string. */
export function escapeText(text: string): string {
  return text.replace(
    /[\\\0]|\p{Surrogate}/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** The inverse of {@link escapeText}. */
export function unescapeText(text: string): string {
  return text.replace(/\\u([0-9a-f]{4})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/** For strings that are stored as they are (ids, titles): marked when they had to be escaped. */
export function toPortable(text: string): string {
  return isPortable(text) && !text.startsWith(mark) ? text : mark + escapeText(text);
}

/** The inverse of {@link toPortable}. */
export function fromPortable(text: string): string {
  return text.startsWith(mark) ? unescapeText(text.slice(1)) : text;
}
