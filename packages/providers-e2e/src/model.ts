/** What the model behind every API does. It is a function of what it is shown. */

/** A message as every API has it. */
export interface Seen {
  readonly who: "system" | "user" | "assistant" | "tool";
  readonly text: string;
}

/** A call of a tool. Each API makes an id for it as it does. */
interface Call {
  readonly name: string;
  readonly input: object;
}

/** What a model answers, after some thought where its API has that. */
export type Answer =
  | { readonly text: string; readonly thinks?: boolean }
  | { readonly calls: readonly Call[] };

/** The cities whose weather it asks for: the second and the third at once. */
export const cities = ["Rome", "Oslo", "Lima"] as const;

/** What the tool says. */
export const forecast = (city: string): string => `Sunny in ${city}`;

const calls = cities.map((city): Call => ({ name: "weather", input: { city } }));

/** When it says nothing any more: the user's message holds one of these. */
export type Hold = "at the question" | "after Rome" | "after Lima" | "in mid-sentence";

const resultsAtHold = { "at the question": 0, "after Rome": 1, "after Lima": 3 } as const;

/** The words with which a user's message makes the model stop. */
export const silent = (hold: Hold): string => `(be silent ${hold})`;

/** What a model makes of what it is shown: the answer, and whether it ever comes. */
export type Model = (
  seen: readonly Seen[],
  hasTools: boolean,
) => { answer: Answer; hold: "whole" | "half" | undefined };

export const answerTo: Model = (seen, hasTools) => {
  const index = seen.findLastIndex(({ who }) => who === "user");
  // Where an API wants the roles in turn, messages of one role may have been joined.
  const question = seen[index]?.text.split("\n").at(-1) ?? "";
  const results = seen.slice(index + 1).filter(({ who }) => who === "tool");
  const isSilent = Object.entries(resultsAtHold).some(
    ([hold, count]) => results.length === count && question.includes(silent(hold as Hold)),
  );
  const isHalf = question.includes(silent("in mid-sentence"));
  const round = hasTools
    ? [calls.slice(0, 1), calls.slice(1)][Math.min(results.length, 2)]
    : undefined;
  const said =
    results.length > 0 ? results.map(({ text }) => text).join(", ") : `You said: ${question}`;
  return {
    answer: round === undefined ? { text: `${said}.` } : { calls: round },
    hold: isSilent ? "whole" : isHalf && round === undefined ? "half" : undefined,
  };
};

let made = 0;

/** An id that was not made before, of that many letters and digits. */
export function newId(length: number): string {
  return (made++).toString(36).padStart(length, "0");
}
