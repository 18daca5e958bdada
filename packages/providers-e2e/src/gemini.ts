/** Gemini's generateContent. */
import type { Seen } from "./model.js";
import { isObject, type Rule } from "./rules.js";
import { type Api, events, inWords } from "./server.js";

interface Part {
  text?: string;
  functionCall?: { name?: string; args?: unknown };
  functionResponse?: { name?: string; response?: { result?: unknown } };
  inlineData?: unknown;
  fileData?: unknown;
}

export interface GeminiBody {
  contents: { role?: string; parts?: Part[] }[];
  tools?: unknown[];
}

const guide = "https://ai.google.dev/gemini-api/docs/function-calling";

export const geminiRules: readonly Rule<GeminiBody>[] = [
  {
    known: "https://ai.google.dev/api/caching#Content",
    *broken({ contents }) {
      if (contents.length === 0)
        yield "* GenerateContentRequest.contents: contents is not specified\n";
      if (contents.some(({ role }) => role !== "user" && role !== "model")) {
        yield "Please use a valid role: user, model.";
      }
      for (const [index, { role: _, parts: __, ...others }] of contents.entries()) {
        for (const name of Object.keys(others)) {
          yield `Invalid JSON payload received. Unknown name "${name}" at 'contents[${index}]': Cannot find field.`;
        }
      }
    },
  },
  {
    known:
      "https://github.com/egoist/chatwise-releases/issues/250, https://github.com/boldsoftware/sketch/issues/68",
    *broken({ contents }) {
      for (const [index, { parts = [] }] of contents.entries()) {
        const path = `* GenerateContentRequest.contents[${index}].parts`;
        if (parts.length === 0) yield `${path}: contents.parts must not be empty.\n`;
        for (const [place, part] of parts.entries()) {
          if (!Object.values(part).some(Boolean)) {
            yield `${path}[${place}].data: required oneof field 'data' must have one initialized field\n`;
          }
        }
      }
    },
  },
  {
    known: "https://github.com/crewAIInc/crewAI/pull/6973",
    *broken({ contents }) {
      if (contents.at(-1)?.role === "model") {
        yield "Please ensure that multiturn requests end with a user turn or a function response turn.";
      }
    },
  },
  {
    known: "https://github.com/google-gemini/gemini-cli/issues/11814",
    *broken({ contents }) {
      for (const [index, content] of contents.entries()) {
        if (callsOf(content).length > 0 && contents[index - 1]?.role !== "user") {
          yield "Please ensure that function call turn comes immediately after a user turn or after a function response turn.";
        }
      }
    },
  },
  {
    known:
      "https://github.com/langchain-ai/langchain/issues/27799, https://github.com/google-gemini/gemini-cli/issues/4217",
    *broken({ contents }) {
      for (const [index, content] of contents.entries()) {
        const responses = responsesOf(content);
        const calls = callsOf(contents[index - 1]);
        if (responses.length > 0 && calls.length === 0) {
          yield "Please ensure that function response turn comes immediately after a function call turn.";
        }
        if (responses.length !== calls.length) {
          yield "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.";
        }
      }
    },
  },
  {
    known:
      "https://github.com/AstrBotDevs/AstrBot/pull/7216 (Struct), and of the order of parts, " +
      guide,
    *broken({ contents }) {
      for (const [index, content] of contents.entries()) {
        const path = `contents[${index}].parts`;
        for (const call of callsOf(content)) {
          if (!call.name)
            yield `* GenerateContentRequest.${path}.function_call.name: Name cannot be empty.\n`;
          if (!isObject(call.args)) {
            yield `Invalid value at '${path}.function_call.args' (type.googleapis.com/google.protobuf.Struct)`;
          }
        }
        for (const response of responsesOf(content)) {
          if (!response.name) {
            yield `* GenerateContentRequest.${path}.function_response.name: Name cannot be empty.\n`;
          }
          if (!isObject(response.response)) {
            yield `Invalid value at '${path}.function_response.response' (type.googleapis.com/google.protobuf.Struct)`;
          }
        }
      }
    },
  },
];

type Content = GeminiBody["contents"][number];

function callsOf(content: Content | undefined) {
  return (content?.parts ?? []).flatMap(({ functionCall }) => functionCall ?? []);
}

function responsesOf(content: Content | undefined) {
  return (content?.parts ?? []).flatMap(({ functionResponse }) => functionResponse ?? []);
}

export const gemini: Api<GeminiBody> = {
  rules: geminiRules,
  see: ({ contents }) =>
    contents.flatMap(({ role, parts = [] }) =>
      parts.flatMap(({ text, functionResponse }): Seen[] => {
        if (functionResponse !== undefined) {
          return [{ who: "tool", text: String(functionResponse.response?.result) }];
        }
        if (text === undefined) return [];
        return [{ who: role === "model" ? "assistant" : "user", text }];
      }),
    ),
  hasTools: ({ tools = [] }) => tools.length > 0,
  isStream: (_, path) => path.includes("streamGenerateContent"),
  streamType: "text/event-stream",
  answer(answer, stream) {
    const parts: Part[] =
      "text" in answer
        ? [{ text: answer.text }]
        : answer.calls.map(({ name, input }) => ({ functionCall: { name, args: input } }));
    const response = (some: readonly Part[], isLast: boolean) => ({
      candidates: [
        {
          index: 0,
          content: { role: "model", parts: some },
          ...(isLast && { finishReason: "STOP" }),
        },
      ],
      modelVersion: "gemini-2.5-flash",
    });
    if (!stream) return [JSON.stringify(response(parts, true))];
    const pieces = "text" in answer ? inWords(answer.text).map((text) => ({ text })) : parts;
    return events(pieces.map((part, index) => response([part], index === pieces.length - 1)));
  },
  refuse: (message) => ({
    status: 400,
    body: { error: { code: 400, message, status: "INVALID_ARGUMENT" } },
  }),
};
