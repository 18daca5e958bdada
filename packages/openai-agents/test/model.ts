/** What the model of these tests answers. */
import { openaiResponses, type Seen, serve } from "@chatstore/providers-e2e/responses";

export const startResponsesApi = () =>
  serve(openaiResponses, (seen) => ({ answer: answerTo(seen), hold: undefined }));

function answerTo(seen: readonly Seen[]) {
  const last = seen.at(-1);
  if (last?.who === "tool") return { text: `The tool says ${last.text}` };
  const asked = last?.text ?? "";
  if (asked.startsWith("weather in ")) {
    const cities = asked.slice("weather in ".length).split(" and ");
    return { calls: cities.map((city) => ({ name: "get_weather", input: { city } })) };
  }
  if (asked.startsWith("delete ")) {
    return { calls: [{ name: "delete_file", input: { name: asked.slice(7) } }] };
  }
  if (asked.startsWith("refund")) return { calls: [{ name: "transfer_to_Billing", input: {} }] };
  const questions = seen.filter(({ who }) => who === "user").map(({ text }) => text);
  return { text: `You said: ${questions.join(" | ")}`, thinks: asked.startsWith("think") };
}
