import { BaseEmbedding } from "llamaindex";

/** Length of a vector. Words that share a place are rare enough at this size. */
const dimensions = 4096;

// Words that say nothing about what a passage is about.
const stopWords = new Set(
  (
    "a about after again all also an and any are as at be because been before but by can could did do does each else " +
    "for from get give had has have he her his how i if in into is it its just like make many me more most my no not " +
    "now of on once one only or other our out over own say she so some such take tell than that the their them then " +
    "there these they this to too up us use very was we well were what when where which while who why will with would " +
    "you your"
  ).split(" "),
);

/**
 * An embedding that needs no model and no network: a bag of words, hashed into a vector. It finds words, not meanings, and
 * always gives the same vector for the same text.
 */
export class BagOfWords extends BaseEmbedding {
  // biome-ignore lint/complexity/noUselessConstructor: the inherited one is protected
  constructor() {
    super();
  }

  override async getTextEmbedding(text: string): Promise<number[]> {
    const counts = new Map<string, number>();
    for (const [word] of text.toLowerCase().matchAll(/[\p{L}\p{N}]+/gu)) {
      if (!stopWords.has(word)) counts.set(stem(word), (counts.get(stem(word)) ?? 0) + 1);
    }
    const vector = new Array<number>(dimensions).fill(0);
    for (const [word, count] of counts) {
      const place = hash(word) % dimensions;
      vector[place] = (vector[place] ?? 0) + 1 + Math.log(count);
    }
    return vector;
  }
}

/** "Keys", "keyed" and "keying" are one word. */
function stem(word: string): string {
  return word.length > 4 ? word.replace(/(?:ing|ed|es|e|s)$/, "") : word.replace(/s$/, "");
}

/** FNV-1a. */
function hash(word: string): number {
  let value = 0x811c9dc5;
  for (const byte of Buffer.from(word)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value;
}
