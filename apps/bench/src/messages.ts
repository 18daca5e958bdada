/** What is said: always the same, so that every contestant stores the same bytes. */
import type { Message } from "./contestant.js";

const length = 400;
const words =
  "a about after all and answer any are as ask at be been before but by can chat could day do every find first for from get give go good had has have he her him his how I if in into is it just know like long look make many may me memory message more most my new no not now of on one only or order other our out people question right said same see she so some store such take tell than that the their them then there these they thing think this those time to two up us use very want was way we well were what when where which who will with word work would write year you your".split(
    " ",
  );

/** Answers come in lines of so many words. */
const wordsInLine = 12;

/** The n-th message of whoever is named: 400 characters of ordinary words that begin with both. Every other one is an answer. */
export function message(n: number, who = "m"): Message {
  const role = n % 2 === 0 ? "user" : "assistant";
  let content = `${who}${n}`;
  // A linear congruential generator: reproducible, and as compressible as text is.
  for (let seed = n, count = 1; content.length < length; count++) {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    const gap = role === "assistant" && count % wordsInLine === 0 ? "\n" : " ";
    content += `${gap}${words[(seed >>> 8) % words.length]}`;
  }
  return { role, content: content.slice(0, length) };
}

/** The first `count` messages of a conversation, with the ids `m0`, `m1`, … */
export function history(count: number): Message[] {
  return Array.from({ length: count }, (_, n) => ({ id: `m${n}`, ...message(n) }));
}
