/** Messages of version 4: `content` with `toolInvocations`, or early `parts` of other names. */
import type { UIMessage } from "ai";

type Fields = { readonly [name: string]: unknown };
type Part = UIMessage["parts"][number];

const oldParts: ReadonlySet<unknown> = new Set(["tool-invocation", "source"]);

/** Whether version 4 made a message. */
export function isOldFormat(message: unknown): message is Fields {
  const { role, content, parts, toolInvocations } = fieldsOf(message);
  if (typeof role !== "string") return false;
  if (!Array.isArray(parts)) return typeof content === "string" || Array.isArray(toolInvocations);
  return parts.map(fieldsOf).some((part) => oldParts.has(part["type"]) || isOldPart(part));
}

function isOldPart({ type, reasoning, data, mimeType, url }: Fields): boolean {
  return (
    (type === "reasoning" && reasoning !== undefined) ||
    (type === "file" && url === undefined && (data ?? mimeType) !== undefined)
  );
}

/** The message in the format of today. Its parts come in the order in which version 4 showed them. */
export function upgraded(message: Fields): UIMessage {
  const { id, role, content, parts, toolInvocations, reasoning, data, annotations } = message;
  const converted = Array.isArray(parts)
    ? parts.flatMap((part) => toPart(fieldsOf(part)))
    : [
        ...(typeof reasoning === "string" && reasoning !== ""
          ? [{ type: "reasoning" as const, text: reasoning }]
          : []),
        ...list(toolInvocations).flatMap((one) => toTool(fieldsOf(one))),
        ...(typeof content === "string" && content !== ""
          ? [{ type: "text" as const, text: content }]
          : []),
      ];
  const kept = Object.fromEntries(
    Object.entries({ createdAt: message["createdAt"], annotations, data }).filter(
      ([, value]) => value !== undefined,
    ),
  );
  const metadata = message["metadata"] ?? (Object.keys(kept).length > 0 ? kept : undefined);
  return {
    id: id as string,
    role: (role === "data" ? "user" : role) as UIMessage["role"],
    ...(metadata !== undefined && { metadata }),
    parts: [...converted, ...list(message["experimental_attachments"]).map(toFile)],
  };
}

function toPart(part: Fields): Part[] {
  const { type, text } = part;
  switch (type) {
    case "tool-invocation":
      return toTool(fieldsOf(part["toolInvocation"]));
    case "reasoning":
      return [{ type, text: String(part["reasoning"] ?? text ?? "") }];
    case "source": {
      const { id, url, title } = fieldsOf(part["source"]);
      const named = typeof title === "string" ? { title } : {};
      return [{ type: "source-url", sourceId: String(id), url: String(url), ...named }];
    }
    case "file": {
      if (part["url"] !== undefined) return [part as Part];
      const mediaType = String(part["mimeType"]);
      return [{ type, mediaType, url: `data:${mediaType};base64,${part["data"]}` }];
    }
    default:
      return [part as Part];
  }
}

function toTool({ state, toolCallId, toolName, args, result }: Fields): Part[] {
  const call = { type: `tool-${toolName}`, toolCallId, input: args };
  if (state === "result") return [{ ...call, state: "output-available", output: result } as Part];
  const isWhole = state === "call";
  return [{ ...call, state: isWhole ? "input-available" : "input-streaming" } as Part];
}

function toFile(attachment: unknown): Part {
  const { name, contentType, url } = fieldsOf(attachment);
  return {
    type: "file",
    mediaType: String(contentType ?? "application/octet-stream"),
    ...(typeof name === "string" && { filename: name }),
    url: String(url),
  };
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null ? (value as Fields) : {};
}
